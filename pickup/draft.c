/* From a file's text to envelope and content: pure but for the user table. */
#include "pickup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Addresses as they are found, with the default domain where there is none. */
struct found {
	const struct server *server;
	struct arena arena;
	struct span sender;
	bool has_sender;
	struct envelope_rcpt *rcpts;
	size_t n, size;
	bool utf8;
	char *reason;
};

static int refuse(struct found *f, const char *what, struct span text)
{
	(void)snprintf(f->reason, 200, "%s: <%.*s>", what, (int)(text.n > 100 ? 100 : text.n), text.at);
	return EINVAL;
}

static int complete(struct found *f, struct span text, struct span *out)
{
	struct address a;
	if (address_parse(text, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0)
		return refuse(f, "not an address", text);
	f->utf8 = f->utf8 || a.utf8;
	*out = a.domain.n == 0 ? span_of(arena_printf(&f->arena, "%.*s@%s", SPAN_ARG(a.local), f->server->p.default_domain))
		: arena_span(&f->arena, text);
	return f->arena.failed ? ENOMEM : 0;
}

static int take_recipient(void *context, struct span text)
{
	struct found *f = context;
	struct span whole;
	int error = complete(f, text, &whole);
	if (error != 0)
		return error;
	for (size_t i = 0; i < f->n; i++)
		if (span_case_eq(f->rcpts[i].address, whole))
			return 0;
	if (f->n == f->size) {
		size_t size = f->size == 0 ? 8 : f->size * 2;
		struct envelope_rcpt *more = realloc(f->rcpts, size * sizeof *more);
		if (more == NULL)
			return ENOMEM;
		f->rcpts = more;
		f->size = size;
	}
	f->rcpts[f->n++] = (struct envelope_rcpt){.address = whole};
	return 0;
}

static int take_sender(void *context, struct span text)
{
	struct found *f = context;
	if (f->has_sender)
		return 0;
	f->has_sender = true;
	return complete(f, text, &f->sender);
}

static bool is_null_path(struct span body)
{
	return span_is(span_trim(body), "<>");
}

/* "X-Sender:", "X-Receiver:" and the parameters of our own sendmail, at the very top. */
static int take_envelope_lines(struct found *f, struct span *rest)
{
	struct header_field h;
	for (;;) {
		struct span before = *rest;
		if (!header_next(rest, &h)) {
			*rest = before;
			return 0;
		}
		int error = 0;
		if (span_case_is(h.name, "X-Sender")) {
			if (is_null_path(h.body))
				f->has_sender = true;
			else
				error = header_addresses(h.body, take_sender, f);
		} else if (span_case_is(h.name, "X-Receiver")) {
			error = header_addresses(h.body, take_recipient, f);
		} else {
			*rest = before;
			return 0;
		}
		if (error != 0)
			return error;
	}
}

/* Without X- lines the header gives the envelope; Resent- fields win when there are any. */
static int take_from_header(struct found *f, struct span header, bool want_rcpts)
{
	struct header_field h;
	struct span rest = header;
	bool resent = false;
	int error = 0;
	while (header_next(&rest, &h))
		resent = resent || span_case_is(h.name, "Resent-To") || span_case_is(h.name, "Resent-Cc") || span_case_is(h.name, "Resent-Bcc");
	const char *const rcpt_names[] = {resent ? "Resent-To" : "To", resent ? "Resent-Cc" : "Cc", resent ? "Resent-Bcc" : "Bcc"};
	const char *const sender_names[] = {"Sender", "From"};
	for (size_t i = 0; !f->has_sender && i < COUNT_OF(sender_names); i++)
		for (rest = header; error == 0 && header_next(&rest, &h);)
			if (span_case_is(h.name, sender_names[i]))
				error = header_addresses(h.body, take_sender, f);
	for (rest = header; want_rcpts && error == 0 && header_next(&rest, &h);)
		for (size_t i = 0; i < COUNT_OF(rcpt_names) && error == 0; i++)
			if (span_case_is(h.name, rcpt_names[i]))
				error = header_addresses(h.body, take_recipient, f);
	return error;
}

static void put_missing(struct buffer *b, const struct found *f, const struct header_walk *w, const struct qid *id, int64_t wall_s)
{
	if ((w->seen & SEEN_FROM) == 0 && f->sender.n > 0)
		buffer_printf(b, "From: <%.*s>\r\n", SPAN_ARG(f->sender));
	if ((w->seen & SEEN_DATE) == 0) {
		buffer_puts(b, "Date: ");
		date_put(b, wall_s);
		buffer_puts(b, "\r\n");
	}
	if ((w->seen & SEEN_MESSAGE_ID) == 0)
		buffer_printf(b, "Message-ID: <%s@%s>\r\n", id->text, f->server->p.fqdn);
}

static bool is_own(const void *context, struct span domain)
{
	return route_domain_is_own(context, domain);
}

/* Pickup and sendmail are a message's first hop (MISSION D5). */
static struct span masked(struct arena *arena, const struct server *s, struct span sender)
{
	struct address a;
	if (s->p.masquerade_domain[0] == '\0' || sender.n == 0 || address_parse(sender, ADDRESS_UTF8, &a) != 0 || !route_domain_is_own(s, a.domain))
		return sender;
	return span_of(arena_printf(arena, "%.*s@%s", SPAN_ARG(a.local), s->p.masquerade_domain));
}

/* The header without Bcc and X-Sender/X-Receiver lines, with what is missing, then the body. */
static void put_content(struct draft *out, const struct found *f, struct span text, const struct qid *id, const char *user, int64_t wall_s, struct header_walk *w)
{
	struct header_field h;
	struct span rest = text;
	struct rewrite change = {.default_domain = f->server->p.default_domain, .masquerade = out->screened ? "" : f->server->p.masquerade_domain, .is_own = is_own, .context = f->server};
	struct buffer field, *b = &out->content;
	struct received r = {.by = span_of(f->server->p.fqdn), .id = qid_span(id), .local_user = span_of(user), .wall_s = wall_s};
	header_walk_init(w);
	header_walk(w, text);
	received_put(b, &r);
	out->header_at = b->n;
	put_missing(b, f, w, id, wall_s);
	buffer_init(&field, b->limit);
	while (header_next(&rest, &h)) {
		if (span_case_is(h.name, "Bcc") || span_case_is(h.name, "Resent-Bcc") || span_case_is(h.name, "X-Sender") || span_case_is(h.name, "X-Receiver"))
			continue;
		buffer_clear(&field);
		rewrite_field(&field, &h, &change);
		b->failed = b->failed || !buffer_ok(&field);
		crlf_put(b, buffer_span(&field));
	}
	buffer_free(&field);
	out->header_n = b->n - out->header_at;
	buffer_puts(b, "\r\n");
	crlf_put(b, rest);
}

static const char *owner_name(struct pickup *p, const struct place *pl, uid_t owner, char out[64])
{
	(void)p;
	(void)snprintf(out, 64, pl->maildrop ? "uid %u" : "Pickup", (unsigned)owner);
	return out;
}

int draft_make(struct pickup *p, const struct place *pl, const struct qid *id, struct span text, uid_t owner, struct draft *out)
{
	struct found f = {.server = p->server, .reason = out->reason, .sender = {"", 0}};
	struct header_walk w;
	char user[64];
	int64_t wall_s = clock_wall_us() / 1000000;
	int error = take_envelope_lines(&f, &text);
	if (error == 0)
		error = take_from_header(&f, text, f.n == 0);
	if (error == 0 && f.n == 0)
		error = refuse(&f, "no recipient", (struct span){"", 0});
	if (error == 0 && !f.has_sender)
		error = refuse(&f, "no sender: neither X-Sender nor Sender nor From", (struct span){"", 0});
	if (error == 0 && !out->screened)
		f.sender = masked(&f.arena, f.server, f.sender);
	if (error == 0 && f.arena.failed)
		error = ENOMEM;
	if (error == 0) {
		put_content(out, &f, text, id, owner_name(p, pl, owner, user), wall_s, &w);
		struct envelope e = {.sender = f.sender, .arrived_us = wall_s * 1000000, .hops = w.received, .size = out->content.n,
			.flags = ENV_LOCAL | (w.eight_bit ? ENV_8BIT : 0u) | (f.utf8 ? ENV_UTF8 : 0u) | (w.tls_optional ? ENV_TLS_OPTIONAL : 0u), .origin = span_of(user), .rcpts = f.rcpts, .rcpts_n = f.n};
		envelope_put(&out->envelope, &e);
		error = buffer_ok(&out->content) && buffer_ok(&out->envelope) ? 0 : ENOMEM;
	}
	arena_free(&f.arena);
	free(f.rcpts);
	if (error == EINVAL && out->reason[0] == '\0')
		(void)snprintf(out->reason, 200, "an address list cannot be read");
	return error;
}

int draft_screened(const struct server *s, struct arena *arena, struct envelope *e, struct span header, struct draft *d)
{
	struct rewrite change = {.default_domain = s->p.default_domain, .masquerade = s->p.masquerade_domain, .is_own = is_own, .context = s};
	struct buffer fresh;
	size_t end = d->header_at + d->header_n;
	if (header.n == 0)
		header = (struct span){d->content.at + d->header_at, d->header_n};
	buffer_init(&fresh, d->content.limit);
	buffer_put(&fresh, d->content.at, d->header_at);
	(void)rewrite_header(&fresh, header, &change);
	buffer_put(&fresh, d->content.at + end, d->content.n - end);
	buffer_free(&d->content);
	d->content = fresh;
	e->sender = masked(arena, s, e->sender);
	e->size = fresh.n;
	buffer_clear(&d->envelope);
	envelope_put(&d->envelope, e);
	return buffer_ok(&d->content) && buffer_ok(&d->envelope) && !arena->failed ? 0 : ENOMEM;
}
