/* How many sessions clients have, and how fast they are. */
#include "front.h"

#include <stdlib.h>
#include <string.h>

void client_key(const struct sockaddr *sa, unsigned char out[16])
{
	static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	memset(out, 0, 16);
	if (sockaddr_to_v6(sa, out) == 0 && memcmp(out, mapped, 12) != 0)
		memset(out + 8, 0, 8); /* an IPv6 client owns its /64 */
}

static struct client_count **bucket_of(struct front *f, uint32_t server, const unsigned char key[16])
{
	uint32_t words[5] = {server};
	memcpy(words + 1, key, 16);
	return &f->clients[keyed_hash(&f->secret, words, COUNT_OF(words)) % CLIENT_BUCKETS];
}

static bool window_lives(const struct front *f, const struct client_count *c, enum rate_kind kind, int64_t now)
{
	const struct rate *r = &f->servers[c->server].rates[kind];
	return r->n != PARAM_UNLIMITED && c->rates[kind].n > 0 && now - c->rates[kind].start_ms < r->seconds * 1000;
}

static bool counts_still(const struct front *f, const struct client_count *c, int64_t now)
{
	return window_lives(f, c, RATE_CONNECTIONS, now) || window_lives(f, c, RATE_MESSAGES, now) || window_lives(f, c, RATE_RECIPIENTS, now);
}

static void leave_idle(struct front *f, struct client_count *c)
{
	*(c->older != NULL ? &c->older->newer : &f->oldest) = c->newer;
	*(c->newer != NULL ? &c->newer->older : &f->newest) = c->older;
	c->older = c->newer = NULL;
	f->idle_n--;
}

static void forget(struct front *f, struct client_count *c)
{
	struct client_count **p = bucket_of(f, c->server, c->addr);
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	free(c);
}

static void trim_idle(struct front *f, int64_t now)
{
	while (f->oldest != NULL) {
		struct client_count *c = f->oldest;
		bool counts = counts_still(f, c, now);
		if (counts && f->idle_n <= CLIENTS_IDLE_MOST)
			return;
		if (counts && now - f->forgot_ms >= 60000) {
			f->forgot_ms = now;
			LOG(&f->proc.log, clients_forgotten, NO_ID, F("server", span_of(f->proc.config.servers[c->server].name)));
		}
		leave_idle(f, c);
		forget(f, c);
	}
}

/* A client that may have no session any more. */
static void settle(struct front *f, struct client_count *c)
{
	int64_t now = clock_mono_ms();
	if (c->n > 0)
		return;
	if (!counts_still(f, c, now)) {
		forget(f, c);
		return;
	}
	c->older = f->newest;
	*(f->newest != NULL ? &f->newest->newer : &f->oldest) = c;
	f->newest = c;
	f->idle_n++;
	trim_idle(f, now);
}

static struct client_count *find(struct front *f, uint32_t server, const struct sockaddr *sa)
{
	unsigned char key[16];
	client_key(sa, key);
	struct client_count **bucket = bucket_of(f, server, key), *c = *bucket;
	while (c != NULL && (c->server != server || memcmp(c->addr, key, 16) != 0))
		c = c->next;
	if (c != NULL)
		return c;
	c = calloc(1, sizeof *c);
	if (c == NULL)
		return NULL;
	*c = (struct client_count){.server = server, .next = *bucket};
	memcpy(c->addr, key, 16);
	*bucket = c;
	return c;
}

bool client_is_over(struct front *f, struct client_count *c, enum rate_kind kind)
{
	int64_t now = clock_mono_ms();
	const struct rate *r = &f->servers[c->server].rates[kind];
	struct rate_window *w = &c->rates[kind];
	if (r->n == PARAM_UNLIMITED)
		return false;
	if (!window_lives(f, c, kind, now))
		*w = (struct rate_window){.start_ms = now};
	w->n++;
	return w->n > r->n;
}

struct client_count *client_enter(struct front *f, uint32_t server, const struct sockaddr *sa, enum reply *why, const char **limit)
{
	int64_t most = f->proc.config.servers[server].p.client_connection_limit;
	struct client_count *c = find(f, server, sa);
	*why = REPLY_COUNT;
	if (c == NULL) {
		*why = REPLY_TOO_MANY;
		*limit = "memory";
		return NULL;
	}
	if (c->n == 0 && (c->older != NULL || c->newer != NULL || f->oldest == c))
		leave_idle(f, c);
	if (client_is_over(f, c, RATE_CONNECTIONS)) {
		*why = REPLY_RATE_CONNECTIONS;
		*limit = "client_connection_rate";
	} else if ((int64_t)c->n >= most) {
		*why = REPLY_TOO_MANY;
		*limit = "client_connection_limit";
	}
	if (*why == REPLY_COUNT) {
		c->n++;
		return c;
	}
	settle(f, c);
	return NULL;
}

void client_leave(struct front *f, struct client_count *c)
{
	if (c == NULL)
		return;
	c->n--;
	settle(f, c);
}
