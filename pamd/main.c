/* pamd: asks PAM whether a login is good, in a process for each; there only where auth_backend = pam.
 * User: root, with the capabilities to become another user and to end what runs as one, as PAM's modules may want.
 * May: fork; in the new process let PAM's modules look at a name and a password.
 * Never: say more than yes, no or not now; talk to anybody but authd and the log. */
#include "pamd.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct pamd pamd;
static const struct confinement rights = {.files = 1024};

static void forget(struct pamd *p, struct check *c)
{
	struct check **at = &p->checks;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	p->running -= c->pid > 0;
	p->n--;
	explicit_bzero(c, sizeof *c);
	free(c);
}

static void say(const struct pamd *p, const struct check *c, enum pam_status status)
{
	if (p->authd != NULL)
		send_pam_answer(p->authd, (struct msg_pam_answer){.serial = c->serial, .status = status}, -1);
}

static void start_next(struct pamd *p)
{
	struct check *next;
	for (struct check *c = p->checks; c != NULL && p->running < CHECKS_MOST; c = next) {
		next = c->next;
		if (c->pid != 0)
			continue;
		c->pid = fork();
		if (c->pid == 0)
			ask_pam(p->proc.config.servers[c->server].p.auth_pam_service, c);
		explicit_bzero(c->password, sizeof c->password);
		if (c->pid > 0) {
			p->running++;
			continue;
		}
		c->pid = 0;
		say(p, c, PAM_FAILED);
		forget(p, c);
	}
}

static void on_child(int fd, short what, void *context)
{
	struct pamd *p = context;
	int status;
	pid_t pid;
	(void)fd;
	(void)what;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct check *c = p->checks;
		while (c != NULL && c->pid != pid)
			c = c->next;
		if (c == NULL)
			continue;
		bool known = WIFEXITED(status) && WEXITSTATUS(status) <= PAM_FAILED;
		enum pam_status said = known ? (enum pam_status)WEXITSTATUS(status) : PAM_FAILED;
		if (said == PAM_FAILED)
			LOG(&p->proc.log, pam_failed, NO_ID, F("service", span_of(p->proc.config.servers[c->server].p.auth_pam_service)),
				F("how", WIFSIGNALED(status) ? SPAN_LIT("no answer in time") : SPAN_LIT("its modules can't tell")));
		say(p, c, said);
		forget(p, c);
	}
	start_next(p);
}

static bool take(char *out, size_t size, struct span s)
{
	if (s.n >= size || memchr(s.n == 0 ? "" : s.at, '\0', s.n) != NULL)
		return false;
	memcpy(out, s.n == 0 ? "" : s.at, s.n);
	out[s.n] = '\0';
	return true;
}

static int on_check(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, pam_check, said);
	struct pamd *p = ch->program;
	if (said.server >= p->proc.config.servers_n || strcmp(p->proc.config.servers[said.server].p.auth_backend, "pam") != 0)
		return EBADMSG;
	struct check *c = p->n >= WAITING_MOST ? NULL : calloc(1, sizeof *c), **end = &p->checks;
	if (c == NULL) {
		send_pam_answer(ch, (struct msg_pam_answer){.serial = said.serial, .status = PAM_FAILED}, -1);
		return 0;
	}
	*c = (struct check){.serial = said.serial, .server = said.server};
	if (!take(c->user, sizeof c->user, said.user) || !take(c->password, sizeof c->password, said.password) || !take(c->client, sizeof c->client, said.client)) {
		free(c);
		return EBADMSG;
	}
	while (*end != NULL)
		end = &(*end)->next;
	*end = c;
	p->n++;
	start_next(p);
	return 0;
}

/* What still runs ends by itself; nobody is told. */
static void authd_gone(struct channel *ch, int reason)
{
	struct pamd *p = ch->program;
	(void)reason;
	if (p->authd == ch)
		p->authd = NULL;
	for (struct check *c = p->checks, *next; c != NULL; c = next) {
		next = c->next;
		if (c->pid == 0)
			forget(p, c);
	}
}

static void linked(struct process *proc, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	static const struct channel_owner owner = {.handlers = {[MSG_pam_check] = on_check}, .gone = authd_gone};
	struct pamd *p = proc->program;
	struct channel *ch = channel_make(proc->base, fd, R_PAMD, role, &owner, p);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	struct channel *old = p->authd;
	if (old != NULL)
		authd_gone(old, 0);
	channel_close(old);
	p->authd = ch;
}

int main(void)
{
	struct complaint why;
	struct pamd *p = &pamd;
	if (proc_begin(&p->proc, R_PAMD, &why) != 0)
		return proc_fail(&p->proc, EX_CONFIG, &why);
	p->proc.program = p;
	p->proc.linked = linked;
	p->child_ended = evsignal_new(p->proc.base, SIGCHLD, on_child, p);
	if (p->child_ended == NULL || event_add(p->child_ended, NULL) != 0) {
		complain(&why, "pamd", 0, "not enough memory");
		return proc_fail(&p->proc, EX_OSERR, &why);
	}
	if (proc_confine_root(&p->proc, &rights, &why) != 0)
		return proc_fail(&p->proc, EX_OSERR, &why);
	return proc_run(&p->proc);
}
