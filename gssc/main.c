/* gssc: logs in at other servers by Kerberos and NTLM; there only where outbound_auth = integrated.
 * User: posthorn-gssc.
 * May: connect by TCP to port 88 and those that krb5.conf gives to KDCs; read /etc, where KRB5_CONFIG is, and spool_directory/gssc; talk to authd,
 * the resolver and the log.
 * Never: look a name up itself, write a file once it runs. */
#include "gssc.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct gssc gssc;
static const struct confinement rights = {.user_suffix = "gssc", .calls = CALLS_SOCKET | CALLS_CONNECT | CALLS_FILES, .connects = true, .files = 8192};

static void peer_gone(struct channel *ch, int reason)
{
	struct gssc *g = ch->program;
	(void)reason;
	if (ch == g->resolver) {
		kdc_resolver_gone(g);
	} else if (ch == g->authd) {
		g->authd = NULL;
		talk_end_all(g);
	}
}

static const struct channel_owner owner = {.handlers = {[MSG_gssc_begin] = talk_on_begin, [MSG_gssc_step] = talk_on_step, [MSG_gssc_end] = talk_on_end, [MSG_dns_answer] = kdc_on_dns}, .gone = peer_gone};

/* What master's user may read is not always what this one may. */
static void tell(struct gssc *g)
{
	char files[PATH_MAX], *rest = files, *file;
	(void)snprintf(files, sizeof files, "%s", g->krb5_config);
	while ((file = strsep(&rest, ":")) != NULL)
		if (file[0] != '\0' && access(file, R_OK) != 0)
			LOG(&g->proc.log, krb5_unreadable, NO_ID, F("file", span_of(file)), F("reason", span_of(strerror(errno))));
	if (g->krb5 == NULL)
		LOG(&g->proc.log, no_kerberos, NO_ID);
	if (!g->has_ntlm)
		LOG(&g->proc.log, no_ntlm, NO_ID);
	g->told = true;
}

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct gssc *g = p->program;
	struct channel *ch = channel_make(p->base, fd, R_GSSC, role, &owner, g);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	struct channel **place = role == R_RESOLVER ? &g->resolver : &g->authd, *old = *place;
	if (old != NULL) /* its successor came before the word that it is gone */
		peer_gone(old, 0);
	channel_close(old);
	*place = ch;
	if (role == R_AUTHD && !g->told) /* the log is there by then */
		tell(g);
}

static int confine(struct gssc *g, const char *krb5, struct complaint *why)
{
	struct path_rule paths[1 + GSS_DIRS_MOST] = {{.dir_fd = g->dir_fd, .rights = PATH_READ}};
	struct port_list ports = {0};
	int fds[GSS_DIRS_MOST];
	size_t n = gss_open_dirs(krb5, fds);
	for (size_t i = 0; i < n; i++)
		paths[1 + i] = (struct path_rule){.dir_fd = fds[i], .rights = PATH_READ};
	int error = kdc_ports(g, &ports);
	if (error == 0)
		error = proc_confine(&g->proc, &rights, paths, 1 + n, &ports, why);
	else
		complain(why, "gssc", 0, "cannot start: %s", strerror(error));
	free(ports.ports);
	return error;
}

int main(void)
{
	struct complaint why;
	struct gssc *g = &gssc;
	const char *krb5 = getenv("KRB5_CONFIG"); /* the administrator's, before ours */
	if (proc_begin(&g->proc, R_GSSC, &why) != 0)
		return proc_fail(&g->proc, EX_CONFIG, &why);
	g->proc.program = g;
	g->proc.linked = linked;
	(void)snprintf(g->krb5_config, sizeof g->krb5_config, "%s", krb5 == NULL ? "" : krb5);
	g->dir_fd = proc_fd(&g->proc, "gssc");
	int error = fchdir(g->dir_fd) != 0 ? errno : kerberos_setup(g);
	if (error == 0)
		error = talk_setup(g);
	if (error != 0) {
		complain(&why, "gssc", 0, "cannot start: %s", strerror(error));
		return proc_fail(&g->proc, EX_OSERR, &why);
	}
	if (confine(g, krb5, &why) != 0)
		return proc_fail(&g->proc, EX_OSERR, &why);
	return proc_run(&g->proc);
}
