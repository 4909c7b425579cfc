/* From 8-bit or binary MIME to seven bits (RFC 2045, RFC 6152 3, RFC 3030 3). */
#include "message/message.h"

#include <stdlib.h>
#include <string.h>

enum { DEPTH = 20, BOUNDARY_MOST = 70, QP_LINE = 75, BASE64_BYTES = 57 };
enum entity_kind { LEAF_TEXT, LEAF_OTHER, MULTIPART, MESSAGE, SIGNED };

/* What an entity's header says. */
struct entity {
	enum entity_kind kind;
	bool mime, type, encoding, encoded; /* encoded: quoted-printable or base64, left as it is */
	char boundary[BOUNDARY_MOST + 1];
};

struct conversion {
	struct span rest;
	struct buffer *out;
	char boundaries[DEPTH][BOUNDARY_MOST + 1];
	size_t depth;
	bool top;           /* the message's own header is still to come */
	bool refused;
};

/* Of a header: nothing there can be encoded; LF alone ends a line, as header_next reads it. */
static bool beyond_seven_bits(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((s.at[i] & 0x80) != 0 || s.at[i] == '\0' || (s.at[i] == '\r' && (i + 1 == s.n || s.at[i + 1] != '\n')))
			return true;
	return false;
}

/* Bytes that no line of SMTP may hold, bare line ends among them. */
static bool needs_encoding(struct span s)
{
	size_t line = 0;
	for (size_t i = 0; i < s.n; i++) {
		bool crlf = s.at[i] == '\r' && i + 1 < s.n && s.at[i + 1] == '\n';
		if ((s.at[i] & 0x80) != 0 || s.at[i] == '\0' || (s.at[i] == '\r' && !crlf) || (s.at[i] == '\n' && (i == 0 || s.at[i - 1] != '\r')))
			return true;
		line = s.at[i] == '\n' ? 0 : line + 1;
		if (line > 998 + 1)
			return true;
	}
	return false;
}

/* ---- header fields ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The value of a parameter of a structured field, quotes taken off.  False: it is not there, or too long. */
static bool take_parameter(struct span body, const char *name, char *out, size_t size)
{
	(void)span_until(&body, ';');
	while (body.n > 0) {
		struct span value = span_until(&body, ';'), key = span_trim(span_until(&value, '='));
		size_t n = 0;
		while (key.n > 0 && is_blank(key.at[0])) {
			key.at++;
			key.n--;
		}
		if (!span_case_is(key, name))
			continue;
		value = span_trim(value);
		bool quoted = value.n > 0 && value.at[0] == '"';
		for (size_t i = quoted; i < value.n && (quoted ? value.at[i] != '"' : !is_blank(value.at[i]) && value.at[i] != '('); i++) {
			if (n + 1 >= size)
				return false;
			out[n++] = value.at[i];
		}
		out[n] = '\0';
		return n > 0;
	}
	return false;
}

static bool begins_case(struct span s, const char *text)
{
	size_t n = strlen(text);
	return s.n >= n && span_case_eq((struct span){s.at, n}, (struct span){text, n});
}

static void read_type(struct entity *e, struct span body)
{
	e->type = true;
	if (begins_case(body, "multipart/signed") || begins_case(body, "multipart/encrypted"))
		e->kind = SIGNED; /* RFC 1847 2.1: what is signed is not touched */
	else if (begins_case(body, "multipart/"))
		e->kind = MULTIPART;
	else if (begins_case(body, "message/rfc822") || begins_case(body, "message/global"))
		e->kind = MESSAGE;
	else
		e->kind = begins_case(body, "text/") ? LEAF_TEXT : LEAF_OTHER;
	if (e->kind == MULTIPART && !take_parameter(body, "boundary", e->boundary, sizeof e->boundary))
		e->kind = LEAF_OTHER;
}

static void note_field(struct entity *e, const struct header_field *f)
{
	if (span_case_is(f->name, "MIME-Version"))
		e->mime = true;
	if (span_case_is(f->name, "Content-Type"))
		read_type(e, f->body);
	if (span_case_is(f->name, "Content-Transfer-Encoding")) {
		e->encoding = true;
		e->encoded = span_case_is(span_trim(f->body), "quoted-printable") || span_case_is(span_trim(f->body), "base64");
	}
}

/* The entity's header is c->rest's beginning: *fields are its bytes, c->rest is then its body. */
static void read_header(struct conversion *c, struct entity *e, struct span *fields)
{
	struct header_field f;
	struct span rest = c->rest;
	size_t n = 0;
	*e = (struct entity){.kind = LEAF_TEXT}; /* RFC 2045 5.2: text/plain where nothing is said */
	while (header_next(&rest, &f)) {
		note_field(e, &f);
		n += f.whole.n;
	}
	*fields = (struct span){c->rest.at, n};
	c->rest = rest;
}

/* The fields, with the encoding said anew; NULL: it stays as it is.  A message that is encoded and was no MIME becomes it. */
static void put_header(struct conversion *c, const struct entity *e, struct span fields, const char *encoding)
{
	struct header_field f;
	bool encoded = encoding != NULL && strcmp(encoding, "7bit") != 0;
	c->refused = c->refused || beyond_seven_bits(fields);
	while (header_next(&fields, &f))
		if (encoding == NULL || !span_case_is(f.name, "Content-Transfer-Encoding"))
			crlf_put(c->out, f.whole);
	if (c->top && encoded && !e->mime)
		buffer_puts(c->out, "MIME-Version: 1.0\r\n");
	if (c->top && encoded && !e->type)
		buffer_puts(c->out, "Content-Type: text/plain; charset=unknown-8bit\r\n"); /* RFC 1428 */
	if (encoding != NULL)
		buffer_printf(c->out, "Content-Transfer-Encoding: %s\r\n", encoding);
	buffer_puts(c->out, "\r\n");
	c->top = false;
}

/* Of what holds seven bits already: "8bit" and "binary" are true no more. */
static const char *plain_encoding(const struct entity *e)
{
	return e->encoding && !e->encoded ? "7bit" : NULL;
}

/* ---- bodies ---- */

static bool is_line_end(struct span s, size_t i)
{
	return s.at[i] == '\r' && i + 1 < s.n && s.at[i + 1] == '\n';
}

static void put_quoted(struct buffer *out, struct span s)
{
	size_t column = 0;
	for (size_t i = 0; i < s.n; i++) {
		unsigned char byte = (unsigned char)s.at[i];
		if (is_line_end(s, i)) {
			buffer_puts(out, "\r\n");
			column = 0;
			i++;
			continue;
		}
		bool blank_at_end = (byte == ' ' || byte == '\t') && (i + 1 == s.n || is_line_end(s, i + 1));
		bool plain = (byte >= 33 && byte <= 126 && byte != '=') || ((byte == ' ' || byte == '\t') && !blank_at_end);
		if (column + (plain ? 1 : 3) > QP_LINE) {
			buffer_puts(out, "=\r\n");
			column = 0;
		}
		plain = plain && (byte != '-' || column > 0); /* a line that we begin is no delimiter */
		if (plain)
			buffer_putc(out, (char)byte);
		else
			buffer_printf(out, "=%02X", byte);
		column += plain ? 1 : 3;
	}
}

static void put_base64(struct buffer *out, struct span s)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < s.n; i += 3) {
		size_t n = s.n - i < 3 ? s.n - i : 3;
		uint32_t bits = 0;
		for (size_t k = 0; k < 3; k++)
			bits = bits << 8 | (k < n ? (unsigned char)s.at[i + k] : 0u);
		for (size_t k = 0; k < 4; k++)
			buffer_putc(out, (char)(k <= n ? digits[bits >> (18 - 6 * k) & 63] : '='));
		if ((i / 3 + 1) % (BASE64_BYTES / 3) == 0 || i + 3 >= s.n)
			buffer_puts(out, "\r\n");
	}
}

static struct span take_line(struct span *rest)
{
	const char *lf = rest->n == 0 ? NULL : memchr(rest->at, '\n', rest->n);
	size_t n = lf == NULL ? rest->n : (size_t)(lf - rest->at) + 1;
	struct span line = {rest->at, n};
	rest->at += n;
	rest->n -= n;
	return line;
}

/* Which enclosing multipart's delimiter a line is; c->depth: none.  *last: the closing one. */
static size_t which_delimiter(const struct conversion *c, struct span line, bool *last)
{
	while (line.n > 0 && is_blank(line.at[line.n - 1]))
		line.n--;
	if (line.n < 3 || line.at[0] != '-' || line.at[1] != '-')
		return c->depth;
	struct span name = {line.at + 2, line.n - 2};
	for (size_t i = c->depth; i > 0; i--) {
		struct span boundary = span_of(c->boundaries[i - 1]);
		*last = name.n == boundary.n + 2 && name.at[name.n - 1] == '-' && name.at[name.n - 2] == '-';
		if (span_eq(name, boundary) || (*last && memcmp(name.at, boundary.at, boundary.n) == 0))
			return i - 1;
	}
	return c->depth;
}

/* Up to the next delimiter; the line end before it belongs to it (RFC 2046 5.1.1). */
static struct span take_body(struct conversion *c)
{
	struct span rest = c->rest, before;
	bool last;
	do {
		before = rest;
		struct span line = take_line(&rest);
		if (line.n == 0 || which_delimiter(c, line, &last) < c->depth)
			break;
	} while (true);
	struct span body = {c->rest.at, (size_t)(before.at - c->rest.at)};
	c->rest = before;
	return body;
}

static void put_leaf(struct conversion *c, const struct entity *e, struct span fields)
{
	struct span body = take_body(c);
	size_t end = c->rest.n == 0 || body.n == 0 || body.at[body.n - 1] != '\n' ? 0 : body.n >= 2 && body.at[body.n - 2] == '\r' ? 2 : 1;
	if (!needs_encoding(body)) {
		put_header(c, e, fields, plain_encoding(e));
		buffer_put_span(c->out, body);
		return;
	}
	bool text = e->kind == LEAF_TEXT;
	struct span content = {body.at, body.n - end};
	put_header(c, e, fields, text ? "quoted-printable" : "base64");
	if (text)
		put_quoted(c->out, content);
	else
		put_base64(c->out, content);
	if (end > 0 && (text || content.n == 0)) /* base64 has ended its own last line */
		buffer_puts(c->out, "\r\n");
}

/* Preamble or epilogue: for nobody's eyes; what is no seven bits in it is blotted out. */
static void put_between(struct conversion *c)
{
	struct span text = take_body(c);
	for (size_t i = 0; i < text.n; i++) {
		bool bare = text.at[i] == '\r' && (i + 1 == text.n || text.at[i + 1] != '\n');
		if (text.at[i] == '\n' && (i == 0 || text.at[i - 1] != '\r'))
			buffer_putc(c->out, '\r');
		buffer_putc(c->out, (char)((text.at[i] & 0x80) != 0 || text.at[i] == '\0' || bare ? '?' : text.at[i]));
	}
}

/* What is signed is passed on as it is, or the message is not converted at all. */
static void put_signed(struct conversion *c, const struct entity *e, struct span fields)
{
	struct span body = take_body(c);
	c->refused = c->refused || needs_encoding(body);
	put_header(c, e, fields, plain_encoding(e));
	buffer_put_span(c->out, body);
}

/* One entity: its header, and its body up to the next delimiter.  True: a header follows, of the message inside. */
static bool put_entity(struct conversion *c)
{
	struct entity e;
	struct span fields;
	read_header(c, &e, &fields);
	if (e.kind == MULTIPART && !e.encoded && c->depth < DEPTH) {
		put_header(c, &e, fields, plain_encoding(&e));
		memcpy(c->boundaries[c->depth++], e.boundary, sizeof e.boundary);
		put_between(c);
		return false;
	}
	if (e.kind == MULTIPART)
		c->refused = true; /* RFC 2045 6.4: no encoding is allowed there; or it goes too deep */
	if (e.kind == MESSAGE && !e.encoded) {
		put_header(c, &e, fields, plain_encoding(&e));
		c->top = true; /* it may lack the same fields as the outer one */
		return true;
	}
	if (e.kind == SIGNED)
		put_signed(c, &e, fields);
	else
		put_leaf(c, &e, fields);
	return false;
}

int convert_to_seven_bits(struct buffer *out, struct span content)
{
	struct conversion c = {.rest = content, .out = out, .top = true};
	bool header = true, last = false;
	while ((header || c.rest.n > 0) && !c.refused && buffer_ok(out)) {
		if (header) {
			header = put_entity(&c);
			continue;
		}
		struct span line = take_line(&c.rest);
		size_t which = which_delimiter(&c, line, &last);
		crlf_put(out, line);
		c.depth = last ? which : which + 1;
		header = !last;
		if (last)
			put_between(&c);
	}
	return c.refused ? EBADMSG : buffer_ok(out) ? 0 : ENOMEM;
}
