#include "bounce.h"

#include <stdlib.h>

/* ---- contents that come in parts ---- */

struct gathering *submit_gathered(struct bounce *b, uint32_t server, uint64_t delivery)
{
	for (struct gathering **p = &b->gathering; *p != NULL; p = &(*p)->next) {
		struct gathering *g = *p;
		if (g->delivery == delivery && g->server == server) {
			*p = g->next;
			return g;
		}
	}
	return NULL;
}

void submit_free_gathering(struct gathering *g)
{
	if (g != NULL)
		buffer_free(&g->content);
	free(g);
}

int submit_on_part(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, content_part, part);
	struct bounce *b = ch->program;
	struct gathering *g = submit_gathered(b, ch->server, part.delivery);
	if (g == NULL) {
		g = calloc(1, sizeof *g);
		if (g == NULL)
			return ENOMEM;
		*g = (struct gathering){.delivery = part.delivery, .server = ch->server};
		buffer_init(&g->content, 4 * 1024 * 1024);
	}
	buffer_put_span(&g->content, part.content);
	g->next = b->gathering;
	b->gathering = g;
	return 0;
}

void submit_qmgr_gone(struct bounce *b, uint32_t server)
{
	for (struct gathering **p = &b->gathering; *p != NULL;) {
		struct gathering *g = *p;
		if (g->server != server) {
			p = &g->next;
			continue;
		}
		*p = g->next;
		submit_free_gathering(g);
	}
}

/* ---- reports ---- */

/* RFC 3461 5.2.7: one address is as a relay; several do not report success again; a list's owner hears of failures only. */
static unsigned passed_on(unsigned notify, const struct result *x)
{
	if (x->peer.n > 0)
		return 0;
	if (x->code == 1 || (notify & NOTIFY_SUCCESS) == 0)
		return notify;
	return notify == NOTIFY_SUCCESS ? NOTIFY_NEVER : notify & ~(unsigned)NOTIFY_SUCCESS;
}

/* The parent's envelope with the addresses that its recipient leads to. */
static void put_expansion(struct buffer *out, const struct report *r, uint64_t size, bool in_file)
{
	struct span rest = r->results, lines;
	struct result x;
	struct buffer index;
	if (!result_take(&rest, &x) || x.index >= r->e->rcpts_n) {
		out->failed = true;
		return;
	}
	lines = x.text;
	size_t n = 1;
	for (size_t i = 0; i < lines.n; i++)
		n += lines.at[i] == '\n';
	const struct envelope_rcpt *from = &r->e->rcpts[x.index];
	struct envelope e = {.sender = x.peer.n > 0 ? x.peer : r->e->sender, .arrived_us = r->wall_s * 1000000, .size = size, .hops = r->e->hops + 1,
		.origin = SPAN_LIT("alias"), .ret = x.peer.n > 0 ? 0 : r->e->ret, .envid = x.peer.n > 0 ? (struct span){"", 0} : r->e->envid,
		.flags = ENV_REPORT | (r->e->flags & (ENV_8BIT | ENV_UTF8 | ENV_BINARY | ENV_REQUIRETLS | ENV_TLS_OPTIONAL)) | (in_file ? ENV_BODY_FILE : 0u),
		.closes = r->parent, .closes_kind = r->kind, .rcpts = calloc(n, sizeof *e.rcpts)};
	while (e.rcpts != NULL && lines.n > 0) {
		struct span one = span_until(&lines, '\n');
		bool plain = one.n > 0 && one.at[0] == '\\';
		if (one.n > 0)
			e.rcpts[e.rcpts_n++] = (struct envelope_rcpt){.address = plain ? (struct span){one.at + 1, one.n - 1} : one,
				.notify = passed_on(from->notify, &x) | (plain ? RCPT_PLAIN : 0u), .orcpt = x.peer.n > 0 ? (struct span){"", 0} : from->orcpt};
	}
	buffer_init(&index, 16);
	buffer_put_u32(&index, x.index);
	e.closes_rcpts = buffer_span(&index);
	if (e.rcpts_n == 0)
		out->failed = true;
	else
		envelope_put(out, &e);
	buffer_free(&index);
	free(e.rcpts);
}

static void put_envelope(struct buffer *out, const struct report *r, uint64_t size, bool in_file)
{
	struct buffer indexes;
	struct result x;
	struct span rest = r->results;
	struct envelope_rcpt to = {.address = r->to, .notify = NOTIFY_NEVER};
	buffer_init(&indexes, 4 * 1024 * 1024);
	while (result_take(&rest, &x))
		buffer_put_u32(&indexes, x.index);
	struct envelope e = {.sender = {"", 0}, .arrived_us = r->wall_s * 1000000, .size = size, .origin = SPAN_LIT("report"),
		.flags = ENV_REPORT | (r->e->flags & (ENV_8BIT | ENV_UTF8 | ENV_REQUIRETLS)) | (in_file ? ENV_BODY_FILE : 0u),
		.closes = r->parent, .closes_kind = r->kind, .closes_rcpts = buffer_span(&indexes), .rcpts = &to, .rcpts_n = 1};
	envelope_put(out, &e);
	buffer_free(&indexes);
}

static void send_in_memory(struct channel *cleanup, const struct report *r, struct span envelope, struct span content)
{
	while (content.n > IPC_INLINE) {
		send_submit_part(cleanup, (struct msg_submit_part){.id = qid_span(&r->id), .content = {content.at, IPC_INLINE}}, -1);
		content.at += IPC_INLINE;
		content.n -= IPC_INLINE;
	}
	send_submit(cleanup, (struct msg_submit){.id = qid_span(&r->id), .envelope = envelope, .content = content}, -1);
}

static void send_body(struct channel *mover, const struct qid *id, struct span bytes)
{
	while (bytes.n > 0) {
		size_t n = bytes.n < IPC_INLINE ? bytes.n : IPC_INLINE;
		send_body_data(mover, (struct msg_body_data){.id = qid_span(id), .content = {bytes.at, n}}, -1);
		bytes.at += n;
		bytes.n -= n;
	}
}

static void fail(struct bounce *b, uint32_t server, const struct qid *id, int error)
{
	struct channel *qmgr = b->servers[server].qmgr;
	if (qmgr != NULL)
		send_report_failed(qmgr, (struct msg_report_failed){.id = qid_span(id), .status = (uint32_t)error}, -1);
}

/* Head, the original's own file, tail become one file; its record follows when that is on disk. */
static void send_by_file(struct bounce *b, uint32_t server, const struct report *r, struct buffer *envelope, struct span head, struct span tail)
{
	struct channel *mover = b->servers[server].mover;
	struct pending *p = mover == NULL ? NULL : calloc(1, sizeof *p);
	if (p == NULL) {
		fail(b, server, &r->id, mover == NULL ? EAGAIN : ENOMEM);
		return;
	}
	*p = (struct pending){.id = r->id, .server = server, .envelope = *envelope, .next = b->pending};
	b->pending = p;
	buffer_init(envelope, envelope->limit);
	send_body_begin(mover, (struct msg_body_begin){.id = qid_span(&p->id)}, -1);
	send_body(mover, &p->id, head);
	if (r->original == ORIGINAL_FILE)
		send_body_copy(mover, (struct msg_body_copy){.id = qid_span(&p->id), .from = qid_span(&r->parent)}, -1);
	send_body(mover, &p->id, tail);
	send_body_end(mover, (struct msg_body_end){.id = qid_span(&p->id)}, -1);
}

static bool is_pending(const struct bounce *b, const struct qid *id)
{
	for (const struct pending *p = b->pending; p != NULL; p = p->next)
		if (qid_same(&p->id, id))
			return true;
	return false;
}

void submit_report(struct bounce *b, uint32_t server, const struct report *r, uint64_t original_bytes)
{
	struct buffer head, tail, envelope;
	struct channel *cleanup = b->servers[server].cleanup;
	if (is_pending(b, &r->id))
		return; /* asked for again while its file is being written */
	buffer_init(&head, 4 * 1024 * 1024);
	buffer_init(&tail, 1024);
	buffer_init(&envelope, 1024 * 1024);
	bool expansion = r->kind == REPORT_EXPANSION;
	if (expansion)
		expansion_compose(&head, r);
	else
		report_compose(&head, &tail, r);
	if (expansion && r->original != ORIGINAL_FILE)
		buffer_put_span(&head, r->content);
	uint64_t size = head.n + tail.n + (r->original == ORIGINAL_FILE ? original_bytes : 0);
	bool in_file = size > IN_MEMORY;
	if (expansion)
		put_expansion(&envelope, r, size, in_file);
	else
		put_envelope(&envelope, r, size, in_file);
	if (!buffer_ok(&head) || !buffer_ok(&envelope) || cleanup == NULL) {
		fail(b, server, &r->id, cleanup == NULL ? EAGAIN : ENOMEM);
	} else if (in_file) {
		send_by_file(b, server, r, &envelope, buffer_span(&head), buffer_span(&tail));
	} else {
		buffer_put_span(&head, buffer_span(&tail));
		send_in_memory(cleanup, r, buffer_span(&envelope), buffer_span(&head));
	}
	buffer_free(&head);
	buffer_free(&tail);
	buffer_free(&envelope);
}

static void free_pending(struct pending **p)
{
	struct pending *gone = *p;
	*p = gone->next;
	buffer_free(&gone->envelope);
	free(gone);
}

int submit_on_body_done(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, body_done, done);
	struct bounce *b = ch->program;
	for (struct pending **p = &b->pending; *p != NULL; p = &(*p)->next) {
		if (!span_is(done.id, (*p)->id.text) || (*p)->server != ch->server)
			continue;
		struct channel *cleanup = b->servers[ch->server].cleanup;
		if (done.status == 0 && cleanup != NULL)
			send_submit(cleanup, (struct msg_submit){.id = done.id, .envelope = buffer_span(&(*p)->envelope), .content = {"", 0}}, -1);
		else
			fail(b, ch->server, &(*p)->id, done.status == 0 ? EAGAIN : (int)done.status);
		free_pending(p);
		return 0;
	}
	return 0;
}

void submit_mover_gone(struct bounce *b, uint32_t server)
{
	for (struct pending **p = &b->pending; *p != NULL;) {
		if ((*p)->server != server) {
			p = &(*p)->next;
			continue;
		}
		fail(b, server, &(*p)->id, EAGAIN);
		free_pending(p);
	}
}
