/* Addresses in a header: those without a domain get one, own domains are masked. */
#include "message/message_private.h"

#include <string.h>

enum { FIELD_ADDRESSES = 1, FIELD_AUTHORS = 2 }; /* AUTHORS: what masquerading changes too (MISSION D5) */
static const struct { const char *name; unsigned what; } fields[] = {
	{"From", FIELD_ADDRESSES | FIELD_AUTHORS}, {"Sender", FIELD_ADDRESSES | FIELD_AUTHORS}, {"Reply-To", FIELD_ADDRESSES | FIELD_AUTHORS},
	{"To", FIELD_ADDRESSES}, {"Cc", FIELD_ADDRESSES}, {"Bcc", FIELD_ADDRESSES},
	{"Resent-From", FIELD_ADDRESSES}, {"Resent-Sender", FIELD_ADDRESSES}, {"Resent-To", FIELD_ADDRESSES},
	{"Resent-Cc", FIELD_ADDRESSES}, {"Resent-Bcc", FIELD_ADDRESSES}, {"Resent-Reply-To", FIELD_ADDRESSES},
};

static unsigned kind_of(struct span name)
{
	for (size_t i = 0; i < COUNT_OF(fields); i++)
		if (span_case_is(name, fields[i].name))
			return fields[i].what;
	return 0;
}

/* The list item that is being walked over: where its address lies in the field's bytes. */
struct place {
	size_t plain_at, plain_end, angle_at, angle_end;
	bool plain, angle;
};

static struct span from(struct span s, size_t i)
{
	return (struct span){s.at + i, s.n - i};
}

static size_t take_angle(struct span s, size_t i, struct place *p)
{
	p->angle = true;
	p->angle_at = ++i;
	while (i < s.n && s.at[i] != '>')
		i += s.at[i] == '"' ? quoted_length(from(s, i)) : 1;
	p->angle_end = i < s.n ? i : s.n;
	return i < s.n ? i + 1 : s.n;
}

static size_t take_plain(struct span s, size_t i, struct place *p)
{
	size_t end = i + (s.at[i] == '"' ? quoted_length(from(s, i)) : 1);
	if (s.at[i] != ' ' && s.at[i] != '\t' && s.at[i] != '\r' && s.at[i] != '\n') {
		if (!p->plain)
			p->plain_at = i;
		p->plain = true;
		p->plain_end = end < s.n ? end : s.n;
	}
	return end;
}

static struct span address_at(struct span s, const struct place *p)
{
	if (p->angle)
		return span_trim((struct span){s.at + p->angle_at, p->angle_end - p->angle_at});
	return p->plain ? (struct span){s.at + p->plain_at, p->plain_end - p->plain_at} : (struct span){s.at, 0};
}

/* Copies up to the end of an address, as it shall be; what is no plain address stays as it is. */
static void put_address(struct buffer *out, struct span s, size_t *copied, const struct place *p, const struct rewrite *r, unsigned kind)
{
	struct span text = address_at(s, p);
	struct address a;
	if (r->replace != NULL) {
		struct span fresh = text.n == 0 ? text : r->replace(r->replace_context, text);
		if (fresh.n == 0)
			return;
		buffer_put(out, s.at + *copied, (size_t)(text.at - s.at) - *copied);
		buffer_put_span(out, fresh);
		*copied = (size_t)(text.at - s.at) + text.n;
		return;
	}
	if (text.n == 0 || address_parse(text, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0)
		return;
	bool masked = (kind & FIELD_AUTHORS) != 0 && r->masquerade[0] != '\0' && (a.domain.n == 0 || r->is_own(r->context, a.domain));
	if (!masked && a.domain.n > 0)
		return;
	size_t local_end = (size_t)(text.at - s.at) + (a.domain.n == 0 ? text.n : text.n - a.domain.n - 1);
	buffer_put(out, s.at + *copied, local_end - *copied);
	buffer_printf(out, "@%s", masked ? r->masquerade : r->default_domain);
	*copied = (size_t)(text.at - s.at) + text.n;
}

/* body: of the field, from behind its colon to its last line end. */
static void put_list(struct buffer *out, struct span body, const struct rewrite *r, unsigned kind)
{
	struct place p = {.plain = false};
	size_t copied = 0, i = 0;
	while (i < body.n) {
		switch (body.at[i]) {
		case '(': i += comment_length(from(body, i)); break;
		case '<': i = take_angle(body, i, &p); break;
		case ':': /* what was before is a group's name */
			p = (struct place){.plain = false};
			i++;
			break;
		case ',':
		case ';':
			put_address(out, body, &copied, &p, r, kind);
			p = (struct place){.plain = false};
			i++;
			break;
		default: i = take_plain(body, i, &p);
		}
	}
	put_address(out, body, &copied, &p, r, kind);
	buffer_put(out, body.at + copied, body.n - copied);
}

void rewrite_field(struct buffer *out, const struct header_field *f, const struct rewrite *r)
{
	unsigned kind = kind_of(f->name);
	const char *colon = memchr(f->whole.at, ':', f->whole.n);
	if (kind == 0 || colon == NULL) {
		buffer_put_span(out, f->whole);
		return;
	}
	size_t head = (size_t)(colon - f->whole.at) + 1;
	buffer_put(out, f->whole.at, head);
	put_list(out, (struct span){f->whole.at + head, f->whole.n - head}, r, kind);
}

size_t rewrite_header(struct buffer *out, struct span content, const struct rewrite *r)
{
	struct span rest = content;
	struct header_field f;
	size_t done = 0;
	while (header_next(&rest, &f)) {
		rewrite_field(out, &f, r);
		done += f.whole.n;
	}
	return done;
}
