/* resolver: the only process that asks the DNS.
 * User: posthorn-dns.
 * May: UDP; TCP to port 53 and the ports that dns_servers names.
 * Never: open a file after its start, see the queue. */
#include "resolver.h"

#include <stdlib.h>
#include <sysexits.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct resolver resolver;
static const struct confinement rights = {.user_suffix = "dns", .calls = CALLS_SOCKET | CALLS_CONNECT, .connects = true, .files = 8192};

static void peer_gone(struct channel *ch, int reason)
{
	(void)reason;
	resolver_forget(ch->program, ch);
}

static const struct channel_owner owner = {.handlers = {[MSG_dns_query] = resolver_on_query}, .gone = peer_gone};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct channel *ch = channel_make(p->base, fd, R_RESOLVER, role, &owner, p->program);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
}

int main(void)
{
	struct complaint why;
	struct resolver *r = &resolver;
	struct port_list ports = {0};
	if (proc_begin(&r->proc, R_RESOLVER, &why) != 0)
		return proc_fail(&r->proc, EX_CONFIG, &why);
	r->proc.program = r;
	r->proc.linked = linked;
	if (dns_context_make(r->proc.base, r->proc.config.service.dns_servers, r->proc.config.service.dns_trust_anchor_file, &r->context, &ports, &why) != 0)
		return proc_fail(&r->proc, EX_CONFIG, &why);
	int error = proc_confine(&r->proc, &rights, NULL, 0, &ports, &why);
	free(ports.ports);
	if (error != 0)
		return proc_fail(&r->proc, EX_OSERR, &why);
	return proc_run(&r->proc);
}
