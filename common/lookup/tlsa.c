#include "lookup/lookup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tlsa_set *tlsa_hold(struct tlsa_set *s)
{
	if (s != NULL)
		s->users++;
	return s;
}

void tlsa_drop(struct tlsa_set *s)
{
	if (s != NULL && --s->users == 0)
		free(s);
}

/* DANE-TA and DANE-EE with what can be compared (RFC 7672 3.1, 3.1.3). */
static bool is_usable(const struct dns_tlsa *t)
{
	size_t length = t->matching == 1 ? 32 : t->matching == 2 ? 64 : t->data.n;
	return (t->usage == 2 || t->usage == 3) && t->selector <= 1 && t->matching <= 2 && t->data.n == length;
}

struct tlsa_set *tlsa_make(struct span records, const char *base, unsigned *all, unsigned *usable)
{
	struct tlsa_set *set = calloc(1, sizeof *set + records.n);
	struct dns_tlsa t;
	*all = *usable = 0;
	if (set == NULL)
		return NULL;
	for (struct span before = records; dns_take_tlsa(&records, &t); before = records, ++*all) {
		if (!is_usable(&t))
			continue;
		memcpy(set->records + set->n, before.at, before.n - records.n);
		set->n += before.n - records.n;
		++*usable;
	}
	set->users = 1;
	set->usable = *usable > 0;
	(void)snprintf(set->base, sizeof set->base, "%s", base);
	return set;
}
