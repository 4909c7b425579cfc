/* Postfix's queue files without postcat. */
#include "cmd/import/postfix_record.h"
#include "smtp/smtp.h"

#include <string.h>

enum { POINTERS_MOST = 100000 };

/* An address as Postfix has it inside: its local part without quotes. */
static bool put_address(struct buffer *b, const char *field, struct span text)
{
	struct address a;
	struct buffer quoted;
	bool good = text.n == 0 || address_parse(text, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) == 0;
	if (good) {
		buffer_printf(b, "%s: <%.*s>\n", field, SPAN_ARG(text));
		return true;
	}
	const char *at = memrchr(text.at, '@', text.n);
	size_t local = at == NULL ? text.n : (size_t)(at - text.at);
	buffer_init(&quoted, 4096);
	buffer_putc(&quoted, '"');
	for (size_t i = 0; i < local; i++) {
		if (text.at[i] == '"' || text.at[i] == '\\')
			buffer_putc(&quoted, '\\');
		buffer_putc(&quoted, text.at[i]);
	}
	buffer_putc(&quoted, '"');
	buffer_put_span(&quoted, span_from(text, local));
	good = buffer_ok(&quoted) && address_parse(buffer_span(&quoted), ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) == 0;
	if (good)
		buffer_printf(b, "%s: <%.*s>\n", field, SPAN_ARG(buffer_span(&quoted)));
	buffer_free(&quoted);
	return good;
}

void pf_take_sender(struct pf_envelope *e, struct span text)
{
	if (e->has_sender)
		return;
	e->has_sender = true;
	if (!put_address(&e->file, "X-Sender", text))
		e->fault = "its sender is no address";
}

void pf_take_recipient(struct pf_envelope *e, struct span text)
{
	e->recipients++;
	if (!put_address(&e->file, "X-Receiver", text))
		e->fault = "a recipient is no address";
}

/* ---- the records of a queue file: a letter, a length of seven bits a byte, bytes ---- */

struct record {
	char type;
	struct span data;
};

static bool next_record(struct span whole, size_t *at, struct record *r)
{
	size_t n = 0;
	unsigned shift = 0;
	if (*at >= whole.n)
		return false;
	r->type = whole.at[(*at)++];
	for (;;) {
		if (*at >= whole.n || shift > 28)
			return false;
		unsigned char c = (unsigned char)whole.at[(*at)++];
		n |= (size_t)(c & 127) << shift;
		if ((c & 128) == 0)
			break;
		shift += 7;
	}
	if (n > whole.n - *at)
		return false;
	r->data = (struct span){whole.at + *at, n};
	*at += n;
	return true;
}

static void take_record(struct pf_envelope *e, const struct record *r)
{
	if (r->type == 'S')
		pf_take_sender(e, r->data);
	else if (r->type == 'R')
		pf_take_recipient(e, r->data);
	else if (r->type == 'N' || r->type == 'L')
		buffer_put_span(&e->content, r->data);
	if (r->type == 'N')
		buffer_putc(&e->content, '\n');
}

void pf_read_records(struct pf_envelope *e, struct span whole)
{
	struct record r;
	size_t at = 0;
	unsigned pointers = 0;
	while (next_record(whole, &at, &r)) {
		uint64_t to;
		if (r.type == 'E')
			return;
		if (r.type != 'p') {
			take_record(e, &r);
			continue;
		}
		if (parse_u64(span_trim(r.data), whole.n, &to) != 0 || ++pointers > POINTERS_MOST)
			break;
		at = to > 0 ? (size_t)to : at; /* 0: not used yet */
	}
	e->fault = "it has no end";
}
