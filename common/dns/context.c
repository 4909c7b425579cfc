#include "dns/context.h"
#include "dns/dns.h"

#include <errno.h>
#include <unbound-event.h>

static int set_option(struct ub_ctx *c, const char *name, const char *value, struct complaint *why)
{
	int error = ub_ctx_set_option(c, name, value);
	if (error != 0)
		complain(why, "resolver", 0, "%s %s: %s", name, value, ub_strerror(error));
	return error;
}

static int add_server_port(struct port_list *ports, struct span server)
{
	uint64_t port = 53;
	(void)span_until(&server, '@');
	if (server.n > 0 && parse_u64(server, 65535, &port) != 0)
		return EINVAL;
	return port_list_add(ports, (uint16_t)port);
}

static int set_servers(struct ub_ctx *c, const char *servers, struct port_list *ports, struct complaint *why)
{
	struct span rest = span_of(servers);
	bool any = false;
	for (;;) {
		struct span word = span_word(&rest, " \t,");
		char text[100];
		if (word.n == 0)
			break;
		any = true;
		(void)snprintf(text, sizeof text, "%.*s", SPAN_ARG(word));
		int error = ub_ctx_set_fwd(c, text);
		if (error != 0) {
			complain(why, "dns_servers", 0, "'%s': %s (write ADDR or ADDR@PORT)", text, ub_strerror(error));
			return error;
		}
		if (add_server_port(ports, word) != 0) {
			complain(why, "dns_servers", 0, "'%s': the port is not good", text);
			return EINVAL;
		}
	}
	if (!any) {
		(void)ub_ctx_resolvconf(c, NULL); /* none there: libunbound asks the roots */
		(void)ub_ctx_hosts(c, NULL);
	}
	return port_list_add(ports, 53);
}

static void ignore_answer(void *context, int rcode, void *packet, int n, int sec, char *why_bogus, int was_ratelimited)
{
	(void)context;
	(void)rcode;
	(void)packet;
	(void)n;
	(void)sec;
	(void)why_bogus;
	(void)was_ratelimited;
}

int dns_context_make(struct event_base *base, const char *servers, const char *anchors, struct ub_ctx **out, struct port_list *ports, struct complaint *why)
{
	static const struct { const char *name, *value; } options[] = {
		{"msg-cache-size:", "8m"}, {"rrset-cache-size:", "16m"}, {"outgoing-range:", "1024"}, {"num-queries-per-thread:", "512"},
		{"cache-max-ttl:", "86400"}, {"cache-max-negative-ttl:", "300"}, {"infra-cache-max-rtt:", "1000"},
		{"outbound-msg-retry:", "2"}, {"infra-host-ttl:", "60"}, {"do-not-query-localhost:", "no"}, {"use-syslog:", "no"},
		{"unblock-lan-zones:", "yes"}, /* names of private addresses: the administrator's servers know them */
	};
	struct ub_ctx *c = *out = ub_ctx_create_event(base);
	if (c == NULL) {
		complain(why, "resolver", 0, "not enough memory");
		return ENOMEM;
	}
	(void)ub_ctx_debuglevel(c, 0);
	for (size_t i = 0; i < COUNT_OF(options); i++)
		if (set_option(c, options[i].name, options[i].value, why) != 0)
			return EINVAL;
	if (anchors[0] != '\0' && ub_ctx_add_ta_file(c, anchors) != 0) {
		complain(why, "dns_trust_anchor_file", 0, "cannot read %s", anchors);
		return EINVAL;
	}
	if (set_servers(c, servers, ports, why) != 0)
		return EINVAL;
	/* files are opened at the first question: asked before the confinement, answered from a local zone */
	int id;
	int error = ub_resolve_event(c, "localhost", DNS_A, 1, NULL, ignore_answer, &id);
	if (error != 0)
		complain(why, "resolver", 0, "%s", ub_strerror(error));
	return error == 0 ? 0 : EINVAL;
}
