#include "smtp/smtp.h"

#include <string.h>

enum { ROOM_MOST = 16 * 1024 };

void data_decoder_init(struct data_decoder *d, bool normalize)
{
	*d = (struct data_decoder){.normalize = normalize};
}

static void put(struct buffer *out, const char *at, size_t n)
{
	if (out != NULL)
		buffer_put(out, at, n);
}

/* A CR or LF that is not half of a CRLF.  It never starts a line, so what follows it can
 * not be the end of data: this is what makes smuggling impossible. */
static void put_bare(struct data_decoder *d, struct buffer *out, char c)
{
	d->bare = true;
	if (d->normalize)
		put(out, "\r\n", 2);
	else
		put(out, &c, 1);
}

/* One byte, for the states in which bytes must be looked at singly. */
static void data_byte(struct data_decoder *d, char c, struct buffer *out)
{
	switch (d->state) {
	case DATA_DOT:
		if (c == '\r') {
			d->state = DATA_DOT_CR;
			return;
		}
		break; /* a stuffed dot: dropped */
	case DATA_DOT_CR:
		if (c == '\n') {
			d->state = DATA_END;
			return;
		}
		put_bare(d, out, '\r'); /* ".\rX": the dot was stuffing, the CR is bare */
		break;
	case DATA_CR:
		if (c == '\n') {
			put(out, "\r\n", 2);
			d->state = DATA_LINE_START;
			return;
		}
		put_bare(d, out, '\r');
		break;
	case DATA_LINE_START:
		if (c == '.') {
			d->state = DATA_DOT;
			return;
		}
		break;
	case DATA_IN_LINE:
	case DATA_END:
		break;
	}
	if (c == '\r') {
		d->state = DATA_CR;
		return;
	}
	if (c == '\n')
		put_bare(d, out, c);
	else
		put(out, &c, 1);
	d->state = DATA_IN_LINE;
}

/* Copies up to the next CR or LF; memchr is some ten times faster than looking at each byte. */
static size_t data_run(struct span in, struct buffer *out)
{
	const char *lf = memchr(in.at, '\n', in.n);
	size_t n = lf == NULL ? in.n : (size_t)(lf - in.at);
	const char *cr = n > 0 ? memchr(in.at, '\r', n) : NULL;
	if (cr != NULL)
		n = (size_t)(cr - in.at);
	put(out, in.at, n);
	return n;
}

size_t data_decode(struct data_decoder *d, struct span in, struct buffer *out)
{
	size_t i = 0;
	size_t room = (in.n < ROOM_MOST ? in.n : ROOM_MOST) + 2;
	if (out != NULL && out->limit - out->n > room) /* for most messages at once, not line by line */
		(void)!buffer_reserve(out, room);
	while (i < in.n && d->state != DATA_END) {
		if (d->state == DATA_IN_LINE) {
			i += data_run((struct span){in.at + i, in.n - i}, out);
			/* the common end of a line in one step */
			if (in.n - i >= 2 && in.at[i] == '\r' && in.at[i + 1] == '\n') {
				put(out, "\r\n", 2);
				i += 2;
				d->state = DATA_LINE_START;
				continue;
			}
		}
		if (i < in.n)
			data_byte(d, in.at[i++], out);
	}
	return i;
}

void data_encode(struct buffer *out, struct span content, bool *line_start)
{
	if (buffer_reserve(out, content.n + content.n / 64 + 16) != 0)
		return;
	while (content.n > 0) {
		if (*line_start && content.at[0] == '.')
			buffer_putc(out, '.');
		const char *lf = memchr(content.at, '\n', content.n);
		size_t n = lf == NULL ? content.n : (size_t)(lf - content.at) + 1;
		buffer_put(out, content.at, n);
		*line_start = lf != NULL;
		content.at += n;
		content.n -= n;
	}
}
