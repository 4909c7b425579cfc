#include "smtp/smtp.h"

#include <string.h>

static const struct reply_row rows[] = {
#define REPLY(name, code, enhanced, text) [REPLY_##name] = {#name, code, enhanced, text},
#include "smtp/replies.def"
};

const struct reply_row *reply_row(enum reply r)
{
	return &rows[r];
}

void reply_put(struct buffer *out, enum reply r, struct span detail)
{
	const struct reply_row *row = &rows[r];
	const char code[] = {(char)('0' + row->code / 100), (char)('0' + row->code / 10 % 10), (char)('0' + row->code % 10)};
	buffer_put(out, code, sizeof code);
	if (row->enhanced[0] != '\0') {
		buffer_putc(out, ' ');
		buffer_puts(out, row->enhanced);
	}
	if (row->text[0] != '\0') {
		buffer_putc(out, ' ');
		buffer_puts(out, row->text);
	}
	if (detail.n > 0)
		buffer_putc(out, ' ');
	for (size_t i = 0; i < detail.n; i++)
		buffer_putc(out, (char)((unsigned char)detail.at[i] < 0x20 || detail.at[i] == 0x7f ? '?' : detail.at[i]));
	buffer_puts(out, "\r\n");
}

void peer_reply_init(struct peer_reply *r)
{
	*r = (struct peer_reply){0};
	buffer_init(&r->text, 2048);
}

void peer_reply_clear(struct peer_reply *r)
{
	buffer_clear(&r->text);
	r->code = 0;
	r->lines = 0;
	r->enhanced = (struct span){"", 0};
}

void peer_reply_free(struct peer_reply *r)
{
	buffer_free(&r->text);
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

struct span enhanced_find(struct span s, int code)
{
	size_t i = 0, dots = 0, digits = 0;
	if (s.n < 5 || s.at[0] != '0' + code / 100 || s.at[1] != '.')
		return (struct span){"", 0};
	for (; i < s.n && (is_digit(s.at[i]) || s.at[i] == '.'); i++) {
		if (s.at[i] == '.') {
			if (digits == 0 || digits > 3)
				return (struct span){"", 0};
			dots++;
			digits = 0;
		} else {
			digits++;
		}
	}
	bool ends = i == s.n || s.at[i] == ' ';
	return dots == 2 && digits > 0 && digits <= 3 && ends ? (struct span){s.at, i} : (struct span){"", 0};
}

static void put_clean(struct buffer *b, struct span s)
{
	for (size_t i = 0; i < s.n && b->n + 1 < b->limit; i++)
		buffer_putc(b, (char)((unsigned char)s.at[i] < 0x20 || s.at[i] == 0x7f ? '?' : s.at[i]));
}

/* RFC 5321 4.2: three digits, then a blank or hyphen; all lines of a reply carry one code. */
int peer_reply_line(struct peer_reply *r, struct span line)
{
	enum { MOST_LINES = 200 };
	if (line.n < 3 || line.at[0] < '2' || line.at[0] > '5' || !is_digit(line.at[1]) || !is_digit(line.at[2]))
		return EBADMSG;
	if (line.n > 3 && line.at[3] != ' ' && line.at[3] != '-')
		return EBADMSG;
	int code = (line.at[0] - '0') * 100 + (line.at[1] - '0') * 10 + line.at[2] - '0';
	if ((r->lines > 0 && code != r->code) || r->lines >= MOST_LINES)
		return EBADMSG;
	struct span text = {line.at + 3, line.n - 3};
	bool more = text.n > 0 && text.at[0] == '-';
	if (text.n > 0) {
		text.at++;
		text.n--;
	}
	if (r->lines++ > 0 && r->text.n + 1 < r->text.limit)
		buffer_putc(&r->text, ' ');
	r->code = code;
	put_clean(&r->text, text);
	if (more)
		return EAGAIN;
	r->enhanced = enhanced_find(buffer_span(&r->text), code);
	return 0;
}
