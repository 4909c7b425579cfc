/* Servers keep their numbers while the service runs: processes, sessions and messages between them go by number. */
#include "params/params.h"

#include <string.h>

int config_place(struct config *c, char *const *names, size_t n)
{
	struct server *placed = arena_alloc(&c->arena, (n + c->servers_n + 1) * sizeof *placed);
	size_t placed_n = 0;
	if (placed == NULL)
		return ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct server *s = config_server(c, span_of(names[i]));
		placed[placed_n++] = s != NULL ? *s : (struct server){.name = arena_dup(&c->arena, span_of(names[i])), .gone = true};
	}
	for (size_t k = 0; k < c->servers_n; k++) {
		size_t i = 0;
		while (i < n && strcmp(names[i], c->servers[k].name) != 0)
			i++;
		if (i == n)
			placed[placed_n++] = c->servers[k];
	}
	if (placed_n > SERVERS_MOST)
		return E2BIG;
	c->servers = placed;
	c->servers_n = placed_n;
	return c->arena.failed ? ENOMEM : 0;
}

const struct server *config_main_server(const struct config *c)
{
	const struct server *s = config_server(c, SPAN_LIT("default"));
	for (size_t i = 0; i < c->servers_n && (s == NULL || s->gone); i++)
		s = &c->servers[i];
	return s;
}
