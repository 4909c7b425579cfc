/* sts: fetches the MTA-STS policies of other domains and keeps them; counts how TLS goes with their servers and
 * reports it; fetches what authorities say of our own certificates.
 * User: posthorn-out.
 * May: connect by TCP to ports 443 and 80; write below spool_directory/sts; where tls_report = yes, in setgid_group, put reports into maildrop.
 * Never: look a name up itself, open another file after its start, see the queue. */
#include "reports.h"

#include <fcntl.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct sts_agent agent;
static struct report report;
static const struct confinement rights = {.user_suffix = "out", .calls = CALLS_SOCKET | CALLS_CONNECT | CALLS_POLL | CALLS_FILES | CALLS_WRITE | CALLS_RENAME, .connects = true, .files = 1024};
enum { AUTHORITIES_MOST = 16 * 1024 * 1024 };

static void peer_gone(struct channel *ch, int reason)
{
	struct sts_agent *a = ch->program;
	(void)reason;
	struct channel **p = &a->workers;
	if (ch == a->resolver) {
		a->resolver = NULL;
		check_resolver_gone(a);
	}
	if (ch == a->keyd)
		a->keyd = NULL;
	while (*p != NULL && *p != ch)
		p = &(*p)->next;
	if (*p != NULL)
		*p = ch->next;
	domain_asker_gone(a, ch);
}

static const struct channel_owner owner = {.handlers = {[MSG_sts_query] = domain_on_query, [MSG_tls_result] = tally_on_result, [MSG_key_offer] = status_on_offer, [MSG_key_offers_end] = status_on_offers_end, [MSG_dns_answer] = check_on_answer}, .gone = peer_gone};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct sts_agent *a = p->program;
	struct channel *ch = channel_make(p->base, fd, R_STS, role, &owner, a);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	if (role == R_SMTPD) {
		ch->next = a->workers;
		a->workers = ch;
		status_tell(a, ch);
	}
	if (role == R_KEYD)
		status_keyd_new(a);
	if (role != R_RESOLVER && role != R_KEYD)
		return;
	struct channel **place = role == R_KEYD ? &a->keyd : &a->resolver, *old = *place;
	if (old != NULL) /* its successor came before the word that it is gone */
		peer_gone(old, 0);
	channel_close(old);
	*place = ch;
}

/* The first server with the same file: its text is there once. */
uint32_t authorities_of(const struct sts_agent *a, uint32_t server)
{
	uint32_t first = 0;
	while (strcmp(a->authorities[first].path, a->authorities[server].path) != 0)
		first++;
	return first;
}

static int name_authorities(struct sts_agent *a, uint32_t i)
{
	a->authorities[i].path = strdup(a->proc.config.servers[i].p.outbound_tls_ca_file);
	return a->authorities[i].path == NULL ? ENOMEM : 0;
}

/* A server that is new and has the authorities of another. */
static void name_new_authorities(struct sts_agent *a)
{
	for (uint32_t i = 0; i < a->proc.config.servers_n; i++)
		if (a->authorities[i].path == NULL && name_authorities(a, i) != 0)
			a->authorities[i].path = a->authorities[0].path;
}

/* Once confined no file can be opened: a reload that names another has this process replaced. */
static int read_authorities(struct sts_agent *a, struct complaint *why)
{
	const struct config *c = &a->proc.config;
	a->authorities = calloc(SERVERS_MOST, sizeof *a->authorities);
	for (uint32_t i = 0; a->authorities != NULL && i < c->servers_n && name_authorities(a, i) == 0; i++) {
		buffer_init(&a->authorities[i].pem, AUTHORITIES_MOST);
		if (authorities_of(a, i) == i && read_file_at(AT_FDCWD, a->authorities[i].path, AUTHORITIES_MOST, &a->authorities[i].pem) != 0)
			buffer_free(&a->authorities[i].pem); /* no policy can be fetched then, which is said for each */
		if (i + 1 == c->servers_n)
			return 0;
	}
	complain(why, "sts", 0, "not enough memory");
	return ENOMEM;
}

/* OpenSSL reads its configuration at the first use. */
static void warm_up(void)
{
	SSL_CTX *c = SSL_CTX_new(TLS_client_method());
	SSL_CTX_free(c);
}

static void sweep(int fd, short what, void *context)
{
	struct sts_agent *a = context;
	(void)fd;
	(void)what;
	domain_sweep(a);
	status_sweep(a);
	tallies_write(a);
	reports_due(a);
}

static void next_report(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	reports_due(context);
}

static void stop(struct process *p, uint32_t grace_ms)
{
	(void)grace_ms;
	tallies_write(p->program);
	proc_done(p);
}

static void reloaded(struct process *p, const struct config *old)
{
	(void)old;
	name_new_authorities(p->program);
}

/* Two of spool_directory; maildrop is there only where reports are sent. */
static int confine(struct sts_agent *a, const struct port_list *ports, struct complaint *why)
{
	const struct path_rule paths[] = {{.dir_fd = a->dir_fd, .rights = PATH_READ | PATH_WRITE}, {.dir_fd = a->maildrop_fd, .rights = PATH_WRITE}};
	struct confinement wanted = rights;
	wanted.in_setgid_group = a->maildrop_fd >= 0;
	return proc_confine(&a->proc, &wanted, paths, a->maildrop_fd >= 0 ? 2 : 1, ports, why);
}

static int make_timers(struct sts_agent *a)
{
	static const struct timeval every = {.tv_sec = SWEEP_S}, soon = {.tv_sec = 1};
	uint32_t lot = 0;
	(void)!fill_random(&lot, sizeof lot);
	a->report_spread_s = lot % SPREAD_S;
	a->sweep = event_new(a->proc.base, -1, EV_PERSIST, sweep, a);
	a->report_next = event_new(a->proc.base, -1, 0, next_report, a);
	return a->sweep == NULL || a->report_next == NULL || event_add(a->sweep, &every) != 0 || event_add(a->report_next, &soon) != 0 ? ENOMEM : 0;
}

int main(void)
{
	struct complaint why;
	struct sts_agent *a = &agent;
	struct port_list ports = {0};
	if (proc_begin(&a->proc, R_STS, &why) != 0)
		return proc_fail(&a->proc, EX_CONFIG, &why);
	a->proc.program = a;
	a->proc.linked = linked;
	a->dir_fd = proc_fd(&a->proc, "sts");
	warm_up();
	a->maildrop_fd = proc_fd(&a->proc, "maildrop");
	a->report = &report;
	report.agent = a;
	a->proc.stop = stop;
	a->proc.reloaded = reloaded;
	int error = read_authorities(a, &why);
	if (error == 0)
		error = fetch_setup(a, &why);
	if (error == 0 && (make_timers(a) != 0 || port_list_add(&ports, HTTPS_PORT) != 0 || port_list_add(&ports, HTTP_PORT) != 0)) {
		complain(&why, "sts", 0, "not enough memory");
		error = ENOMEM;
	}
	if (error == 0)
		error = confine(a, &ports, &why);
	free(ports.ports);
	if (error != 0)
		return proc_fail(&a->proc, EX_OSERR, &why);
	store_read_all(a);
	tallies_read(a);
	return proc_run(&a->proc);
}
