#include "lookup/lookup_private.h"
#include "smtp/smtp.h"

#include <stdio.h>
#include <stdlib.h>

size_t lookup_keep_named(struct lookup *l, struct span mx)
{
	size_t kept = 0;
	for (size_t i = 0; i < l->hosts_n; i++)
		if (sts_names_host(mx, span_of(l->hosts[i].name)))
			l->hosts[kept++] = l->hosts[i];
	return kept;
}

static int add_step(struct lookup *l, const struct nexthop *h, uint32_t group, bool fallback)
{
	struct lookup_step *s = &l->steps[l->steps_n];
	if (l->steps_n == LOOKUP_STEPS_MOST)
		return E2BIG;
	*s = (struct lookup_step){.hop = *h, .group = group, .fallback = fallback};
	(void)!fill_random(&s->order, sizeof s->order);
	(void)snprintf(s->name, sizeof s->name, "%.*s", SPAN_ARG(h->name));
	l->steps_n++;
	return 0;
}

static int compare_steps(const void *x, const void *y)
{
	const struct lookup_step *a = x, *b = y;
	if (a->group != b->group)
		return a->group < b->group ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

/* "a | b, c": a and b are equal, in an order drawn by lot; then c. */
static int read_steps(struct lookup *l, struct span text, uint32_t group, bool fallback)
{
	struct nexthop h;
	bool equal, bad = false;
	int error = 0;
	while (error == 0 && nexthop_next(&text, &h, &equal, &bad)) {
		group += !equal;
		error = add_step(l, &h, group, fallback);
	}
	return bad ? EINVAL : error;
}

int lookup_read_route(struct lookup *l, struct span route)
{
	struct span rest = route;
	struct span first = span_until(&rest, ';');
	char ascii[256];
	if (!text_is_ascii(first)) { /* a recipient's domain in Unicode: the DNS knows its A-labels */
		if (domain_to_ascii(first, ascii) != 0)
			return EINVAL;
		first = span_of(ascii);
	}
	struct sockaddr_storage sa;
	socklen_t n;
	int error;
	if (first.n > 0 && first.at[0] == '[' && first.at[first.n - 1] == ']' && literal_to_sockaddr(first, 1, &sa, &n) == 0) {
		struct nexthop h = {.kind = NEXTHOP_ADDRESS, .name = {first.at + 1, first.n - 2}}; /* also [IPv6:...] of a recipient */
		error = add_step(l, &h, 0, false);
	} else {
		error = read_steps(l, first, 0, false);
	}
	if (error == 0)
		error = read_steps(l, rest, LOOKUP_STEPS_MOST, true);
	qsort(l->steps, l->steps_n, sizeof *l->steps, compare_steps);
	return error;
}
