/* A next hop without an address: a connection that the peer has made and turned round (RFC 2645). */
#include "smtp_agent.h"

#include <string.h>
#include <unistd.h>

enum { TAKE_S = 30 }; /* the first message for it comes at once, or not at all */

static const char prefix[] = "turn:";

bool turn_is(struct span nexthop)
{
	return nexthop.n > sizeof prefix - 1 && memcmp(nexthop.at, prefix, sizeof prefix - 1) == 0;
}

static void give_back(struct hop *h)
{
	int fd = h->turned_fd;
	h->turned_fd = -1;
	if (h->turned_timer != NULL)
		event_free(h->turned_timer);
	h->turned_timer = NULL;
	if (fd >= 0)
		(void)close(fd);
	hop_release(h->agent, h);
}

static void on_unwanted(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	give_back(context);
}

int turn_on_turned(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, turned, turned);
	struct agent *a = ch->program;
	struct timeval tv = {.tv_sec = TAKE_S};
	if (m->fds_n != 1 || !turn_is(turned.nexthop))
		return EBADMSG;
	struct hop *h = hop_get(a, ch->server, turned.nexthop, turned.domain);
	if (h == NULL)
		return ENOMEM;
	h->turned_fd = m->fds[0];
	m->fds[0] = -1;
	h->turned_tls = turned.tls != 0;
	(void)snprintf(h->turned_peer, sizeof h->turned_peer, "%.*s", SPAN_ARG(turned.peer));
	h->turned_timer = event_new(a->proc.base, -1, 0, on_unwanted, h);
	if (h->turned_timer == NULL || event_add(h->turned_timer, &tv) != 0)
		give_back(h);
	return 0;
}

static void is_over(struct job *j)
{
	job_set_all(j, OUTCOME_DEFERRED, 0, SPAN_LIT("4.4.2"), SPAN_LIT("the connection that was turned round (ATRN) has ended"));
	job_finish(j, false);
}

void turn_start(struct job *j)
{
	struct hop *h = j->hop;
	if (h->turned_fd < 0 && h->conns == 0) {
		is_over(j);
	} else if (slot_take(j)) {
		int fd = h->turned_fd;
		h->turned_fd = -1;
		if (fd < 0) {
			is_over(j);
			return;
		}
		h->users++; /* while its own hold is given back */
		give_back(h);
		conn_adopt(j, fd);
		hop_release(j->agent, h);
	}
}
