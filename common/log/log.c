#include "log/log.h"

#include <stdio.h>

void log_write(struct log *l, const struct log_event *e, struct span id, const struct log_field *fields, size_t n)
{
	if (l->channel == NULL || channel_backlog(l->channel) > LOG_BACKLOG) {
		l->lost++;
		if (l->channel == NULL && l->to_stderr)
			(void)fprintf(stderr, "%s\n", e->name);
		return;
	}
	if (l->lost > 0) {
		send_log_lost(l->channel, (struct msg_log_lost){.n = l->lost}, -1);
		l->lost = 0;
	}
	size_t mark;
	struct buffer *b = &l->channel->out;
	channel_begin(l->channel, MSG_log_line, &mark);
	buffer_put_u32(b, (uint32_t)e->level);
	buffer_put_lspan(b, span_of(e->name));
	buffer_put_lspan(b, id);
	size_t length_at = b->n;
	buffer_put_u32(b, 0);
	for (size_t i = 0; i < n; i++) {
		buffer_put_lspan(b, span_of(fields[i].key));
		buffer_put_lspan(b, fields[i].value);
	}
	if (buffer_ok(b))
		store_u32(b->at + length_at, (uint32_t)(b->n - length_at - 4));
	channel_end(l->channel, mark, -1);
}
