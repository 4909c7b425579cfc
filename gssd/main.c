/* gssd: checks logins by Kerberos, NTLM and certificates; there only where a server has integrated in auth_methods and there are keys, or
 * external in auth_mechanisms_extra.
 * User: posthorn-gss.
 * May: read /etc, where KRB5_CONFIG and auth_ntlm_file are; write below spool_directory/gss; with auth_ntlm_file ask winbindd by its socket; talk to authd
 * and the log.
 * Never: use the network, say more than who logs in. */
#include "gssd.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct gssd gssd;
static const struct confinement rights = {.user_suffix = "gss", .calls = CALLS_FILES | CALLS_WRITE, .files = 1024};

static void authd_gone(struct channel *ch, int reason)
{
	struct gssd *g = ch->program;
	(void)reason;
	if (g->authd != ch)
		return;
	g->authd = NULL;
	talk_end_all(g);
}

static void put_words(struct buffer *b, uint32_t offers)
{
#define MECHANISM(name, bit, word) if ((offers & 1u << (bit)) != 0) buffer_printf(b, "%s%s", b->n > 0 ? " " : "", word);
	MECHANISMS(MECHANISM)
#undef MECHANISM
}

static void offer(struct gssd *g)
{
	struct buffer words;
	buffer_init(&words, 200);
	for (uint32_t i = 0; i < g->proc.config.servers_n; i++) {
		buffer_clear(&words);
		put_words(&words, g->offers[i]);
		send_gss_offer(g->authd, (struct msg_gss_offer){.server = i, .mechanisms = g->offers[i]}, -1);
		if (g->offers[i] != 0)
			LOG(&g->proc.log, keys, NO_ID, F("server", span_of(g->proc.config.servers[i].name)), F("mechanisms", buffer_span(&words)));
	}
	for (size_t i = 0; i < COUNT_OF(g->fault); i++)
		if (g->fault[i][0] != '\0')
			LOG(&g->proc.log, no_keys, NO_ID, F("reason", span_of(g->fault[i])));
	buffer_free(&words);
}

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	static const struct channel_owner owner = {.handlers = {[MSG_gss_begin] = talk_on_begin, [MSG_gss_step] = talk_on_step, [MSG_gss_end] = talk_on_end}, .gone = authd_gone};
	struct gssd *g = p->program;
	struct channel *ch = channel_make(p->base, fd, R_GSSD, role, &owner, g);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	struct channel *old = g->authd;
	if (old != NULL)
		authd_gone(old, 0);
	channel_close(old);
	g->authd = ch;
	offer(g);
}

/* The configuration of Kerberos, the file of NTLM; its own directory, in which it stands. */
static int confine(struct gssd *g, const char *krb5, struct complaint *why)
{
	const char *ntlm = g->proc.config.service.auth_ntlm_file;
	struct path_rule paths[2 + GSS_DIRS_MOST] = {{.dir_fd = g->dir_fd, .rights = PATH_READ | PATH_WRITE}};
	struct confinement wanted = rights;
	int fds[GSS_DIRS_MOST + 1];
	size_t n = gss_open_dirs(krb5, fds);
	if (ntlm[0] != '\0') {
		char *copy = strdup(ntlm);
		fds[n] = copy == NULL ? -1 : open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
		n += fds[n] >= 0;
		free(copy);
		wanted.calls |= CALLS_UNIX;
	}
	for (size_t i = 0; i < n; i++)
		paths[1 + i] = (struct path_rule){.dir_fd = fds[i], .rights = PATH_READ};
	return proc_confine(&g->proc, &wanted, paths, 1 + n, NULL, why);
}

int main(void)
{
	struct complaint why;
	struct gssd *g = &gssd;
	const char *krb5 = getenv("KRB5_CONFIG"); /* the administrator's, before ours */
	if (proc_begin(&g->proc, R_GSSD, &why) != 0)
		return proc_fail(&g->proc, EX_CONFIG, &why);
	g->proc.program = g;
	g->proc.linked = linked;
	proc_handle(&g->proc, MSG_client_authorities, external_on_authorities);
	g->dir_fd = proc_fd(&g->proc, "gss");
	int error = fchdir(g->dir_fd) != 0 ? errno : keys_read(g);
	if (error == 0)
		error = talk_setup(g);
	if (error != 0) {
		complain(&why, "gssd", 0, "cannot start: %s", strerror(error));
		return proc_fail(&g->proc, EX_OSERR, &why);
	}
	if (confine(g, krb5, &why) != 0)
		return proc_fail(&g->proc, EX_OSERR, &why);
	keys_check_ntlm(g);
	return proc_run(&g->proc);
}
