/* authd: checks who logs in, and logs in at other servers.
 * User: posthorn-auth.
 * May: read the files of passwords, DIR/servers/NAME.passwd, and be told when they change; read those that master opens for it; talk to
 * front, smtpd, smtp, pamd, gssd, gssc and maps; with auth_backend = dovecot:SOCKET, to that socket.
 * Never: give out a hash or a key, or a password but within the response of PLAIN or LOGIN that another server gets, and to gssc; use the network; write a
 * file. */
#include "authd.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct authd authd;
static const struct confinement rights = {.user_suffix = "auth", .calls = CALLS_FILES, .files = 1024};

static void peer_gone(struct channel *ch, int reason)
{
	struct authd *a = ch->program;
	struct channel **p = &a->workers;
	(void)reason;
	if (ch->peer == R_SMTP) {
		outward_agent_gone(a, ch);
		return;
	}
	if (ch == a->maps) {
		a->maps = NULL; /* its successor is asked */
		return;
	}
	if (ch == a->gssd) {
		integrated_gone(a);
		return;
	}
	if (ch == a->gssc) {
		outward_gssc_gone(a);
		return;
	}
	if (ch == a->pamd) {
		pam_gone(a);
		return;
	}
	if (ch == a->front) {
		a->front = NULL;
		login_front_gone(a);
		return;
	}
	while (*p != NULL && *p != ch)
		p = &(*p)->next;
	if (*p != NULL)
		*p = ch->next;
	login_worker_gone(a, ch);
}

static const struct channel_owner owner = {
	.handlers = {[MSG_auth_begin] = login_on_begin, [MSG_auth_step] = login_on_step, [MSG_auth_end] = login_on_end, [MSG_client_answer] = login_on_client,
		[MSG_prove_begin] = outward_on_begin, [MSG_prove_step] = outward_on_step, [MSG_prove_end] = outward_on_end, [MSG_pam_answer] = pam_on_answer, [MSG_gss_offer] = integrated_on_offer, [MSG_gss_answer] = integrated_on_answer, [MSG_gssc_answer] = outward_on_answer, [MSG_map_answer] = table_on_answer},
	.gone = peer_gone,
};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct authd *a = p->program;
	struct channel *ch = channel_make(p->base, fd, R_AUTHD, role, &owner, a);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	if (role == R_SMTP)
		return;
	if (role == R_MAPS) {
		channel_close(a->maps);
		a->maps = ch;
		table_linked(a);
		return;
	}
	if (role == R_GSSD) {
		struct channel *old = a->gssd;
		if (old != NULL)
			integrated_gone(a);
		channel_close(old);
		a->gssd = ch;
		return;
	}
	if (role == R_GSSC) {
		struct channel *old = a->gssc;
		if (old != NULL)
			outward_gssc_gone(a);
		channel_close(old);
		a->gssc = ch;
		return;
	}
	if (role == R_PAMD) {
		channel_close(a->pamd);
		a->pamd = ch;
		for (uint32_t i = 0; i < p->config.servers_n; i++)
			if (pam_is(a, i))
				users_offer_all(a, i);
		return;
	}
	if (role == R_FRONT) {
		struct channel *old = a->front;
		if (old != NULL) /* its successor came before the word that it is gone */
			peer_gone(old, 0);
		channel_close(old);
		a->front = ch;
		return;
	}
	ch->next = a->workers;
	a->workers = ch;
	users_offer(a, ch);
}

static void reloaded(struct process *p, const struct config *old)
{
	struct authd *a = p->program;
	(void)old;
	(void)!users_read_rates(a);
	users_read(a); /* a server may be new */
	users_tell(a);
	for (struct channel *w = a->workers; w != NULL; w = w->next)
		users_offer(a, w);
}

static int prepare(struct authd *a)
{
	int error = login_read_key(proc_fd(&a->proc, "authkey"), a->key);
	if (error == 0)
		error = fill_random(a->secret, sizeof a->secret);
	a->dir_fd = proc_fd(&a->proc, "servers");
	a->servers = calloc(SERVERS_MOST, sizeof *a->servers);
	a->turn = event_new(a->proc.base, -1, 0, login_run, a);
	a->turns_end = &a->turns;
	if (error == 0 && (a->servers == NULL || a->turn == NULL || gsasl_init(&a->gsasl) != GSASL_OK))
		error = ENOMEM;
	if (error != 0)
		return error;
	gsasl_callback_set(a->gsasl, sasl_callback);
	gsasl_callback_hook_set(a->gsasl, a);
	error = users_read_rates(a);
	if (error == 0)
		error = dovecot_begin(a);
	return error != 0 ? error : users_watch(a);
}

int main(void)
{
	struct complaint why;
	struct authd *a = &authd;
	if (proc_begin(&a->proc, R_AUTHD, &why) != 0)
		return proc_fail(&a->proc, EX_CONFIG, &why);
	a->proc.program = a;
	a->proc.linked = linked;
	a->proc.reloaded = reloaded;
	proc_handle(&a->proc, MSG_password_file, outward_on_file);
	proc_handle(&a->proc, MSG_passwords_end, outward_on_files_end);
	int error = prepare(a);
	if (error != 0) {
		complain(&why, "authd", 0, "cannot start: %s", strerror(error));
		return proc_fail(&a->proc, EX_OSERR, &why);
	}
	struct path_rule rule = {a->dir_fd, PATH_READ};
	(void)passwd_verify(NULL, SPAN_LIT("warm")); /* what libcrypt and libgsasl load is loaded before the confinement */
	struct confinement wanted = rights;
	for (size_t i = 0; i < a->proc.config.servers_n; i++)
		if (a->servers[i].dovecot != NULL)
			wanted.calls |= CALLS_UNIX;
	if (proc_confine(&a->proc, &wanted, &rule, 1, NULL, &why) != 0)
		return proc_fail(&a->proc, EX_OSERR, &why);
	static const struct timeval now = {0};
	users_read(a); /* as the user whom they are for */
	(void)event_add(a->turn, &now);
	return proc_run(&a->proc);
}
