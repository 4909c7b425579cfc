/* What a peer can't take as it is: converted where the standards allow it, else the reason is final. */
#include "smtp_agent.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONVERT_MOST = 32 * 1024 * 1024, HEADER_LOOK = 256 * 1024 };

static int read_body(const struct job *j, size_t most, struct buffer *out)
{
	size_t size = j->size < most ? (size_t)j->size : most;
	buffer_init(out, most + 1);
	int error = buffer_reserve(out, size + 1);
	if (error == 0)
		error = pread_all(j->body_fd, out->at, size, 0);
	if (error == 0)
		out->n = size;
	return error;
}

/* The message in seven bits, in memory from now on.  0; EBADMSG, EFBIG: it can't be; else it could not be done now. */
static int convert(struct job *j)
{
	struct buffer body, out;
	int error = 0;
	buffer_init(&body, 1);
	if (j->size > CONVERT_MOST)
		return EFBIG;
	if (j->body_fd >= 0)
		error = read_body(j, CONVERT_MOST, &body);
	buffer_init(&out, 4 * (size_t)CONVERT_MOST);
	if (error == 0)
		error = convert_to_seven_bits(&out, j->body_fd >= 0 ? buffer_span(&body) : buffer_span(&j->content));
	buffer_free(&body);
	if (error != 0) {
		buffer_free(&out);
		return error;
	}
	buffer_free(&j->content);
	j->content = out;
	j->size = out.n;
	if (j->body_fd >= 0)
		(void)close(j->body_fd);
	j->body_fd = -1;
	j->e.flags &= ~(uint32_t)(ENV_8BIT | ENV_BINARY);
	return 0;
}

/* Bytes beyond ASCII in the header: only SMTPUTF8 carries them (RFC 6532). */
static bool header_is_wide(const struct job *j)
{
	struct buffer head;
	struct header_field f;
	bool wide = false;
	buffer_init(&head, 1);
	if (j->body_fd >= 0 && read_body(j, HEADER_LOOK, &head) != 0)
		wide = true;
	struct span rest = j->body_fd >= 0 ? buffer_span(&head) : buffer_span(&j->content);
	while (!wide && header_next(&rest, &f))
		wide = !text_is_ascii(f.whole);
	buffer_free(&head);
	return wide;
}

/* user@bücher.example has an ASCII form, bücher@example has none.  False: none. */
static bool to_ascii(struct job *j, struct span *address)
{
	char domain[256];
	size_t at = address->n;
	while (at > 0 && address->at[at - 1] != '@')
		at--;
	if (text_is_ascii(*address))
		return true;
	struct span local = {address->at, at};
	if (!text_is_ascii(local) || domain_to_ascii((struct span){address->at + at, address->n - at}, domain) != 0)
		return false;
	*address = span_of(arena_printf(&j->arena, "%.*s%s", SPAN_ARG(local), domain));
	return !j->arena.failed;
}

static const struct span no_utf8 = SPAN_LIT("the message needs SMTPUTF8, which the peer does not offer");

/* A message that was sent with SMTPUTF8 and does not need it goes without; recipients that need it are returned. */
static bool fits_ascii(struct job *j)
{
	bool any = false;
	if (header_is_wide(j) || !to_ascii(j, &j->e.sender)) {
		job_set_all(j, OUTCOME_FAILED, 553, SPAN_LIT("5.6.7"), no_utf8);
		return false;
	}
	for (uint32_t i = 0; i < j->e.rcpts_n; i++) {
		if (!to_ascii(j, &j->e.rcpts[i].address))
			job_set_rcpt(j, i, OUTCOME_FAILED, 553, SPAN_LIT("5.6.7"), no_utf8);
		any = any || !j->rcpts[i].decided;
	}
	j->e.flags &= ~(uint32_t)ENV_UTF8;
	return any;
}

static bool refuse_conversion(struct job *j, int error)
{
	bool binary = (j->e.flags & ENV_BINARY) != 0;
	if (error != EBADMSG && error != EFBIG)
		job_set_all(j, OUTCOME_DEFERRED, 0, SPAN_LIT("4.3.0"), SPAN_LIT("the message could not be converted for now"));
	else if (binary)
		job_set_all(j, OUTCOME_FAILED, 554, SPAN_LIT("5.6.1"), SPAN_LIT("the message is BINARYMIME, which the peer does not take, and can not be converted"));
	else
		job_set_all(j, OUTCOME_FAILED, 554, SPAN_LIT("5.6.3"), SPAN_LIT("the message holds 8-bit text, which the peer does not take, and can not be converted"));
	return false;
}

static bool takes_body(const struct conn *c)
{
	uint32_t flags = c->job->e.flags;
	if ((flags & ENV_BINARY) != 0)
		return (c->offers & (PEER_CHUNKING | PEER_BINARYMIME)) == (PEER_CHUNKING | PEER_BINARYMIME);
	return (flags & ENV_8BIT) == 0 || (c->offers & PEER_8BITMIME) != 0;
}

bool envelope_fits(struct conn *c)
{
	struct job *j = c->job;
	if ((j->e.flags & ENV_UTF8) != 0 && (c->offers & PEER_SMTPUTF8) == 0 && !fits_ascii(j))
		return false;
	int error = takes_body(c) ? 0 : convert(j);
	if (error != 0)
		return refuse_conversion(j, error);
	if ((c->offers & PEER_SIZE) != 0 && c->peer_size > 0 && j->size > c->peer_size) {
		job_set_all(j, OUTCOME_FAILED, 552, SPAN_LIT("5.3.4"), SPAN_LIT("the message is larger than the peer takes"));
		return false;
	}
	return true;
}

/* ---- peers that break on what they offer are spared it for an hour ---- */

void adapt_offers(struct conn *c)
{
	int64_t now = clock_mono_ms();
	if (c->hop->lmtp || now < c->hop->no_chunking_until_ms) /* LMTP: each recipient has its reply, kept simple */
		c->offers &= ~(unsigned)(PEER_CHUNKING | PEER_BINARYMIME);
	if (now < c->hop->no_pipelining_until_ms)
		c->offers &= ~(unsigned)PEER_PIPELINING;
}

bool adapt_after_break(struct conn *c)
{
	struct job *j = c->job;
	if (c->state != CONN_ENVELOPE || (c->offers & PEER_PIPELINING) == 0 || c->messages > 0 || c->expect_n < 2 || j->reused || j->plain)
		return false;
	j->plain = true; /* once: the same address, a command at a time */
	j->target_at = c->target_index;
	c->hop->no_pipelining_until_ms = clock_mono_ms() + BROKEN_MS;
	LOG(&c->agent->proc.log, peer_spared, qid_span(&j->id), F("peer", span_of(j->peer)), F("what", SPAN_LIT("PIPELINING")));
	return true;
}

/* A peer that offers CHUNKING and knows no BDAT, or does it wrong. */
bool adapt_to_refused_chunk(struct conn *c)
{
	static const int codes[] = {500, 501, 502, 503, 504, 555};
	bool syntax = false;
	for (size_t i = 0; i < COUNT_OF(codes); i++)
		syntax = syntax || c->reply.code == codes[i];
	if (!syntax || !c->chunked || c->accepted == 0 || (c->job->e.flags & ENV_BINARY) != 0)
		return false;
	c->hop->no_chunking_until_ms = clock_mono_ms() + BROKEN_MS;
	c->offers &= ~(unsigned)(PEER_CHUNKING | PEER_BINARYMIME);
	LOG(&c->agent->proc.log, peer_spared, qid_span(&c->job->id), F("peer", span_of(c->job->peer)), F("what", SPAN_LIT("CHUNKING")));
	return true;
}
