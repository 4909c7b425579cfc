/* smtp: delivers the messages that qmgr hands to it.
 * User: posthorn-out.
 * May: connect by TCP to the ports of routes, smart hosts, LMTP and outbound_port, to sockets of this machine where lmtp:unix: is configured; read bodies handed to it as descriptors.
 * Never: open a file, listen. */
#include "smtp_agent.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct agent agent;
static const struct confinement rights = {.user_suffix = "out", .calls = CALLS_SOCKET | CALLS_CONNECT | CALLS_MEMFD, .connects = true, .files = 8192};

static void peer_gone(struct channel *ch, int reason)
{
	struct agent *a = ch->program;
	(void)reason;
	if (ch == a->resolver) {
		a->resolver = NULL;
		hop_resolver_gone(a, false);
	}
	if (ch == a->sts) {
		a->sts = NULL;
		hop_resolver_gone(a, true);
		return;
	}
	if (ch == a->authd) {
		auth_gone(a);
		return;
	}
	for (struct job *j = a->jobs; j != NULL; j = j->next_all)
		if (j->qmgr == ch)
			j->qmgr = NULL; /* the verdict waits for the next qmgr */
}

static const struct channel_owner owner = {
	.handlers = {[MSG_deliver] = job_on_deliver, [MSG_content_part] = job_on_part, [MSG_confirm] = job_on_confirm,
		[MSG_dns_answer] = hop_on_answer, [MSG_turned] = turn_on_turned, [MSG_prove_answer] = auth_on_answer, [MSG_sts_answer] = hop_on_policy},
	.gone = peer_gone,
};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct agent *a = p->program;
	struct channel *ch = channel_make(p->base, fd, R_SMTP, role, &owner, a);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	struct channel **place = role == R_RESOLVER ? &a->resolver : role == R_AUTHD ? &a->authd : role == R_STS ? &a->sts : NULL;
	if (place != NULL) {
		struct channel *old = *place;
		if (old != NULL) /* its successor came before the word that it is gone */
			peer_gone(old, 0);
		channel_close(old);
		*place = ch;
	} else {
		job_tell_again(a, ch, server);
	}
}

static void on_grace_over(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	proc_done(context);
}

/* Transactions under way get their time, what has not begun is left; what is not confirmed then is tried again after the
 * next start. */
static void stop(struct process *p, uint32_t grace_ms)
{
	struct agent *a = p->program;
	struct timeval tv = {.tv_sec = grace_ms / 1000};
	if (a->stopping)
		return;
	a->stopping = true;
	a->stopped = event_new(p->base, -1, 0, on_grace_over, p);
	if (a->stopped == NULL) {
		proc_done(p);
		return;
	}
	(void)event_base_once(p->base, -1, EV_TIMEOUT, on_grace_over, p, &tv);
	job_stop_if_idle(a);
}

static void reloaded(struct process *p, const struct config *old)
{
	(void)old;
	(void)!policy_make_contexts(p->program);
	slot_new_policy(p->program);
}

int main(void)
{
	struct complaint why;
	struct agent *a = &agent;
	struct port_list ports = {0};
	if (proc_begin(&a->proc, R_SMTP, &why) != 0)
		return proc_fail(&a->proc, EX_CONFIG, &why);
	a->proc.program = a;
	a->proc.linked = linked;
	a->proc.stop = stop;
	a->proc.reloaded = reloaded;
	a->shares = calloc(SERVERS_MOST, sizeof *a->shares);
	int error = a->shares == NULL || policy_make_contexts(a) != 0 ? ENOMEM : config_ports(&a->proc.config, &ports);
	if (error == 0)
		error = own_read(&a->own);
	struct confinement wanted = rights;
	if (config_uses_unix_lmtp(&a->proc.config))
		wanted.calls |= CALLS_UNIX;
	if (error == 0)
		error = proc_confine(&a->proc, &wanted, NULL, 0, &ports, &why);
	free(ports.ports);
	if (error != 0)
		return proc_fail(&a->proc, EX_OSERR, &why);
	return proc_run(&a->proc);
}
