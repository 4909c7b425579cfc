/* What waits: its files, its rows, what falls due. */
#include "qmgr.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An index that gives an error is thrown away and made anew from the files. */
void index_trouble(struct qmgr *q, int error)
{
	char text[100];
	(void)snprintf(text, sizeof text, "%s", db_strerror(error));
	LOG(&q->proc.log, index_failed, NO_ID, F("reason", span_of(text)));
	index_close(&q->index);
	(void)!index_wipe();
	error = index_open(&q->index, false);
	if (error != 0)
		LOG(&q->proc.log, index_failed, NO_ID, F("reason", span_of(db_strerror(error))));
	LOG(&q->proc.log, index_rebuilt, NO_ID, F("reason", span_of(text)));
	q->waiting = 0;
	q->pass_dir = 0;
	q->wipes++;
	q_turn_soon(q);
}

static void send_store_of(struct qmgr *q, struct qmsg *m)
{
	send_store(q->mover, (struct msg_store){.id = qid_span(&m->id), .seq = m->seq, .offset = m->offset, .length = m->length,
		.fates = m->fates.n > FACTS_A_PACKET ? (struct span){"", 0} : buffer_span(&m->fates)}, -1);
}

void wait_store(struct qmgr *q, struct qmsg *m)
{
	m->storing = true;
	if (q->mover != NULL)
		send_store_of(q, m);
}

void wait_send_stores(struct qmgr *q)
{
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct qmsg *m = q->messages[b]; m != NULL; m = m->next_hash) {
			if (!m->storing)
				continue;
			m->store_failed = false;
			send_store_of(q, m);
		}
}

/* Never what mover has an order for: an order that is carried out twice would bring back the file of a message that has
 * gone out since. */
void wait_store_failed(struct qmgr *q)
{
	q->store_again = false;
	for (size_t b = 0; b < BUCKETS; b++) {
		for (struct qmsg *m = q->messages[b]; m != NULL; m = m->next_hash) {
			if (!m->store_failed)
				continue;
			m->store_failed = false;
			send_store_of(q, m);
		}
	}
}

int wait_on_stored(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, stored, stored);
	struct qmgr *q = ch->program;
	struct qid id;
	if (qid_parse(stored.id, &id) != 0)
		return EBADMSG;
	struct qmsg *m = msg_find(q, &id);
	if (m == NULL || !m->storing)
		return 0;
	if (stored.status != 0) { /* it stays in the journal meanwhile */
		m->store_failed = q->store_again = true;
		return 0;
	}
	m->storing = m->store_failed = false;
	m->in_wait = true;
	if (m->fates.n > FACTS_A_PACKET) /* too many for the order to store it: they follow in pieces */
		fates_fold(q, &m->id, buffer_span(&m->fates));
	journal_less(q, m->seq);
	buffer_free(&m->fates);
	msg_settle(q, m);
	return 0;
}

void wait_put_row(struct qmgr *q, struct qmsg *m)
{
	struct buffer bytes;
	struct row row;
	buffer_init(&bytes, 16 * 1024 * 1024);
	row_of_message(q, m, &bytes);
	int error = row_parse(buffer_span(&bytes), &row);
	if (error == 0)
		error = index_put(&q->index, &m->id, &row);
	buffer_free(&bytes);
	q->index_dirty = true;
	if (error != 0) {
		index_trouble(q, error);
		return; /* the pass over the files finds it */
	}
	if (!m->in_index)
		q->waiting++;
	m->in_index = true;
}

int wait_load(struct qmgr *q, const struct qid *id, const struct row *row, struct qmsg **out)
{
	char name[64];
	struct record r;
	struct span fates = {"", 0};
	buffer_clear(&q->content);
	qid_path(id, ".msg", name, sizeof name);
	int error = read_file_at(q->wait_fd, name, 64 * 1024 * 1024, &q->content);
	if (error == 0)
		error = wait_parse(buffer_span(&q->content), &r, &fates);
	if (error == 0 && !qid_same(&r.id, id))
		error = EBADMSG;
	if (error == EBADMSG)
		damage_file(q, id, error);
	struct qmsg *m = NULL;
	if (error == 0)
		error = msg_make(q, &r, fates, &m);
	if (error != 0 && error != ENOENT && error != EBADMSG)
		LOG(&q->proc.log, not_loaded, qid_span(id), F("reason", span_of(strerror(error))));
	if (error != 0)
		return error;
	*out = m;
	fates_apply_pending(q, m);
	m->in_wait = true;
	m->in_index = row != NULL;
	if (row == NULL)
		return 0;
	m->attempts = row->attempts;
	m->last_attempt_s = row->last_attempt_s;
	m->next_attempt_s = row->next_attempt_s;
	m->delayed = m->delayed || (row->flags & ROW_DELAYED) != 0;
	m->held = (row->flags & ROW_IS_HELD) != 0;
	m->forced = (row->flags & ROW_FORCED) != 0;
	struct span rest = row->rcpts, address, reason;
	uint8_t state;
	for (size_t i = 0; i < m->e.rcpts_n && take_u8(&rest, &state) && take_lspan(&rest, &address) && take_lspan(&rest, &reason); i++) {
		if (reason.n > 0)
			rcpt_set_reason(&m->rcpts[i], reason);
		if (state == RCPT_DEFERRED && m->rcpts[i].state == RCPT_DUE)
			m->rcpts[i].state = RCPT_DEFERRED;
	}
	return 0;
}

static bool any_expired(const struct qmgr *q, const struct qmsg *m)
{
	int64_t age = q_now(q) - m->e.arrived_us / 1000000;
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		struct terms t = rcpt_terms(q, m, i);
		if (m->rcpts[i].state < RCPT_OWED && age >= schedule_expiry(q_params(q), t.out, t.local))
			return true;
	}
	return false;
}

/* What is due for a message that waits: its return, its delay notice, an attempt. */
static void act_on_due(struct qmgr *q, struct qmsg *m)
{
	int64_t now = q_now(q);
	m->tasks++;
	start_adopt(q, m);
	for (struct owed *o = m->owed; o != NULL; o = o->next)
		report_ask(q, m, o);
	bool clock_is_sane = now >= q->newest_s;
	/* after a start, a message past its expiry gets one attempt first (ARCHITECTURE 6) */
	bool tried = m->last_attempt_s >= q->start_s;
	if (!m->held && clock_is_sane && tried && any_expired(q, m))
		msg_expire(q, m, EXPIRE_TIME);
	else if (!m->held && clock_is_sane && !any_expired(q, m))
		report_delay(q, m);
	m->tasks--;
	if (!m->held && (m->next_attempt_s <= now || (!tried && any_expired(q, m)))) {
		m->next_attempt_s = 0;
		msg_start(q, m);
	} else {
		msg_settle(q, m);
	}
}

/* A due message comes into memory; what is not there any more leaves the index, what cannot be read now is due later. */
static int load_row(struct qmgr *q, const struct qid *id, struct row *row, struct qmsg **m)
{
	enum { LATER_S = 60 };
	int error = *m != NULL ? 0 : wait_load(q, id, row, m);
	if (error == ENOENT || error == EBADMSG) {
		error = index_delete(&q->index, id);
		q->waiting -= error == 0;
		return error;
	}
	row->next_s = error == 0 ? ROW_ACTIVE : q_now(q) + LATER_S;
	return index_put(&q->index, id, row);
}

void wait_load_due(struct qmgr *q)
{
	struct qid ids[DUE_A_TURN];
	size_t n = 0, room = q->active < ACTIVE_LIMIT ? ACTIVE_LIMIT - q->active : 0;
	size_t most = room < DUE_A_TURN ? room : DUE_A_TURN;
	int64_t next_s;
	if (!q->started || q->stopping || room == 0)
		return;
	int error = index_due(&q->index, 1, q_now(q), ids, most, &n, &next_s);
	q->more_due = n == most;
	for (size_t i = 0; i < n && error == 0; i++) {
		struct buffer bytes;
		struct row row;
		buffer_init(&bytes, 16 * 1024 * 1024);
		error = index_get(&q->index, &ids[i], &bytes, &row);
		struct qmsg *m = error == 0 ? msg_find(q, &ids[i]) : NULL;
		if (error == 0)
			error = load_row(q, &ids[i], &row, &m);
		buffer_free(&bytes);
		q->index_dirty = true;
		if (error == 0 && m != NULL && m->tasks == 0)
			act_on_due(q, m);
	}
	if (error != 0)
		index_trouble(q, error);
	else if (q->more_due)
		q_turn_soon(q);
}

/* ---- the pass after a start: names in wait/ against the index ---- */

static void find_row(struct qmgr *q, const struct qid *id)
{
	struct buffer bytes;
	struct row row;
	buffer_init(&bytes, 16 * 1024 * 1024);
	int error = index_get(&q->index, id, &bytes, &row);
	if (error == 0 && row.next_s == ROW_ACTIVE && msg_find(q, id) == NULL) {
		row.next_s = 1; /* it was in memory when the qmgr before this one ended: due now */
		error = index_put(&q->index, id, &row);
		q->index_dirty = true;
	} else if (error == ENOENT) {
		struct qmsg *m = NULL;
		int unread = wait_load(q, id, NULL, &m);
		error = 0;
		q->pass_again = q->pass_again || (unread != 0 && unread != ENOENT && unread != EBADMSG);
		if (unread == 0) {
			/* attempts and reasons were in the row alone: the next attempt follows from arrival and schedule */
			int64_t age = q_now(q) - m->e.arrived_us / 1000000, offset;
			m->attempts = (uint32_t)schedule_next(rcpt_terms(q, m, 0).out, age < 0 ? 0 : age, &offset);
			m->next_attempt_s = msg_next_attempt(q, m, q_now(q));
			m->last_attempt_s = q->start_s - 1;
			act_on_due(q, m);
		}
	}
	buffer_free(&bytes);
	if (error != 0)
		index_trouble(q, error);
}

int wait_each_id(struct qmgr *q, int parent_fd, unsigned which, const char *tail, bool (*look)(struct qmgr *q, const struct qid *id))
{
	char name[8];
	(void)snprintf(name, sizeof name, "%02x", which);
	int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		int error = errno;
		if (fd >= 0)
			(void)close(fd);
		return error == ENOENT ? 0 : error;
	}
	bool stopped = false;
	errno = 0;
	for (const struct dirent *d; !stopped && (d = readdir(dir)) != NULL; errno = 0) {
		struct qid id;
		bool fits = strlen(d->d_name) == QID_N + strlen(tail) && strcmp(d->d_name + QID_N, tail) == 0;
		stopped = fits && qid_parse((struct span){d->d_name, QID_N}, &id) == 0 && !look(q, &id);
	}
	int error = stopped ? 0 : errno;
	(void)closedir(dir);
	return error;
}

static bool look_at_file(struct qmgr *q, const struct qid *id)
{
	uint64_t before = q->wipes;
	if (msg_find(q, id) == NULL)
		find_row(q, id);
	return q->wipes == before; /* else the index broke: from the start again, the first directory too */
}

/* What fates files said about messages that wait joins their files; reports still owed are asked for. */
static void finish_pass(struct qmgr *q)
{
	for (size_t b = 0; b < BUCKETS; b++) {
		while (q->recovered[b] != NULL) {
			struct recovered *r = q->recovered[b];
			q->recovered[b] = r->next;
			fates_fold(q, &r->id, buffer_span(&r->lines));
			buffer_free(&r->lines);
			free(r);
		}
	}
	start_forget(q, NULL);
	for (size_t i = 0; i + 1 < q->fates_n; i++)
		if (q->fates_list[i].last_segment == UINT64_MAX)
			q->fates_list[i].last_segment = q->segs_n == 0 ? 0 : q->segs[q->segs_n - 1].seq;
}

void wait_pass(struct qmgr *q)
{
	if (!q->started || q->pass_dir >= 256 || q->active >= ACTIVE_LIMIT)
		return;
	/* lines about messages of the journal are taken by its reading first */
	for (size_t i = 0; i < q->segs_n; i++)
		if (!q->segs[i].read && q->segs[i].complete)
			return;
	uint64_t before = q->wipes;
	if (wait_each_id(q, q->wait_fd, q->pass_dir, ".msg", look_at_file) != 0)
		q->pass_again = true;
	if (q->wipes == before && ++q->pass_dir == 256)
		finish_pass(q);
	q_turn_soon(q);
}

/* One that has failed for now and is still in memory, since its file is being written or a report is owed: its row comes later. */
static bool make_due_in_memory(struct qmgr *q, struct qmsg *m, bool (*wanted)(const struct row *row, struct span what), struct span what)
{
	struct buffer bytes;
	struct row row;
	if (m->tasks > 0 || m->held || m->gone || m->next_attempt_s == 0)
		return false;
	buffer_init(&bytes, 16 * 1024 * 1024);
	if (wanted != NULL)
		row_of_message(q, m, &bytes);
	bool fits = wanted == NULL || (row_parse(buffer_span(&bytes), &row) == 0 && wanted(&row, what));
	buffer_free(&bytes);
	if (fits) {
		m->next_attempt_s = q_now(q);
		m->forced = true;
	}
	return fits;
}

uint64_t wait_make_due(struct qmgr *q, bool (*wanted)(const struct row *row, struct span what), struct span what)
{
	struct qid id = {{0}};
	struct buffer bytes;
	struct row row;
	uint64_t n = 0;
	buffer_init(&bytes, 16 * 1024 * 1024);
	while (index_next(&q->index, &id, &bytes, &row) == 0) {
		if ((row.flags & ROW_IS_HELD) != 0 || row.next_s == ROW_ACTIVE || (wanted != NULL && !wanted(&row, what)))
			continue;
		row.next_s = row.next_attempt_s = q_now(q);
		row.flags |= ROW_FORCED;
		if (index_put(&q->index, &id, &row) != 0)
			break;
		n++;
	}
	buffer_free(&bytes);
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct qmsg *m = q->messages[b]; m != NULL; m = m->next_hash)
			n += make_due_in_memory(q, m, wanted, what);
	q->index_dirty = true;
	q_turn_soon(q);
	return n;
}
