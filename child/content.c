/* The message as a mailbox or a command gets it. */
#include "child.h"
#include "message/message.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* One copy under way: text is gathered and written in blocks. */
struct copy {
	int out;
	bool mbox, header, line_start, cr, empty_line;
	struct buffer block;
	int error;
};

enum { BLOCK = 64 * 1024 };

static void flush(struct copy *c)
{
	if (c->error == 0 && !buffer_ok(&c->block))
		c->error = ENOMEM;
	if (c->error == 0)
		c->error = write_all(c->out, c->block.at, c->block.n);
	buffer_clear(&c->block);
}

static bool is_from_line(struct span s)
{
	while (s.n > 0 && s.at[0] == '>') {
		s.at++;
		s.n--;
	}
	return s.n >= 5 && memcmp(s.at, "From ", 5) == 0;
}

/* A whole line without its end, or the first part of a very long one. */
static void put_line(struct copy *c, struct span line, bool ended)
{
	if (c->line_start && c->mbox && is_from_line(line)) /* mboxrd: each reader can take it back */
		buffer_putc(&c->block, '>');
	buffer_put_span(&c->block, line);
	if (ended)
		buffer_putc(&c->block, '\n');
	c->empty_line = ended && c->line_start && line.n == 0;
	c->line_start = ended;
	if (c->block.n > BLOCK)
		flush(c);
}

static void put_piece(struct copy *c, struct buffer *held)
{
	struct span rest = buffer_span(held);
	size_t used = 0;
	for (;;) {
		const char *lf = rest.n == 0 ? NULL : memchr(rest.at, '\n', rest.n);
		if (lf == NULL)
			break;
		size_t n = (size_t)(lf - rest.at);
		put_line(c, (struct span){rest.at, n > 0 && rest.at[n - 1] == '\r' ? n - 1 : n}, true);
		rest.at += n + 1;
		rest.n -= n + 1;
		used += n + 1;
	}
	if (rest.n > BLOCK) { /* the last byte may be the CR of a line end */
		put_line(c, (struct span){rest.at, rest.n - 1}, false);
		used += rest.n - 1;
	}
	buffer_drop(held, used);
}

void content_put_from_line(struct buffer *b, const struct child_task *t)
{
	char when[64] = "";
	time_t now = time(NULL);
	struct tm tm = {0};
	(void)gmtime_r(&now, &tm);
	(void)strftime(when, sizeof when, "%a %b %e %H:%M:%S %Y", &tm);
	buffer_puts(b, "From ");
	for (size_t i = 0; i < t->sender.n; i++)
		buffer_putc(b, (char)((unsigned char)t->sender.at[i] <= 0x20 ? '-' : t->sender.at[i]));
	buffer_printf(b, "%s  %s\n", t->sender.n == 0 ? "MAILER-DAEMON" : "", when);
}

static void put_trace(struct buffer *b, const struct child_task *t)
{
	buffer_printf(b, "Return-Path: <%.*s>\n", SPAN_ARG(t->sender));
	buffer_printf(b, "X-Original-To: %.*s\n", SPAN_ARG(t->original));
	buffer_printf(b, "Delivered-To: %.*s\n", SPAN_ARG(t->recipient));
}

int content_copy(const struct child_task *t, int out, bool mbox)
{
	struct copy c = {.out = out, .mbox = mbox, .line_start = true};
	struct buffer held;
	char *block = malloc(BLOCK);
	ssize_t n = block == NULL ? -1 : 0;
	int error = block == NULL ? ENOMEM : 0;
	buffer_init(&c.block, 4 * BLOCK);
	buffer_init(&held, 4 * BLOCK);
	if (mbox)
		content_put_from_line(&c.block, t);
	put_trace(&c.block, t);
	for (off_t at = 0; error == 0 && c.error == 0 && (n = pread(CONTENT_FD, block, BLOCK, at)) > 0; at += n) {
		buffer_put(&held, block, (size_t)n);
		put_piece(&c, &held);
	}
	if (n < 0 && error == 0)
		error = errno;
	if (held.n > 0)
		put_line(&c, buffer_span(&held), true);
	else if (!c.line_start)
		put_line(&c, (struct span){"", 0}, true);
	if (mbox && !c.empty_line)
		buffer_putc(&c.block, '\n');
	flush(&c);
	buffer_free(&held);
	buffer_free(&c.block);
	free(block);
	return error != 0 ? error : c.error;
}

bool content_has_been_here(const struct child_task *t)
{
	char *bytes = malloc(HEADER_MOST);
	ssize_t n = bytes == NULL ? -1 : pread(CONTENT_FD, bytes, HEADER_MOST, 0);
	bool found = header_has_delivered_to((struct span){bytes, n > 0 ? (size_t)n : 0}, t->recipient);
	free(bytes);
	return found;
}
