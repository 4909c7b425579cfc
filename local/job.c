#include "local.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct local_job *find(struct local *l, uint64_t delivery)
{
	struct local_job *j = l->jobs;
	while (j != NULL && j->delivery != delivery)
		j = j->next;
	return j;
}

static struct local_job *make(struct local *l, uint64_t delivery)
{
	struct local_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return NULL;
	*j = (struct local_job){.delivery = delivery, .body_fd = -1, .began_ms = clock_mono_ms(), .next = l->jobs};
	buffer_init(&j->content, 1024 * 1024);
	buffer_init(&j->indexes, 1024);
	buffer_init(&j->addresses, RUN_ADDRESSES);
	l->jobs = j;
	return j;
}

static void forget(struct local *l, struct local_job *j)
{
	struct local_job **p = &l->jobs;
	while (*p != j)
		p = &(*p)->next;
	*p = j->next;
	if (j->body_fd >= 0)
		(void)close(j->body_fd);
	buffer_free(&j->content);
	buffer_free(&j->indexes);
	buffer_free(&j->task);
	free(j->address);
	free(j->user);
	free(j->base);
	free(j->domain);
	free(j->own_domain);
	free(j->owner);
	buffer_free(&j->addresses);
	free(j);
}

int job_on_part(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, content_part, part);
	struct local *l = ch->program;
	struct local_job *j = find(l, part.delivery);
	if (j == NULL)
		j = make(l, part.delivery);
	if (j == NULL)
		return ENOMEM;
	buffer_put_span(&j->content, part.content);
	return 0;
}

void job_drop_parts(struct local *l)
{
	struct local_job *next;
	for (struct local_job *j = l->jobs; j != NULL; j = next) {
		next = j->next;
		if (j->step == STEP_GATHER)
			forget(l, j);
	}
}

/* ---- the verdict ---- */

static void tell(const struct local *l, const struct local_job *j)
{
	struct buffer results;
	struct span rest = buffer_span(&j->indexes);
	struct result r = {.outcome = j->outcome, .code = j->code, .enhanced = span_of(j->enhanced), .text = span_of(j->text), .peer = SPAN_LIT("local")};
	if (l->qmgr == NULL || !take_u32(&rest, &r.index))
		return;
	if (j->outcome == OUTCOME_EXPANDED) {
		r.text = buffer_span(&j->addresses);
		r.peer = span_of(j->owner);
		r.code = j->addresses_count;
	}
	buffer_init(&results, RUN_ADDRESSES);
	result_put(&results, &r);
	send_verdict(l->qmgr, (struct msg_verdict){.delivery = j->delivery, .id = qid_span(&j->id), .results = buffer_span(&results), .peer = SPAN_LIT("local"),
		.total_ms = (uint32_t)(clock_mono_ms() - j->began_ms)}, -1);
	buffer_free(&results);
}

void job_finish(struct local *l, struct local_job *j)
{
	j->running = false;
	j->step = STEP_DONE;
	buffer_free(&j->content);
	buffer_free(&j->task);
	if (j->body_fd >= 0)
		(void)close(j->body_fd);
	j->body_fd = -1;
	tell(l, j);
}

void job_fail(struct local *l, struct local_job *j, bool for_good, const char *enhanced, const char *text)
{
	j->outcome = for_good ? OUTCOME_FAILED : OUTCOME_DEFERRED;
	j->code = for_good ? 550 : 451;
	(void)snprintf(j->enhanced, sizeof j->enhanced, "%s", enhanced);
	(void)snprintf(j->text, sizeof j->text, "%s", text);
	job_finish(l, j);
}

const struct local_params *job_params(const struct local *l, const struct local_job *j)
{
	return local_of(l->server, j->domain[0] == '\0' ? NULL : server_domain(l->server, span_of(j->domain)));
}

/* ---- the steps ---- */

static void run(struct local *l, struct local_job *j, enum run_kind kind)
{
	int fds[2] = {-1, -1};
	size_t mark;
	if (l->deliver == NULL)
		return; /* it is being replaced: job_deliver_back follows */
	int error = sealed_file("posthorn-task", buffer_span(&j->task), &fds[0]);
	if (error == 0 && j->body_fd >= 0)
		fds[1] = fcntl(j->body_fd, F_DUPFD_CLOEXEC, 3);
	else if (error == 0)
		error = sealed_file("posthorn-content", buffer_span(&j->content), &fds[1]);
	if (error != 0 || fds[1] < 0) {
		if (fds[0] >= 0)
			(void)close(fds[0]);
		LOG(&l->proc.log, task_failed, qid_span(&j->id), F("reason", span_of(strerror(error != 0 ? error : EMFILE))));
		job_fail(l, j, false, "4.3.0", "the delivery could not be begun");
		return;
	}
	struct msg_run_as as = {.job = j->delivery, .kind = kind, .domain = span_of(j->domain), .user = span_of(j->user == NULL ? "" : j->user),
		.base = span_of(j->base == NULL ? "" : j->base)};
	j->running = true;
	channel_begin(l->deliver, MSG_run_as, &mark);
	msg_run_as_put(&l->deliver->out, &as);
	channel_end_fds(l->deliver, mark, fds, 2);
	channel_flush(l->deliver);
}

static void ask(struct local *l, struct local_job *j)
{
	char address[800];
	if (l->maps == NULL)
		return; /* asked when it is there */
	struct span rest = span_of(j->address), local = rest;
	for (size_t i = 0; i < rest.n; i++)
		if (rest.at[i] == '@')
			local.n = i;
	(void)snprintf(address, sizeof address, "%.*s@%s", SPAN_ARG(local), j->own_domain);
	j->running = true;
	send_map_query(l->maps, (struct msg_map_query){.serial = j->delivery, .server = l->server_index, .question = ASK_EXPANSION, .address = span_of(address)}, -1);
}

void job_go_on(struct local *l, struct local_job *j)
{
	const struct local_params *p = job_params(l, j);
	struct delivery how;
	bool mbox = delivery_parse(span_of(p->local_delivery), &how) == 0 && how.kind == DELIVERY_MBOX;
	switch (j->step) {
	case STEP_ASK:
		ask(l, j);
		break;
	case STEP_ALIAS:
		run(l, j, RUN_ALIAS);
		break;
	case STEP_FORWARD:
		run(l, j, RUN_FORWARD);
		break;
	case STEP_DELIVER: /* commands of a .forward run without the group of the mail spool: for mbox they come first, alone */
		run(l, j, mbox ? RUN_MAILBOX : RUN_USER);
		break;
	case STEP_GATHER:
	case STEP_DONE:
		break;
	}
}

int job_on_deliver(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, deliver, deliver);
	struct local *l = ch->program;
	struct arena arena = {0};
	struct envelope e;
	struct local_job *j = find(l, deliver.delivery);
	if (j == NULL)
		j = make(l, deliver.delivery);
	if (j == NULL)
		return ENOMEM;
	buffer_put_span(&j->content, deliver.content);
	buffer_put_span(&j->indexes, deliver.indexes);
	j->domain = span_dup(deliver.domain);
	if (m->fds_n == 1) {
		j->body_fd = m->fds[0];
		m->fds[0] = -1;
	}
	int error = qid_parse(deliver.id, &j->id) != 0 || envelope_parse(deliver.envelope, &arena, &e) != 0 || e.rcpts_n != 1 || j->indexes.n != 4 ? EBADMSG : 0;
	if (error != 0) {
		forget(l, j);
		arena_free(&arena);
		return error;
	}
	j->address = span_dup(e.rcpts[0].address);
	j->plain = (e.rcpts[0].notify & RCPT_PLAIN) != 0;
	j->step = STEP_ASK;
	if (j->address == NULL || j->domain == NULL || !buffer_ok(&j->content))
		job_fail(l, j, false, "4.3.0", "not enough memory");
	else if (!lease_holds(proc_own_lease(&l->proc)))
		job_fail(l, j, false, "4.3.0", "the queue is another node's now");
	else if ((error = task_compose(l, j, &e, deliver.nexthop)) != 0)
		job_fail(l, j, false, "4.3.5", error == EINVAL ? "the way of delivery has changed" : "not enough memory");
	else if (!j->plain && local_is_expanded(job_params(l, j)))
		job_go_on(l, j);
	else
		expand_end(l, j);
	arena_free(&arena);
	return 0;
}

int job_on_answer(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, map_answer, answer);
	struct local *l = ch->program;
	struct local_job *j = find(l, answer.serial);
	if (j == NULL || !j->running || j->step != STEP_ASK)
		return 0;
	j->running = false;
	if (answer.status == ANSWER_FAILED) {
		char text[400];
		(void)snprintf(text, sizeof text, "%.*s", SPAN_ARG(answer.rule));
		job_fail(l, j, false, "4.3.5", text);
		return 0;
	}
	bool leads_on = answer.status == ANSWER_ADDRESSES || answer.status == ANSWER_ALIAS;
	if (!leads_on || expand_take(l, j, answer.value, answer.status == ANSWER_ALIAS, answer.list != 0))
		expand_end(l, j);
	return 0;
}

/* The file has a fixed size; what the child wrote ends with the first NUL. */
static bool take_addresses(struct local *l, struct local_job *j, int fd)
{
	char *bytes = fd < 0 ? NULL : malloc(RUN_ADDRESSES);
	bool good = fd < 0;
	if (bytes != NULL && pread_all(fd, bytes, RUN_ADDRESSES, 0) == 0)
		good = expand_lines(l, j, (struct span){bytes, strnlen(bytes, RUN_ADDRESSES)});
	else if (!good)
		job_fail(l, j, false, "4.3.0", "the addresses of an alias could not be read");
	free(bytes);
	return good;
}

int job_on_ran(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, ran, ran);
	struct local *l = ch->program;
	struct local_job *j = find(l, ran.job);
	if (j == NULL || !j->running)
		return 0;
	j->running = false;
	bool goes_on = j->step == STEP_FORWARD && ran.how == RUN_EXITED && ran.status == RUN_GO_ON;
	if (!goes_on)
		task_ended(j, &ran);
	if (!goes_on && j->outcome != OUTCOME_SENT) {
		job_finish(l, j);
		return 0;
	}
	if (!take_addresses(l, j, m->fds_n == 1 ? m->fds[0] : -1))
		return 0;
	if (goes_on) {
		j->step = STEP_DELIVER;
		job_go_on(l, j);
	} else {
		j->step = j->step == STEP_ALIAS ? STEP_ALIAS : STEP_DONE;
		expand_end(l, j);
	}
	return 0;
}

/* Its children end with it; what they had done can't be told: it is tried again. */
void job_deliver_gone(struct local *l)
{
	for (struct local_job *j = l->jobs; j != NULL; j = j->next)
		if (j->running && j->step != STEP_ASK)
			job_fail(l, j, false, "4.3.0", "the delivering process is being replaced");
}

void job_maps_gone(struct local *l)
{
	for (struct local_job *j = l->jobs; j != NULL; j = j->next)
		if (j->step == STEP_ASK)
			j->running = false;
}

void job_deliver_back(struct local *l)
{
	for (struct local_job *j = l->jobs; j != NULL; j = j->next)
		if (!j->running)
			job_go_on(l, j);
}

int job_on_confirm(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, confirm, confirm);
	struct local *l = ch->program;
	struct local_job *j = find(l, confirm.delivery);
	if (j != NULL && j->step == STEP_DONE)
		forget(l, j);
	return 0;
}

void job_tell_again(struct local *l)
{
	struct buffer list;
	buffer_init(&list, 1024 * 1024);
	for (const struct local_job *j = l->jobs; j != NULL; j = j->next) {
		if (j->step == STEP_DONE) {
			tell(l, j);
			continue;
		}
		buffer_put_u64(&list, j->delivery);
		buffer_put_lspan(&list, qid_span(&j->id));
		buffer_put_lspan(&list, buffer_span(&j->indexes));
	}
	send_holds(l->qmgr, (struct msg_holds){.deliveries = buffer_span(&list)}, -1);
	buffer_free(&list);
}
