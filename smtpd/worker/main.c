/* smtpd: speaks SMTP with clients that front hands over.
 * User: posthorn-in.
 * May: read and write its sessions' sockets; make pairs of sockets (ATRN); talk to front, authd, keyd, cleanup, mover, qmgr, maps, resolver, logd.
 * Never: open a file after its start, connect, see another session's mail, have a private key. */
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct worker worker;
static const struct confinement rights = {.user_suffix = "in", .calls = CALLS_SOCKET | CALLS_PAIR, .files = 65536};

static int on_session_open(struct channel *c, struct message *m)
{
	HANDLE(c, m, session_open, open);
	if (m->fds_n != 1)
		return EBADMSG;
	int fd = m->fds[0];
	m->fds[0] = -1;
	session_open(c->program, &open, fd);
	return 0;
}

static void peer_gone(struct channel *c, int reason)
{
	struct worker *w = c->program;
	(void)reason;
	if (c == w->front) {
		w->front = NULL;
		client_front_gone(w);
		return;
	}
	if (c == w->resolver) {
		w->resolver = NULL;
		return;
	}
	if (c == w->authd) {
		auth_gone(w);
		return;
	}
	if (c == w->keyd) {
		w->keyd = NULL; /* its successor is asked for what it owes */
		return;
	}
	if (c == w->sts) {
		w->sts = NULL; /* what it said holds on */
		return;
	}
	if (c == w->maps) {
		w->maps = NULL;
		return;
	}
	struct worker_server *s = &w->servers[c->server];
	if (s->cleanup == c)
		s->cleanup = NULL;
	if (s->qmgr == c) {
		s->qmgr = NULL;
		turn_qmgr_gone(w, c->server);
	}
	if (s->mover == c) {
		submit_mover_gone(w, c);
		s->mover = NULL;
	}
}

enum { RETIREMENT_GRACE_MS = 10000 };

static void on_grace_over(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	proc_done(&((struct worker *)context)->proc);
}

static void stop(struct process *p, uint32_t grace_ms)
{
	struct worker *w = p->program;
	struct timeval tv = {.tv_sec = grace_ms / 1000, .tv_usec = (suseconds_t)(grace_ms % 1000 * 1000)};
	if (w->stopping)
		return;
	if (w->sessions_n == 0) {
		proc_done(p);
		return;
	}
	w->stopping = true;
	(void)event_add(w->grace, &tv);
	for (uint32_t i = 0; i < w->proc.config.servers_n; i++)
		worker_end_sessions(w, i);
}

static void on_retirement_over(int fd, short what, void *context)
{
	struct worker *w = context;
	(void)fd;
	(void)what;
	stop(&w->proc, RETIREMENT_GRACE_MS);
}

/* Its successor is there: what it has goes on until it is over. */
static int on_retire(struct channel *c, struct message *m)
{
	HANDLE(c, m, worker_retire, said);
	struct worker *w = c->program;
	struct timeval tv = {.tv_sec = said.limit_ms / 1000, .tv_usec = (suseconds_t)(said.limit_ms % 1000 * 1000)};
	if (w->retiring)
		return 0;
	w->retiring = true;
	if (w->sessions_n == 0)
		proc_done(&w->proc);
	else
		(void)event_base_once(w->proc.base, -1, EV_TIMEOUT, on_retirement_over, w, &tv);
	return 0;
}

static const struct channel_owner owner = {
	.handlers = {[MSG_session_open] = on_session_open, [MSG_worker_retire] = on_retire, [MSG_submitted] = submit_on_submitted,
		[MSG_body_credit] = submit_on_credit, [MSG_body_done] = submit_on_body_done, [MSG_map_answer] = screen_on_answer,
		[MSG_rate_answer] = client_on_rate, [MSG_session_client_answer] = xclient_on_answer, [MSG_dns_answer] = client_on_answer,
		[MSG_auth_offer] = auth_on_offer, [MSG_auth_answer] = auth_on_answer, [MSG_turn_answer] = turn_on_answer,
		[MSG_key_offer] = keys_on_offer, [MSG_key_offers_end] = keys_on_offers_end, [MSG_ticket_keys] = keys_on_tickets, [MSG_signed] = keys_on_signed,
		[MSG_staple] = keys_on_staple},
	.gone = peer_gone,
};

static struct channel **place_of(struct worker *w, enum role role, uint32_t server)
{
	if (role == R_FRONT)
		return &w->front;
	if (role == R_MAPS)
		return &w->maps;
	if (role == R_RESOLVER)
		return &w->resolver;
	if (role == R_AUTHD)
		return &w->authd;
	if (role == R_KEYD)
		return &w->keyd;
	if (role == R_STS)
		return &w->sts;
	struct worker_server *s = &w->servers[server];
	return role == R_CLEANUP ? &s->cleanup : role == R_QMGR ? &s->qmgr : &s->mover;
}

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct worker *w = p->program;
	if (role != R_FRONT && role != R_MAPS && role != R_RESOLVER && role != R_AUTHD && role != R_KEYD && role != R_STS && server >= p->config.servers_n) {
		(void)close(fd);
		return;
	}
	struct channel *c = channel_make(p->base, fd, R_SMTPD, role, &owner, w);
	if (c == NULL)
		return;
	c->instance = instance;
	c->server = server;
	c->pid = pid;
	struct channel **place = place_of(w, role, server);
	struct channel *old = *place;
	if (old != NULL) { /* its successor came before the word that it is gone */
		channel_drain(old);
		peer_gone(old, 0);
	}
	channel_close(old);
	*place = c;
	if (role == R_FRONT)
		client_front_new(w);
	if (role == R_RESOLVER)
		client_ask_again(w);
	if (role == R_KEYD)
		keys_ask_again(w);
	if (role == R_CLEANUP)
		submit_all_again(w, server);
	if (role == R_MAPS)
		screen_ask_again(w);
}

static void reloaded(struct process *p, const struct config *old)
{
	(void)old;
	(void)!client_read_lists(p->program);
	keys_reload(p->program);
}

int main(void)
{
	struct complaint why;
	struct worker *w = &worker;
	if (proc_begin(&w->proc, R_SMTPD, &why) != 0)
		return proc_fail(&w->proc, EX_CONFIG, &why);
	w->proc.program = w;
	w->proc.linked = linked;
	w->proc.stop = stop;
	w->proc.reloaded = reloaded;
	proc_handle(&w->proc, MSG_server_state, worker_on_server_state);
	proc_handle(&w->proc, MSG_client_authorities, keys_on_authorities);
	(void)snprintf(w->ids.suffix, sizeof w->ids.suffix, "%.6s", w->proc.suffix);
	buffer_init(&w->envelope, 16 * 1024 * 1024);
	w->servers = calloc(SERVERS_MOST, sizeof *w->servers);
	w->sweep = event_new(w->proc.base, -1, EV_PERSIST, worker_sweep, w);
	w->grace = event_new(w->proc.base, -1, 0, on_grace_over, w);
	if (w->servers == NULL || w->sweep == NULL || w->grace == NULL || client_read_lists(w) != 0 || tls_use_signer(keys_sign) != 0) {
		complain(&why, "smtpd", 0, "not enough memory");
		return proc_fail(&w->proc, EX_OSERR, &why);
	}
	tzset();
	if (proc_confine(&w->proc, &rights, NULL, 0, NULL, &why) != 0)
		return proc_fail(&w->proc, EX_OSERR, &why);
	return proc_run(&w->proc);
}
