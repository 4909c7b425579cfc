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
		if (j->address == NULL)
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
	buffer_init(&results, 4096);
	result_put(&results, &r);
	send_verdict(l->qmgr, (struct msg_verdict){.delivery = j->delivery, .id = qid_span(&j->id), .results = buffer_span(&results), .peer = r.peer,
		.total_ms = (uint32_t)(clock_mono_ms() - j->began_ms)}, -1);
	buffer_free(&results);
}

static void finish(struct local *l, struct local_job *j)
{
	j->running = false;
	j->done = true;
	buffer_free(&j->content);
	buffer_free(&j->task);
	if (j->body_fd >= 0)
		(void)close(j->body_fd);
	j->body_fd = -1;
	tell(l, j);
}

static void fail(struct local *l, struct local_job *j, bool for_good, const char *enhanced, const char *text)
{
	j->outcome = for_good ? OUTCOME_FAILED : OUTCOME_DEFERRED;
	j->code = for_good ? 550 : 451;
	(void)snprintf(j->enhanced, sizeof j->enhanced, "%s", enhanced);
	(void)snprintf(j->text, sizeof j->text, "%s", text);
	finish(l, j);
}

/* ---- the run ---- */

static void begin(struct local *l, struct local_job *j)
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
		fail(l, j, false, "4.3.0", "the delivery could not be begun");
		return;
	}
	struct msg_run_as run = {.job = j->delivery, .domain = span_of(j->domain), .user = span_of(j->user == NULL ? "" : j->user),
		.base = span_of(j->base == NULL ? "" : j->base)};
	j->running = true;
	channel_begin(l->deliver, MSG_run_as, &mark);
	msg_run_as_put(&l->deliver->out, &run);
	channel_end_fds(l->deliver, mark, fds, 2);
	channel_flush(l->deliver);
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
	if (j->address == NULL || j->domain == NULL || !buffer_ok(&j->content))
		fail(l, j, false, "4.3.0", "not enough memory");
	else if ((error = task_compose(l, j, &e, deliver.nexthop)) != 0)
		fail(l, j, false, "4.3.5", error == EINVAL ? "the way of delivery has changed" : "not enough memory");
	else if (j->user == NULL && j->base == NULL)
		fail(l, j, true, "5.1.1", "no user of this machine has that name");
	else
		begin(l, j);
	arena_free(&arena);
	return 0;
}

int job_on_ran(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, ran, ran);
	struct local *l = ch->program;
	struct local_job *j = find(l, ran.job);
	if (j == NULL || !j->running)
		return 0;
	task_ended(j, &ran);
	finish(l, j);
	return 0;
}

/* Its children end with it; what they had done can't be told: it is tried again. */
void job_deliver_gone(struct local *l)
{
	for (struct local_job *j = l->jobs; j != NULL; j = j->next)
		if (j->running)
			fail(l, j, false, "4.3.0", "the delivering process is being replaced");
}

void job_deliver_back(struct local *l)
{
	for (struct local_job *j = l->jobs; j != NULL; j = j->next)
		if (j->address != NULL && !j->done && !j->running)
			begin(l, j);
}

int job_on_confirm(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, confirm, confirm);
	struct local *l = ch->program;
	struct local_job *j = find(l, confirm.delivery);
	if (j != NULL && j->done)
		forget(l, j);
	return 0;
}

void job_tell_again(struct local *l)
{
	struct buffer list;
	buffer_init(&list, 1024 * 1024);
	for (const struct local_job *j = l->jobs; j != NULL; j = j->next) {
		if (j->done) {
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
