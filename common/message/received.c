#include "message/message.h"

#include <string.h>
#include <time.h>

void date_put(struct buffer *b, int64_t wall_s)
{
	static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	time_t t = (time_t)wall_s;
	struct tm tm = {0};
	(void)localtime_r(&t, &tm);
	long minutes = tm.tm_gmtoff / 60, size = minutes < 0 ? -minutes : minutes;
	const struct { int value; unsigned digits; const char *after; } numbers[] = {
		{tm.tm_year + 1900, 4, " "}, {tm.tm_hour, 2, ":"}, {tm.tm_min, 2, ":"}, {tm.tm_sec, 2, minutes < 0 ? " -" : " +"}};
	/* a field of each message: without a pass of printf */
	buffer_put(b, days + (size_t)tm.tm_wday * 3, 3);
	buffer_puts(b, ", ");
	buffer_put_decimal(b, (uint64_t)tm.tm_mday, 1);
	buffer_putc(b, ' ');
	buffer_put(b, months + (size_t)tm.tm_mon * 3, 3);
	buffer_putc(b, ' ');
	for (size_t i = 0; i < COUNT_OF(numbers); i++) {
		buffer_put_decimal(b, (uint64_t)numbers[i].value, numbers[i].digits);
		buffer_puts(b, numbers[i].after);
	}
	buffer_put_decimal(b, (uint64_t)(size / 60), 2);
	buffer_put_decimal(b, (uint64_t)(size % 60), 2);
}

/* Text from outside inside a header: nothing that could end or fold the field, or close a comment. */
static void put_safe(struct buffer *b, struct span s)
{
	for (size_t i = 0; i < s.n && i < 255; i++) {
		unsigned char c = (unsigned char)s.at[i];
		buffer_putc(b, (char)(c <= 0x20 || c == 0x7f || c == '(' || c == ')' || c == '\\' ? '?' : c));
	}
}

static void put_client(struct buffer *b, const struct received *r)
{
	bool v6 = memchr(r->client_address.at, ':', r->client_address.n) != NULL;
	buffer_puts(b, "from ");
	put_safe(b, r->helo.n > 0 ? r->helo : SPAN_LIT("unknown"));
	buffer_puts(b, " (");
	if (r->client_name.n > 0) {
		put_safe(b, r->client_name);
		buffer_putc(b, ' ');
	}
	buffer_puts(b, v6 ? "[IPv6:" : "[");
	buffer_put_span(b, r->client_address);
	buffer_putc(b, ']');
	if (r->client_remark.n > 0) {
		buffer_putc(b, ' ');
		buffer_put_span(b, r->client_remark);
	}
	buffer_putc(b, ')');
	if (r->tls.n > 0) {
		buffer_puts(b, "\r\n\t(using ");
		buffer_put_span(b, r->tls);
		buffer_putc(b, ')');
	}
	buffer_puts(b, "\r\n\t");
}

void received_put(struct buffer *b, const struct received *r)
{
	buffer_puts(b, "Received: ");
	if (r->client_address.n > 0)
		put_client(b, r);
	buffer_puts(b, "by ");
	put_safe(b, r->by);
	if (r->local_user.n > 0) {
		buffer_puts(b, " (");
		put_safe(b, r->local_user);
		buffer_putc(b, ')');
	}
	if (r->protocol.n > 0) {
		buffer_puts(b, " with ");
		buffer_put_span(b, r->protocol);
	}
	buffer_puts(b, " id ");
	buffer_put_span(b, r->id);
	if (r->recipient.n > 0) {
		buffer_puts(b, "\r\n\tfor <");
		buffer_put_span(b, r->recipient);
		buffer_putc(b, '>');
	}
	buffer_puts(b, ";\r\n\t");
	date_put(b, r->wall_s);
	buffer_puts(b, "\r\n");
}

void crlf_put(struct buffer *b, struct span text)
{
	while (text.n > 0) {
		const char *lf = memchr(text.at, '\n', text.n);
		size_t n = lf == NULL ? text.n : (size_t)(lf - text.at);
		size_t body = n > 0 && lf != NULL && text.at[n - 1] == '\r' ? n - 1 : n;
		buffer_put(b, text.at, body);
		buffer_puts(b, "\r\n");
		n += lf == NULL ? 0 : 1;
		text.at += n;
		text.n -= n;
	}
}
