#include "drop.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void drop_free_job(struct drop_job *j)
{
	if (j->fd >= 0)
		(void)close(j->fd);
	if (j->body_fd >= 0)
		(void)close(j->body_fd);
	buffer_free(&j->content);
	buffer_free(&j->head);
	buffer_free(&j->reason);
	buffer_free(&j->indexes);
	free(j);
}

static struct drop_job *make_job(uint64_t delivery)
{
	struct drop_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return NULL;
	*j = (struct drop_job){.delivery = delivery, .fd = -1, .body_fd = -1};
	buffer_init(&j->content, 1024 * 1024);
	buffer_init(&j->head, 16 * 1024 * 1024);
	buffer_init(&j->reason, 1024 * 1024);
	buffer_init(&j->indexes, 1024 * 1024);
	return j;
}

/* The job that parts were gathered for, or a new one. */
static struct drop_job *take_job(struct drop *d, uint64_t delivery)
{
	for (struct drop_job **p = &d->gathering; *p != NULL; p = &(*p)->next) {
		if ((*p)->delivery == delivery) {
			struct drop_job *j = *p;
			*p = j->next;
			return j;
		}
	}
	return make_job(delivery);
}

int drop_on_part(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, content_part, part);
	struct drop *d = ch->program;
	struct drop_job *j = take_job(d, part.delivery);
	if (j == NULL)
		return ENOMEM;
	buffer_put_span(&j->content, part.content);
	j->next = d->gathering;
	d->gathering = j;
	return 0;
}

static void work_soon(struct drop *d, struct drop_job *j, struct message *m)
{
	if (m->fds_n == 1) {
		j->body_fd = m->fds[0];
		m->fds[0] = -1;
	}
	j->next = d->jobs;
	d->jobs = j;
	if (!d->work_due) {
		d->work_due = true;
		event_active(d->work, 0, 0);
	}
}

static int directory_of(const struct drop *d, struct span domain)
{
	for (size_t i = 0; i < d->places_n; i++)
		if (span_case_is(domain, d->places[i].domain))
			return d->places[i].fd;
	return d->drop_fd;
}

int drop_on_deliver(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, deliver, deliver);
	struct drop *d = ch->program;
	struct arena arena = {0};
	struct envelope e;
	struct drop_job *j = take_job(d, deliver.delivery);
	if (j == NULL)
		return ENOMEM;
	if (qid_parse(deliver.id, &j->id) != 0 || envelope_parse(deliver.envelope, &arena, &e) != 0) {
		drop_free_job(j);
		arena_free(&arena);
		return EBADMSG;
	}
	j->dir_fd = directory_of(d, deliver.domain);
	buffer_printf(&j->head, "X-Sender: <%.*s>\r\n", SPAN_ARG(e.sender));
	for (size_t i = 0; i < e.rcpts_n; i++)
		buffer_printf(&j->head, "X-Receiver: <%.*s>\r\n", SPAN_ARG(e.rcpts[i].address));
	arena_free(&arena);
	buffer_put_span(&j->content, deliver.content);
	buffer_put_span(&j->indexes, deliver.indexes);
	work_soon(d, j, m);
	return 0;
}

int drop_on_badmail(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, badmail, bad);
	struct drop *d = ch->program;
	struct arena arena = {0};
	struct envelope e;
	struct drop_job *j = take_job(d, bad.delivery);
	if (j == NULL)
		return ENOMEM;
	if (qid_parse(bad.id, &j->id) != 0 || envelope_parse(bad.envelope, &arena, &e) != 0) {
		drop_free_job(j);
		arena_free(&arena);
		return EBADMSG;
	}
	j->badmail = true;
	j->dir_fd = d->badmail_fd;
	buffer_printf(&j->head, "id=%s\narrived=", j->id.text);
	format_rfc3339(&j->head, e.arrived_us / 1000000);
	buffer_printf(&j->head, "\nsender=<%.*s>\n", SPAN_ARG(e.sender));
	for (size_t i = 0; i < e.rcpts_n; i++)
		buffer_printf(&j->head, "recipient=<%.*s>\n", SPAN_ARG(e.rcpts[i].address));
	arena_free(&arena);
	buffer_put_span(&j->content, bad.content);
	buffer_put_span(&j->reason, bad.reason);
	buffer_put_span(&j->indexes, bad.indexes);
	work_soon(d, j, m);
	return 0;
}

static void tell(struct drop *d, const struct drop_job *j)
{
	struct buffer results;
	struct span rest = buffer_span(&j->indexes);
	uint32_t index;
	if (d->qmgr == NULL)
		return;
	buffer_init(&results, 4 * 1024 * 1024);
	struct result r = {.outcome = j->error == 0 ? OUTCOME_SENT : OUTCOME_DEFERRED, .code = j->error == 0 ? 250 : 452,
		.enhanced = j->error == 0 ? SPAN_LIT("2.0.0") : SPAN_LIT("4.3.1"),
		.text = j->error != 0 ? span_of(strerror(j->error)) : j->not_kept ? SPAN_LIT("not kept: Badmail is full; the log has it") : j->badmail ? SPAN_LIT("kept in Badmail") : SPAN_LIT("delivered to the Drop directory"),
		.peer = j->badmail ? SPAN_LIT("badmail") : SPAN_LIT("drop")};
	while (take_u32(&rest, &index)) {
		r.index = index;
		result_put(&results, &r);
	}
	send_verdict(d->qmgr, (struct msg_verdict){.delivery = j->delivery, .id = qid_span(&j->id), .results = buffer_span(&results), .peer = r.peer}, -1);
	buffer_free(&results);
}

/* One directory sync for all of this turn. */
static int sync_directories(const struct drop *d)
{
	int error = fsync(d->drop_fd) == 0 && fsync(d->badmail_fd) == 0 ? 0 : errno;
	for (size_t i = 0; i < d->places_n && error == 0; i++)
		error = fsync(d->places[i].fd) == 0 ? 0 : errno;
	return error;
}

void drop_work(struct drop *d)
{
	struct drop_job *jobs = d->jobs;
	d->jobs = NULL;
	d->work_due = false;
	for (struct drop_job *j = jobs; j != NULL; j = j->next)
		drop_write_job(d, j);
	for (struct drop_job *j = jobs; j != NULL; j = j->next) {
		if (j->error == 0 && !lease_holds(proc_own_lease(&d->proc)))
			j->error = ESTALE; /* whoever has the queue now writes it */
		drop_name_job(j);
	}
	int error = jobs == NULL ? 0 : sync_directories(d);
	while (jobs != NULL) {
		struct drop_job *j = jobs;
		jobs = j->next;
		if (j->error == 0)
			j->error = error;
		if (j->error != 0)
			LOG(&d->proc.log, drop_failed, qid_span(&j->id), F("reason", span_of(strerror(j->error))));
		tell(d, j);
		buffer_free(&j->content);
		j->next = d->told;
		d->told = j;
	}
}

/* A verdict is kept until qmgr says that it is written down: a new qmgr is told again. */
void drop_tell_again(struct drop *d)
{
	struct buffer list;
	buffer_init(&list, 1024 * 1024);
	for (const struct drop_job *j = d->told; j != NULL; j = j->next)
		tell(d, j);
	for (const struct drop_job *j = d->jobs; j != NULL; j = j->next) {
		if (list.n > IPC_INLINE && d->qmgr != NULL) {
			send_holds(d->qmgr, (struct msg_holds){.more = 1, .deliveries = buffer_span(&list)}, -1);
			buffer_clear(&list);
		}
		buffer_put_u64(&list, j->delivery);
		buffer_put_lspan(&list, qid_span(&j->id));
		buffer_put_lspan(&list, buffer_span(&j->indexes));
	}
	if (d->qmgr != NULL)
		send_holds(d->qmgr, (struct msg_holds){.deliveries = buffer_span(&list)}, -1);
	buffer_free(&list);
}

int drop_on_confirm(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, confirm, confirm);
	struct drop *d = ch->program;
	for (struct drop_job **p = &d->told; *p != NULL; p = &(*p)->next) {
		if ((*p)->delivery == confirm.delivery) {
			struct drop_job *j = *p;
			*p = j->next;
			drop_free_job(j);
			break;
		}
	}
	return 0;
}
