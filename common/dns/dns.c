#include "dns/dns.h"

#include <string.h>

enum { HEADER = 12, NAME_MAX_TEXT = 255, JUMPS = 64, TXT_MOST = 2048 };

void dns_put_mx(struct buffer *b, const struct dns_mx *mx)
{
	buffer_put_u32(b, mx->preference);
	buffer_put_lspan(b, mx->host);
}

bool dns_take_mx(struct span *rest, struct dns_mx *out)
{
	return take_u32(rest, &out->preference) && take_lspan(rest, &out->host);
}

bool dns_take_srv(struct span *rest, struct dns_srv *out)
{
	return take_u32(rest, &out->priority) && take_u32(rest, &out->weight) && take_u32(rest, &out->port) && take_lspan(rest, &out->host);
}

bool dns_take_tlsa(struct span *rest, struct dns_tlsa *out)
{
	struct span raw;
	if (!take_lspan(rest, &raw) || raw.n < 4)
		return false;
	*out = (struct dns_tlsa){(unsigned char)raw.at[0], (unsigned char)raw.at[1], (unsigned char)raw.at[2], span_from(raw, 3)};
	return true;
}

static unsigned u16_at(struct span p, size_t at)
{
	return (unsigned)(unsigned char)p.at[at] << 8 | (unsigned char)p.at[at + 1];
}

/* Steps over a name; 0: malformed. */
static size_t skip_name(struct span p, size_t at)
{
	while (at < p.n) {
		unsigned n = (unsigned char)p.at[at];
		if ((n & 0xc0) == 0xc0)
			return at + 2 <= p.n ? at + 2 : 0;
		if ((n & 0xc0) != 0)
			return 0;
		at += n + 1;
		if (n == 0)
			return at <= p.n ? at : 0;
	}
	return 0;
}

/* A name with its pointers followed (RFC 1035 4.1.4); labels with odd bytes make it useless. */
static int read_name(struct span p, size_t at, char out[NAME_MAX_TEXT + 1], size_t *n)
{
	size_t used = 0;
	for (unsigned jumps = 0; jumps < JUMPS;) {
		if (at >= p.n)
			return EBADMSG;
		unsigned length = (unsigned char)p.at[at];
		if ((length & 0xc0) == 0xc0) {
			if (at + 1 >= p.n)
				return EBADMSG;
			at = u16_at(p, at) & 0x3fff;
			jumps++;
			continue;
		}
		if (length == 0) {
			*n = used;
			return 0;
		}
		if (length > 63 || at + 1 + length > p.n || used + length + 1 > NAME_MAX_TEXT)
			return EBADMSG;
		if (used > 0)
			out[used++] = '.';
		for (size_t i = 1; i <= length; i++) {
			char c = p.at[at + i];
			if (c <= ' ' || c == '.' || c == 0x7f)
				return EBADMSG;
			out[used++] = c;
		}
		at += length + 1;
	}
	return EBADMSG;
}

/* Strings of at most 255 bytes each (RFC 1035 3.3.14), that mean one text. */
static int take_text(struct span p, size_t at, size_t length, struct buffer *records)
{
	char text[TXT_MOST];
	size_t n = 0;
	for (size_t end = at + length; at < end;) {
		size_t part = (unsigned char)p.at[at++];
		if (part > end - at)
			return EBADMSG;
		if (part > sizeof text - n) /* too long to be of use */
			return 0;
		memcpy(text + n, p.at + at, part);
		n += part;
		at += part;
	}
	buffer_put_lspan(records, (struct span){text, n});
	return 0;
}

static int take_record(struct span p, size_t at, size_t length, enum dns_kind kind, struct buffer *records)
{
	char name[NAME_MAX_TEXT + 1];
	size_t n;
	if (kind == DNS_MX) {
		if (length < 3 || read_name(p, at + 2, name, &n) != 0)
			return EBADMSG;
		dns_put_mx(records, &(struct dns_mx){.preference = u16_at(p, at), .host = {name, n}});
		return 0;
	}
	if (kind == DNS_SRV) {
		if (length < 7 || read_name(p, at + 6, name, &n) != 0)
			return EBADMSG;
		for (size_t i = 0; i < 6; i += 2)
			buffer_put_u32(records, u16_at(p, at + i));
		buffer_put_lspan(records, (struct span){name, n});
		return 0;
	}
	if (kind == DNS_TLSA) {
		if (length < 4)
			return EBADMSG;
		if (length <= TLSA_MOST)
			buffer_put_lspan(records, (struct span){p.at + at, length});
		return 0;
	}
	if (kind == DNS_TXT)
		return take_text(p, at, length, records);
	if (kind == DNS_PTR) { /* a name that is of no use is as none: whoever owns the address has written it */
		if (read_name(p, at, name, &n) == 0)
			buffer_put_lspan(records, (struct span){name, n});
		return 0;
	}
	if (length != (kind == DNS_A ? 4u : 16u))
		return EBADMSG;
	buffer_put_lspan(records, (struct span){p.at + at, length});
	return 0;
}

int dns_parse_answer(struct span p, enum dns_kind kind, struct buffer *records, size_t *n, unsigned *rcode, struct buffer *owner)
{
	char name[NAME_MAX_TEXT + 1];
	size_t at = HEADER, name_n;
	*n = 0;
	if (p.n < HEADER)
		return EBADMSG;
	*rcode = (unsigned char)p.at[3] & 15;
	for (unsigned i = u16_at(p, 4); i > 0; i--) {
		at = skip_name(p, at);
		if (at == 0 || at + 4 > p.n)
			return EBADMSG;
		at += 4;
	}
	for (unsigned i = u16_at(p, 6); i > 0; i--) {
		size_t name_at = at;
		at = skip_name(p, at);
		if (at == 0 || at + 10 > p.n)
			return EBADMSG;
		unsigned type = u16_at(p, at), class = u16_at(p, at + 2), length = u16_at(p, at + 8);
		at += 10;
		if (at + length > p.n)
			return EBADMSG;
		if (type == (unsigned)kind && class == 1 && *n < 100) {
			if (take_record(p, at, length, kind, records) != 0)
				return EBADMSG;
			if (owner != NULL && *n == 0 && read_name(p, name_at, name, &name_n) == 0)
				buffer_put(owner, name, name_n);
			(*n)++;
		}
		at += length;
	}
	return buffer_ok(records) ? 0 : ENOMEM;
}
