#include "worker.h"

#include <string.h>

/* After this many bytes of a body the time limit starts anew (MISSION B2). */
enum { PROGRESS_BYTES = 4096 };

static const char *protocol_of(const struct session *s)
{
	/* RFC 3848, RFC 6531 4.3: by TLS, then by a login */
	static const char *const ascii[] = {"ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA"}, *const utf8[] = {"UTF8SMTP", "UTF8SMTPS", "UTF8SMTPA", "UTF8SMTPSA"};
	size_t i = (s->ssl != NULL ? 1u : 0u) + (session_has_login(s) ? 2u : 0u);
	return !s->esmtp ? "SMTP" : s->t->mail.smtputf8 ? utf8[i] : ascii[i];
}

/* The id and the trace field are made when the content begins: a large one leaves for its file at once. */
static void begin_content(struct session *s)
{
	struct transaction *t = s->t;
	struct buffer tls;
	t->arrived_us = clock_wall_us();
	t->id = qid_make(&s->worker->ids, t->arrived_us);
	buffer_init(&tls, 200);
	if (s->ssl != NULL)
		tls_describe(&tls, s->ssl);
	struct received r = {.helo = span_of(s->helo), .client_address = span_of(s->address), .client_remark = span_of(client_remark(s)), .by = span_of(session_params(s)->fqdn),
		.protocol = span_of(protocol_of(s)), .tls = buffer_span(&tls), .id = qid_span(&t->id),
		.recipient = t->rcpts_n == 1 ? t->rcpts[0].address : (struct span){"", 0}, .wall_s = t->arrived_us / 1000000};
	received_put(&t->received, &r);
	buffer_free(&tls);
}

static bool waits_for_names(struct session *s, enum names_for why)
{
	return session_params(s)->reverse_dns_lookup == 1 && client_names_wait(s, why);
}

void data_begin(struct session *s)
{
	if (waits_for_names(s, NAMES_FOR_DATA))
		return;
	data_decoder_init(&s->t->decoder, session_params(s)->bare_newline == 1);
	begin_content(s);
	session_reply(s, REPLY_DATA_GO, (struct span){"", 0});
	s->state = ST_BODY;
}

static void end_of_content(struct session *s);

/* Bytes that were just appended to the content, or thrown away when it is lost already. */
static void account(struct session *s, size_t before)
{
	struct transaction *t = s->t;
	const struct server_params *p = session_params(s);
	size_t n = t->content.n - before;
	struct span fresh = {t->content.at + before, n};
	t->size += n;
	s->worker->content_bytes += n;
	if (!buffer_ok(&t->content))
		t->no_memory = true;
	if (p->message_size_limit != PARAM_UNLIMITED && t->size > (uint64_t)p->message_size_limit)
		t->too_big = true;
	if (s->worker->content_bytes > (uint64_t)p->session_memory)
		t->no_memory = true;
	if (n > 0)
		header_walk(&t->walk, fresh);
	bool screened = !t->header_known && screen_is_needed(s, ASK_HEADER);
	if (t->walk.done && !t->too_big && !t->no_memory && !screened)
		hop_rewrite(s);
	if (t->too_big || t->no_memory) {
		s->worker->content_bytes -= t->content.n;
		buffer_free(&t->content);
		return;
	}
	bool large = t->in_file || t->content.n > MEMORY_CONTENT;
	if (large && screened) /* nothing of it leaves before the header is as it shall be */
		screen_header(s, false);
	else if (large && !submit_spill(s))
		t->body_failed = true;
}

void body_go_on(struct session *s)
{
	struct transaction *t = s->t;
	bool waited = s->state == ST_ASKING;
	t->header_known = true;
	if (waited) {
		s->state = ST_BODY;
		end_of_content(s);
	} else if (!t->too_big && !t->no_memory) {
		hop_rewrite(s);
		if (t->content.n > MEMORY_CONTENT && !submit_spill(s))
			t->body_failed = true;
	}
}

static void note_progress(struct session *s, size_t n)
{
	s->progress += n;
	if (s->progress >= PROGRESS_BYTES)
		session_arm(s);
}

/* MISSION D10: what would take the session over its limit ends it. */
static bool over_session_limit(struct session *s)
{
	const struct server_params *p = session_params(s);
	if (p->session_size_limit == PARAM_UNLIMITED || s->session_bytes + s->t->size <= (uint64_t)p->session_size_limit)
		return false;
	session_reset(s);
	s->state = ST_CLOSING;
	session_end(s, REPLY_SESSION_SIZE);
	return true;
}

static enum reply verdict(const struct transaction *t)
{
	if (t->too_big)
		return REPLY_TOO_BIG;
	if (t->bare)
		return REPLY_BARE_NEWLINE;
	if (t->no_memory)
		return REPLY_NO_STORAGE;
	if (t->body_failed)
		return REPLY_LOCAL_ERROR;
	if (t->header_long)
		return REPLY_HEADER_TOO_BIG;
	if (t->screened != REPLY_COUNT)
		return t->screened;
	return REPLY_QUEUED;
}

static void end_of_content(struct session *s)
{
	struct transaction *t = s->t;
	if (verdict(t) == REPLY_QUEUED && !t->header_known && screen_is_needed(s, ASK_HEADER)) {
		screen_header(s, true);
		if (!t->header_known)
			return;
	}
	if (verdict(t) == REPLY_QUEUED)
		hop_rewrite(s); /* a header alone, or one too long to be held */
	enum reply r = verdict(t);
	s->session_bytes += t->size;
	if (r == REPLY_QUEUED && t->discard) {
		submit_discard(s);
		return;
	}
	if (r == REPLY_QUEUED) {
		s->state = ST_COMMITTING;
		submit_begin(s);
		return;
	}
	LOG(&s->worker->proc.log, refused_message, qid_span(&t->id), F("client", span_of(s->address)), F("from", t->sender),
		F("reply", span_of(reply_row(r)->text)));
	session_reply(s, r, t->screened_why);
	session_reset(s);
	s->state = ST_COMMAND;
	session_arm(s);
}

size_t body_take(struct session *s, struct span in)
{
	struct transaction *t = s->t;
	bool lost = t->too_big || t->no_memory || t->body_failed;
	size_t before = t->content.n;
	if (in.n > IPC_INLINE) /* a piece at a time: what is lost is noticed early */
		in.n = IPC_INLINE;
	size_t used = data_decode(&t->decoder, in, lost ? NULL : &t->content);
	note_progress(s, used);
	if (lost)
		t->size += used;
	else
		account(s, before);
	if (over_session_limit(s))
		return used;
	if (s->stopping && t->decoder.state != DATA_END) {
		session_reset(s);
		session_end(s, REPLY_SHUTDOWN);
		return used;
	}
	if (t->decoder.state == DATA_END) {
		t->bare = t->decoder.bare && !t->decoder.normalize;
		end_of_content(s);
	}
	return used;
}

/* ---- BDAT ---- */

static int parse_chunk_args(struct span args, uint64_t *n, bool *last)
{
	struct span size = span_word(&args, " "), word = span_word(&args, " "), more = span_word(&args, " ");
	*last = span_case_is(word, "LAST");
	return parse_u64(size, INT64_MAX, n) == 0 && (word.n == 0 || *last) && more.n == 0 ? 0 : EINVAL;
}

void chunk_begin(struct session *s, struct span args, bool in_place)
{
	uint64_t n;
	bool last;
	if (parse_chunk_args(args, &n, &last) != 0) {
		/* how many bytes follow is not known: nothing that comes can be trusted */
		session_reply(s, REPLY_SYNTAX, (struct span){"", 0});
		s->quit = true;
		return;
	}
	if (!in_place) { /* a transaction in which nothing is kept, to take the bytes and refuse them */
		if (s->t == NULL && mail_make_transaction(s) == NULL) {
			s->quit = true;
			return;
		}
		s->t->bad_chunk = true;
	}
	s->t->chunk_left = n;
	s->t->last_chunk = last;
	if (in_place && s->phase == PHASE_RCPT && waits_for_names(s, NAMES_FOR_CHUNK))
		return;
	chunk_go_on(s);
}

void chunk_go_on(struct session *s)
{
	if (s->phase == PHASE_RCPT && !s->t->bad_chunk) {
		begin_content(s);
		s->phase = PHASE_CHUNKS;
	}
	s->state = ST_CHUNK;
	if (s->t->chunk_left == 0)
		(void)chunk_take(s, (struct span){"", 0});
}

/* Bare CR or LF in a body that is not BINARYMIME (RFC 3030 3). */
static void look_for_bare(struct transaction *t, struct span in)
{
	for (size_t i = 0; i < in.n && !t->bare; i++) {
		if (in.at[i] == '\n' ? !t->chunk_cr : t->chunk_cr)
			t->bare = true;
		t->chunk_cr = in.at[i] == '\r';
	}
}

static void end_of_chunk(struct session *s)
{
	struct transaction *t = s->t;
	bool stray = s->phase != PHASE_CHUNKS;
	if (stray) {
		session_reset(s);
		s->state = ST_COMMAND;
		session_reply(s, REPLY_SEQUENCE, (struct span){"", 0});
		return;
	}
	if (t->last_chunk) {
		t->bare = t->bare || (t->chunk_cr && t->mail.body != BODY_BINARYMIME);
		if (t->mail.body == BODY_BINARYMIME)
			t->bare = false;
		end_of_content(s);
		return;
	}
	char detail[32];
	int n = snprintf(detail, sizeof detail, "%llu", (unsigned long long)t->size);
	enum reply r = verdict(t);
	s->state = ST_COMMAND;
	if (r == REPLY_QUEUED || r == REPLY_BARE_NEWLINE) {
		session_reply(s, REPLY_CHUNK_OK, (struct span){detail, (size_t)n});
	} else {
		/* RFC 3030 2: after a failed chunk the transaction is over; later ones are taken and refused */
		session_reply(s, r, (struct span){"", 0});
		session_reset(s);
	}
}

size_t chunk_take(struct session *s, struct span in)
{
	struct transaction *t = s->t;
	size_t n = in.n < t->chunk_left ? in.n : (size_t)t->chunk_left;
	if (n > IPC_INLINE)
		n = IPC_INLINE;
	bool lost = t->too_big || t->no_memory || t->body_failed || t->bad_chunk;
	size_t before = t->content.n;
	if (t->mail.body != BODY_BINARYMIME)
		look_for_bare(t, (struct span){in.at, n});
	if (lost) {
		t->size += n;
	} else if (n > 0) {
		buffer_put(&t->content, in.at, n);
		account(s, before);
	}
	t->chunk_left -= n;
	note_progress(s, n);
	if (over_session_limit(s))
		return n;
	if (t->chunk_left == 0) {
		end_of_chunk(s);
		session_arm(s);
	}
	return n;
}
