/* The first hop of a message: addresses get their domain, own domains are masked (MISSION D5, E1). */
#include "worker.h"

#include <string.h>

static bool is_own(const void *context, struct span domain)
{
	return route_domain_is_own(context, domain);
}

static void mask_sender(struct transaction *t, const struct server *s)
{
	struct address a;
	if (s->p.masquerade_domain[0] == '\0' || t->sender.n == 0 || address_parse(t->sender, ADDRESS_UTF8, &a) != 0 || !route_domain_is_own(s, a.domain))
		return;
	const char *masked = arena_printf(&t->arena, "%.*s@%s", SPAN_ARG(a.local), s->p.masquerade_domain);
	if (masked == NULL)
		t->no_memory = true;
	else
		t->sender = span_of(masked);
}

void hop_replace_header(struct session *s, size_t old, struct buffer *fresh)
{
	struct transaction *t = s->t;
	t->rewritten_bytes += (int64_t)fresh->n - (int64_t)old;
	buffer_put(fresh, t->content.at + old, t->content.n - old);
	if (!buffer_ok(fresh)) {
		t->no_memory = true;
		buffer_free(fresh);
		return;
	}
	s->worker->content_bytes += fresh->n;
	s->worker->content_bytes -= t->content.n;
	buffer_free(&t->content);
	t->content = *fresh;
}

/* A header that is longer than what is held in memory stays as it is. */
static void rewrite_content(struct session *s, const struct server *server)
{
	struct transaction *t = s->t;
	struct buffer fresh;
	struct rewrite r = {.default_domain = server->p.default_domain, .masquerade = server->p.masquerade_domain, .is_own = is_own, .context = server};
	buffer_init(&fresh, t->content.limit);
	(void)!buffer_reserve(&fresh, t->content.n < 2048 ? t->content.n : 2048); /* most headers at once */
	size_t old = rewrite_header(&fresh, buffer_span(&t->content), &r);
	if (fresh.n == old && buffer_ok(&fresh)) { /* nothing was added */
		if (old > 0)
			memcpy(t->content.at, fresh.at, old);
		buffer_free(&fresh);
		return;
	}
	hop_replace_header(s, old, &fresh);
}

void hop_rewrite(struct session *s)
{
	struct transaction *t = s->t;
	const struct server *server = &s->worker->proc.config.servers[s->server];
	if (t->rewritten)
		return;
	t->rewritten = true;
	if ((t->walk.received > 0 && !session_has_login(s)) || t->bad_chunk)
		return;
	mask_sender(t, server);
	if (!t->in_file && t->content.n > 0)
		rewrite_content(s, server);
}
