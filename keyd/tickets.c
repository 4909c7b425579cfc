/* Keys of session tickets: of each server its own, the same for all workers, new every hour. */
#include "keyd.h"

#include <stdlib.h>
#include <string.h>

void tickets_offer(struct keyd *k, struct channel *worker)
{
	for (uint32_t i = 0; i < k->proc.config.servers_n; i++)
		send_ticket_keys(worker, (struct msg_ticket_keys){.server = i, .keys = {(const char *)k->tickets[i].keys, k->tickets[i].n * TICKET_KEY}}, -1);
}

static void rotate(int fd, short what, void *context)
{
	struct keyd *k = context;
	(void)fd;
	(void)what;
	for (size_t i = 0; i < SERVERS_MOST; i++) { /* of those to come as well */
		struct tls_tickets *t = &k->tickets[i];
		memcpy(t->keys[1], t->keys[0], TICKET_KEY);
		if (fill_random(t->keys[0], TICKET_KEY) != 0)
			t->n = 0; /* no tickets rather than known ones */
		else
			t->n = t->n < TICKET_KEYS ? t->n + 1 : TICKET_KEYS;
	}
	for (struct channel *w = k->workers; w != NULL; w = w->next)
		if (w->peer == R_SMTPD)
			tickets_offer(k, w);
}

int tickets_begin(struct keyd *k)
{
	static const struct timeval hour = {.tv_sec = TICKETS_S};
	k->tickets = calloc(SERVERS_MOST, sizeof *k->tickets);
	k->rotate = event_new(k->proc.base, -1, EV_PERSIST, rotate, k);
	if (k->tickets == NULL || k->rotate == NULL || event_add(k->rotate, &hour) != 0)
		return ENOMEM;
	rotate(-1, 0, k);
	return 0;
}
