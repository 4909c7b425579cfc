#include "cleanup.h"

#include <stdlib.h>
#include <string.h>

struct known_id *known_find(struct cleanup *c, const struct qid *id)
{
	struct known_id *k = c->known[qid_hash(id) % KNOWN_BUCKETS];
	while (k != NULL && !qid_same(&k->id, id))
		k = k->next;
	return k;
}

int known_add(struct cleanup *c, const struct qid *id, uint64_t seq)
{
	struct known_id *k = malloc(sizeof *k);
	struct known_id **bucket = &c->known[qid_hash(id) % KNOWN_BUCKETS];
	if (k == NULL)
		return ENOMEM;
	*k = (struct known_id){.id = *id, .seq = seq, .next = *bucket};
	*bucket = k;
	return 0;
}

void known_forget(struct cleanup *c, uint64_t before_seq)
{
	for (size_t i = 0; i < KNOWN_BUCKETS; i++) {
		for (struct known_id **p = &c->known[i]; *p != NULL;) {
			struct known_id *k = *p;
			if (k->seq >= before_seq) {
				p = &k->next;
				continue;
			}
			*p = k->next;
			free(k);
		}
	}
}

static struct parts **find_parts(struct cleanup *c, const struct channel *origin, const struct qid *id)
{
	struct parts **p = &c->parts;
	while (*p != NULL && ((*p)->origin != origin || !qid_same(&(*p)->id, id)))
		p = &(*p)->next;
	return p;
}

static void free_parts(struct parts **p)
{
	struct parts *gone = *p;
	*p = gone->next;
	buffer_free(&gone->content);
	free(gone);
}

int submit_on_part(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, submit_part, part);
	struct cleanup *c = ch->program;
	struct qid id;
	if (qid_parse(part.id, &id) != 0)
		return EBADMSG;
	struct parts **p = find_parts(c, ch, &id);
	if (*p == NULL) {
		struct parts *fresh = calloc(1, sizeof *fresh);
		if (fresh == NULL)
			return ENOMEM;
		*fresh = (struct parts){.origin = ch, .id = id};
		buffer_init(&fresh->content, PARTS_LIMIT);
		*p = fresh;
	}
	buffer_put_span(&(*p)->content, part.content);
	return buffer_ok(&(*p)->content) ? 0 : EBADMSG;
}

void submit_origin_gone(struct cleanup *c, const struct channel *origin)
{
	for (struct parts **p = &c->parts; *p != NULL;) {
		if ((*p)->origin == origin)
			free_parts(p);
		else
			p = &(*p)->next;
	}
	for (size_t i = 0; i < c->waiters_n; i++)
		if (c->waiters[i].origin == origin)
			c->waiters[i].origin = NULL;
}

static bool states_plain(const struct envelope *e)
{
	for (size_t i = 0; i < e->rcpts_n; i++)
		if ((e->rcpts[i].notify & RCPT_PLAIN) != 0)
			return true;
	return false;
}

/* What each role may state (ARCHITECTURE 2): only smtpd a peer or login, only bounce "closes" and what aliases led to;
 * a worker's ids are its own. */
static bool may_state(const struct cleanup *c, const struct channel *ch, const struct qid *id, const struct envelope *e)
{
	bool from_peer = e->client.n > 0 || e->login.n > 0 || e->helo.n > 0;
	bool report = e->closes.text[0] != '\0' || (e->flags & ENV_REPORT) != 0;
	if (states_plain(e) && (ch->peer != R_BOUNCE || e->closes_kind != REPORT_EXPANSION))
		return false;
	switch (ch->peer) {
	case R_SMTPD: {
		char own[QID_SUFFIX_N + 1];
		qid_suffix(0, 0, ch->instance, own);
		return !report && (e->flags & ENV_LOCAL) == 0 && e->client.n > 0 &&
			memcmp(id->text + QID_TIME_N, c->proc.suffix, 4) == 0 && memcmp(id->text + QID_TIME_N + 4, own + 4, 2) == 0;
	}
	case R_PICKUP:
		return !report && !from_peer && (e->flags & ENV_LOCAL) != 0;
	case R_BOUNCE:
		return report && !from_peer && (e->sender.n == 0 || e->closes_kind == REPORT_EXPANSION);
	case R_MASTER: case R_FRONT: case R_CLEANUP: case R_QMGR: case R_MOVER: case R_SMTP: case R_DROP:
	case R_CONTROL: case R_CONFIG: case R_LOGD: case R_RESOLVER: case R_LOCAL: case R_DELIVER: case R_MAPS: case R_AUTHD: case R_KEYD: case R_PAMD: case R_STS: case R_GSSD: case R_GSSC: case R_LEASE: case R_ANY:
		break;
	}
	return false;
}

static int add_waiter(struct cleanup *c, struct channel *ch, const struct qid *id, bool has_body)
{
	if (c->waiters_n == c->waiters_size) {
		size_t n = c->waiters_size == 0 ? 64 : c->waiters_size * 2;
		struct waiter *more = realloc(c->waiters, n * sizeof *more);
		if (more == NULL)
			return ENOMEM;
		c->waiters = more;
		c->waiters_size = n;
	}
	c->waiters[c->waiters_n++] = (struct waiter){.origin = ch, .id = *id, .has_body = has_body};
	return 0;
}

static bool is_in_batch(const struct cleanup *c, const struct qid *id)
{
	for (size_t i = 0; i < c->waiters_n; i++)
		if (qid_same(&c->waiters[i].id, id))
			return true;
	return false;
}

static void answer(struct channel *ch, struct span id, int status)
{
	send_submitted(ch, (struct msg_submitted){.id = id, .status = (uint32_t)status}, -1);
}

static void append(struct cleanup *c, struct channel *ch, const struct qid *id, const struct msg_submit *s, struct span first, bool has_body)
{
	const struct span pieces[] = {first, s->content};
	size_t before = c->batch.bytes.n;
	bool again = ch->peer != R_SMTPD && is_in_batch(c, id);
	if (add_waiter(c, ch, id, has_body) != 0) {
		answer(ch, s->id, ENOMEM);
		return;
	}
	if (again)
		return;
	(void)batch_add(&c->batch, &c->writer, id, s->envelope, pieces, COUNT_OF(pieces));
	if (!buffer_ok(&c->batch.bytes)) {
		c->batch.bytes.n = before;
		c->batch.bytes.failed = false;
		c->batch.records--;
		c->waiters_n--;
		answer(ch, s->id, ENOMEM);
		return;
	}
	if (batch_bytes(&c->batch) >= BATCH_BYTES) {
		journal_commit(c);
	} else if (!c->commit_due) {
		c->commit_due = true;
		event_active(c->commit, 0, 0);
	}
}

int submit_on_submit(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, submit, s);
	struct cleanup *c = ch->program;
	struct qid id;
	struct envelope e;
	if (qid_parse(s.id, &id) != 0)
		return EBADMSG;
	int error = envelope_parse(s.envelope, &c->arena, &e);
	if (error == 0 && (!may_state(c, ch, &id, &e) || (e.login.n > 0 && !login_is_proved(c->auth_key, ch->instance, c->proc.server, e.login, s.proof)))) {
		LOG(&c->proc.log, bad_submission, qid_span(&id), F("role", span_of(role_name(ch->peer))));
		error = EPERM;
	}
	bool has_body = error == 0 && (e.flags & ENV_BODY_FILE) != 0;
	arena_free(&c->arena);
	if (error != 0)
		return error;
	struct parts **p = find_parts(c, ch, &id);
	if (known_find(c, &id) != NULL)
		answer(ch, s.id, 0); /* recorded before this process's time, or said twice */
	else
		append(c, ch, &id, &s, *p == NULL ? (struct span){"", 0} : buffer_span(&(*p)->content), has_body);
	if (*p != NULL)
		free_parts(p);
	return 0;
}
