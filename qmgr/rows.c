/* A message as a row of the index, and a row as JSON for operators. */
#include "qmgr.h"

#include <string.h>

static const char *const state_names[] = {[RCPT_DUE] = "due", [RCPT_QUEUED] = "due", [RCPT_OUT] = "delivering",
	[RCPT_DEFERRED] = "deferred", [RCPT_OWED] = "reporting", [RCPT_CLOSED] = "closed"};

void row_of_message(struct qmgr *q, const struct qmsg *m, struct buffer *bytes)
{
	struct buffer rcpts;
	const struct dest *dest = NULL;
	buffer_init(&rcpts, 16 * 1024 * 1024);
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		const struct qrcpt *r = &m->rcpts[i];
		buffer_put_u8(&rcpts, r->state);
		buffer_put_lspan(&rcpts, r->address);
		buffer_put_lspan(&rcpts, span_of(r->reason));
		if (r->state < RCPT_OWED && dest == NULL)
			dest = r->dest;
	}
	struct row row = {.next_s = m->held ? ROW_HELD : msg_next_event(q, m), .next_attempt_s = m->next_attempt_s, .last_attempt_s = m->last_attempt_s,
		.arrived_us = m->e.arrived_us, .attempts = m->attempts, .size = m->e.size, .sender = m->e.sender,
		.flags = (m->delayed ? ROW_DELAYED : 0u) | (m->held ? ROW_IS_HELD : 0u) | (m->forced ? ROW_FORCED : 0u),
		.dest = dest == NULL ? (struct span){"", 0} : span_of(dest->nexthop), .rcpts = buffer_span(&rcpts)};
	if (row.next_s < 1)
		row.next_s = 1;
	row_put(bytes, &row);
	buffer_free(&rcpts);
}

static void put_recipients(struct buffer *b, struct span rest)
{
	uint8_t state;
	struct span address, reason;
	bool first = true;
	while (take_u8(&rest, &state) && take_lspan(&rest, &address) && take_lspan(&rest, &reason)) {
		if (!first)
			buffer_putc(b, ',');
		first = false;
		buffer_puts(b, "{\"address\":");
		buffer_put_json(b, address);
		buffer_printf(b, ",\"state\":\"%s\",\"reason\":", state < COUNT_OF(state_names) ? state_names[state] : "due");
		buffer_put_json(b, reason);
		buffer_putc(b, '}');
	}
}

void row_put_json(struct qmgr *q, struct buffer *b, const struct qid *id, const struct row *row)
{
	bool active = msg_find(q, id) != NULL;
	buffer_printf(b, "{\"id\":\"%s\",\"server\":", id->text);
	buffer_put_json(b, span_of(q->proc.server));
	buffer_puts(b, ",\"sender\":");
	buffer_put_json(b, row->sender);
	buffer_printf(b, ",\"size\":%llu,\"arrival\":\"", (unsigned long long)row->size);
	format_rfc3339(b, row->arrived_us / 1000000);
	buffer_printf(b, "\",\"state\":\"%s\",\"attempts\":%u,\"next_attempt\":", (row->flags & ROW_IS_HELD) != 0 ? "held" : active ? "active" : "deferred",
		row->attempts);
	if ((row->flags & ROW_IS_HELD) != 0 || row->next_attempt_s == 0) {
		buffer_puts(b, "null");
	} else {
		buffer_putc(b, '"');
		format_rfc3339(b, row->next_attempt_s);
		buffer_putc(b, '"');
	}
	buffer_puts(b, ",\"destination\":");
	buffer_put_json(b, row->dest);
	buffer_puts(b, ",\"recipients\":[");
	put_recipients(b, row->rcpts);
	buffer_puts(b, "]}");
}
