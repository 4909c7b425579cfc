/* The message itself, dot-stuffed or in chunks. */
#include "smtp_agent.h"

#include <string.h>
#include <unistd.h>

static void finish(struct conn *c)
{
	if (!c->chunked) /* a message that does not end with a line end gets one: the dot needs it */
		buffer_puts(&c->out, c->line_start ? ".\r\n" : "\r\n.\r\n");
	envelope_expect_dot(c);
	conn_state(c, CONN_DOT, hop_out(c->hop)->outbound_data_done_timeout);
}

static int put_piece(struct conn *c, struct span piece)
{
	bool last = c->body_at + piece.n == c->job->size;
	if (last && !lease_holds(proc_lease(&c->job->agent->proc, c->job->server))) { /* whoever has the queue now sends it */
		dialog_broken(c, "the queue is another node's now");
		return -1;
	}
	c->body_at += piece.n;
	if (c->chunked) /* each chunk costs an answer, so a large message is one chunk, announced once */
		buffer_put_span(&c->out, piece);
	else
		data_encode(&c->out, piece, &c->line_start);
	if (!buffer_ok(&c->out)) {
		dialog_broken(c, "not enough memory");
		return -1;
	}
	if (last)
		finish(c);
	return 1;
}

void body_begin(struct conn *c)
{
	if (c->accepted == 0) {
		/* RFC 2920 3.1: 354 after all recipients were refused: an empty message ends it */
		buffer_puts(&c->out, ".\r\n");
		envelope_expect_dot(c);
		conn_state(c, CONN_DOT, hop_out(c->hop)->outbound_command_timeout);
		conn_flush(c);
		return;
	}
	conn_state(c, CONN_BODY, hop_out(c->hop)->outbound_data_block_timeout);
	if (c->chunked)
		buffer_printf(&c->out, "BDAT %llu LAST\r\n", (unsigned long long)c->job->size);
	conn_flush(c);
}

int body_more(struct conn *c)
{
	char block[BLOCK];
	struct job *j = c->job;
	if (j->body_fd < 0)
		return put_piece(c, buffer_span(&j->content));
	ssize_t n = pread(j->body_fd, block, sizeof block, (off_t)c->body_at);
	if (n <= 0) {
		dialog_broken(c, "the message's file could not be read");
		return -1;
	}
	return put_piece(c, (struct span){block, (size_t)n});
}
