#include "lookup/lookup.h"

#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>

int own_read(struct own_addresses *o)
{
	struct ifaddrs *all = NULL;
	size_t n = 0;
	*o = (struct own_addresses){.n = 0};
	if (getifaddrs(&all) != 0)
		return errno;
	for (const struct ifaddrs *i = all; i != NULL; i = i->ifa_next)
		n++;
	o->list = calloc(n + 1, sizeof *o->list);
	for (const struct ifaddrs *i = all; o->list != NULL && i != NULL; i = i->ifa_next)
		if (i->ifa_addr != NULL && sockaddr_to_v6(i->ifa_addr, o->list[o->n].addr) == 0)
			o->n++;
	freeifaddrs(all);
	return o->list == NULL ? ENOMEM : 0;
}

static bool listed(const struct own_addresses *o, const unsigned char addr[16])
{
	for (size_t i = 0; i < o->n; i++)
		if (memcmp(o->list[i].addr, addr, 16) == 0)
			return true;
	return false;
}

bool own_has(const struct own_addresses *o, const struct server *s, const struct sockaddr *sa)
{
	struct span rest = span_of(s->p.listen);
	struct endpoint e;
	unsigned char addr[16], own[16];
	bool bad;
	if (sockaddr_to_v6(sa, addr) != 0)
		return false;
	uint16_t port = ntohs(sa->sa_family == AF_INET ? ((const struct sockaddr_in *)sa)->sin_port : ((const struct sockaddr_in6 *)sa)->sin6_port);
	while (listen_next(&rest, &e, &bad)) {
		if (e.port != port)
			continue;
		if (e.any ? listed(o, addr) : sockaddr_to_v6((const struct sockaddr *)&e.addr, own) == 0 && memcmp(own, addr, sizeof own) == 0)
			return true;
	}
	return false;
}
