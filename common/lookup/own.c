#include "lookup/lookup.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdio.h>
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
	struct listen_walk w = {0};
	struct endpoint e;
	unsigned char addr[16], own[16];
	if (sockaddr_to_v6(sa, addr) != 0)
		return false;
	uint16_t port = ntohs(sa->sa_family == AF_INET ? ((const struct sockaddr_in *)sa)->sin_port : ((const struct sockaddr_in6 *)sa)->sin6_port);
	while (server_listen_next(s, &w, &e)) {
		if (e.port != port)
			continue;
		if (e.any ? listed(o, addr) : sockaddr_to_v6((const struct sockaddr *)&e.addr, own) == 0 && memcmp(own, addr, sizeof own) == 0)
			return true;
	}
	return false;
}

/* ---- gateways ---- */

struct gateway_search {
	const struct config *config;
	void (*say)(void *context, const char *text);
	void *context;
};

static void warn_of(const struct gateway_search *g, const struct sockaddr *sa, const char *text)
{
	for (size_t i = 0; i < g->config->servers_n; i++) {
		const struct server *s = &g->config->servers[i];
		struct client_list list = {0};
		struct span bad;
		char line[300];
		if (s->p.relay == 1 || client_list_parse(span_of(s->p.relay_exceptions), &list, &bad) != 0)
			continue;
		(void)snprintf(line, sizeof line, "server %s: relay_exceptions let %s relay, the gateway of this machine: who comes through it, maybe the whole world, relays too; name the clients that are meant",
			s->name, text);
		if (client_list_has(&list, sa))
			g->say(g->context, line);
		client_list_free(&list);
	}
}

/* A line of /proc/net/route: the numbers are the addresses' bytes as this machine reads them. */
static void look_at_v4(const struct gateway_search *g, struct span line)
{
	char copy[300], text[INET_ADDRSTRLEN];
	unsigned destination, gateway, flags;
	(void)snprintf(copy, sizeof copy, "%.*s", SPAN_ARG(line));
	if (sscanf(copy, "%*s %x %x %x", &destination, &gateway, &flags) != 3 || destination != 0 || gateway == 0) /* NOLINT(cert-err34-c) */
		return;
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {gateway}};
	warn_of(g, (struct sockaddr *)&sa, inet_ntop(AF_INET, &sa.sin_addr, text, sizeof text));
}

/* A line of /proc/net/ipv6_route: destination, its length, source, its length, next hop. */
static void look_at_v6(const struct gateway_search *g, struct span line)
{
	struct span words[5];
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6};
	char text[INET6_ADDRSTRLEN];
	for (size_t i = 0; i < COUNT_OF(words); i++)
		words[i] = span_word(&line, " ");
	if (!span_is(words[1], "00") || words[4].n != 32)
		return;
	for (size_t i = 0; i < 16; i++) {
		char pair[3] = {words[4].at[2 * i], words[4].at[2 * i + 1]};
		sa.sin6_addr.s6_addr[i] = (unsigned char)strtoul(pair, NULL, 16);
	}
	if (!IN6_IS_ADDR_UNSPECIFIED(&sa.sin6_addr))
		warn_of(g, (struct sockaddr *)&sa, inet_ntop(AF_INET6, &sa.sin6_addr, text, sizeof text));
}

void own_warn_of_gateways(const struct config *c, void (*say)(void *, const char *), void *context)
{
	static const struct { const char *path; void (*look)(const struct gateway_search *, struct span); } files[] = {
		{"/proc/net/route", look_at_v4}, {"/proc/net/ipv6_route", look_at_v6}};
	struct gateway_search g = {c, say, context};
	char line[300];
	for (size_t i = 0; i < COUNT_OF(files); i++) {
		FILE *f = fopen(files[i].path, "re");
		while (f != NULL && fgets(line, sizeof line, f) != NULL)
			files[i].look(&g, span_of(line));
		if (f != NULL)
			(void)fclose(f);
	}
}
