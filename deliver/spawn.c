/* Between fork and exec: becomes the recipient. */
#include "deliver.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static _Noreturn void say(int words_fd, const char *words)
{
	(void)!write(words_fd, words, strlen(words));
	_exit(0);
}

static const struct passwd *find_user(const struct deliver *d, const struct request *r, int words_fd)
{
	const char *fixed = r->kind == RUN_ALIAS ? r->alias_user : r->params->mailbox_user;
	const char *const names[] = {fixed[0] != '\0' ? fixed : r->user, fixed[0] != '\0' ? "" : r->base};
	if (r->kind == RUN_ALIAS && !d->root) { /* a private instance has but one user */
		const struct passwd *own = getpwuid(getuid());
		if (own != NULL)
			return own;
	}
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		if (names[i][0] == '\0')
			continue;
		errno = 0;
		const struct passwd *pw = getpwnam(names[i]);
		if (pw != NULL)
			return pw;
		if (errno != 0 && errno != ENOENT && errno != ESRCH)
			say(words_fd, "451 4.3.0 the user table could not be asked\n");
	}
	if (fixed[0] != '\0')
		say(words_fd, "451 4.3.5 alias_user or mailbox_user is no user of this machine\n");
	say(words_fd, "550 5.1.1 no user of this machine has that name\n");
}

/* The group that owns the mail spool on Debian: for the lock beside a mailbox there; no user's command runs with it. */
static int join_groups(const struct passwd *pw, bool mail_group)
{
	gid_t groups[65];
	int n = 64;
	if (getgrouplist(pw->pw_name, pw->pw_gid, groups, &n) < 0)
		n = 64;
	const struct group *mail = mail_group ? getgrnam("mail") : NULL;
	if (mail != NULL)
		groups[n++] = mail->gr_gid;
	return setgroups((size_t)n, groups);
}

static void become(const struct deliver *d, const struct request *r, const struct passwd *pw, int words_fd)
{
	if (pw->pw_uid == 0 || (int64_t)pw->pw_uid < r->uid_min)
		say(words_fd, "550 5.7.0 the user's number is below local_uid_min: such users get no mail\n");
	if (!d->root && pw->pw_uid != getuid())
		say(words_fd, "451 4.3.5 this private instance delivers to its own user only\n");
	if (d->root && (join_groups(pw, r->kind == RUN_MAILBOX && r->how.kind == DELIVERY_MBOX) != 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) != 0 ||
			setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) != 0))
		say(words_fd, "451 4.3.0 the user could not be become\n");
	if (d->root && (setuid(0) == 0 || getuid() != pw->pw_uid || geteuid() != pw->pw_uid))
		say(words_fd, "451 4.3.0 the user could not be become\n");
}

static void limit(int which, uint64_t most)
{
	struct rlimit l = {most, most};
	(void)setrlimit(which, &l);
}

/* Descriptors that may lie on each other's places are led out of the way first. */
static void place_fds(const int from[4])
{
	int high[4];
	for (int i = 0; i < 4; i++)
		high[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 20);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 4; i++)
		if (high[i] < 0 || null < 0 || (i < 3 && dup2(null, i) < 0) || dup2(high[i], CHILD_TASK_FD + i) < 0)
			_exit(71);
}

/* What this process's configuration says of the delivery; child takes it out of the environment before anything runs. */
static int tell(const struct request *r)
{
	const struct local_params *p = r->params;
	char owner[24];
	(void)snprintf(owner, sizeof owner, "%u", (unsigned)geteuid());
	bool follows = p->forward == 1 && p->mailbox_user[0] == '\0' && r->kind != RUN_MAILBOX;
	const char *target = r->how.kind == DELIVERY_MAILDIR ? p->maildir : r->how.kind == DELIVERY_MBOX ? p->mbox : r->how.argument.at == NULL ? "" : r->how.argument.at;
	const char *action = r->how.kind == DELIVERY_MAILDIR ? "maildir" : r->how.kind == DELIVERY_MBOX ? "mbox" : "pipe";
	const char *name = p->mailbox_user[0] == '\0' ? "" : r->base[0] != '\0' ? r->base : r->user;
	const struct { const char *name, *value; } words[] = {{CHILD_ACTION, action}, {CHILD_TARGET, target}, {CHILD_QUOTA, p->quota_reply == 1 ? "552" : "452"},
		{CHILD_FORWARD, !follows ? "no" : r->kind == RUN_FORWARD ? "only" : "first"}, {CHILD_MAPS, p->alias_maps}, {CHILD_DELIMITER, p->recipient_delimiter},
		{CHILD_OWNER, owner}, {CHILD_NAME, name}};
	for (size_t i = 0; i < COUNT_OF(words); i++)
		if (setenv(words[i].name, words[i].value, 1) != 0)
			return ENOMEM;
	return 0;
}

_Noreturn void spawn_become(const struct deliver *d, const struct request *r, const int fds[4])
{
	char user[80], home[1100];
	int words_fd = fds[2];
	sigset_t none;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing goes on without its parent */
	(void)setsid();
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	const struct passwd *pw = find_user(d, r, words_fd);
	(void)snprintf(user, sizeof user, "%s", pw->pw_name);
	(void)snprintf(home, sizeof home, "%s", pw->pw_dir);
	char *shell = span_dup(span_of(pw->pw_shell[0] == '\0' || r->kind == RUN_ALIAS ? "/bin/sh" : pw->pw_shell));
	if (shell == NULL || clearenv() != 0 || setenv("USER", user, 1) != 0 || setenv("LOGNAME", user, 1) != 0 || setenv("HOME", home, 1) != 0 ||
		setenv("SHELL", shell, 1) != 0 || setenv("PATH", "/usr/bin:/bin", 1) != 0 || tell(r) != 0)
		_exit(71);
	become(d, r, pw, words_fd);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of user takes it back */
#ifndef POSTHORN_SANITIZED /* which maps far more than it uses */
	limit(RLIMIT_AS, (uint64_t)r->params->local_memory_limit);
#endif
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_NOFILE, 256);
	place_fds(fds);
	char *const argv[] = {(char[]){"posthorn: child"}, NULL};
	(void)fexecve(r->kind == RUN_ALIAS ? d->expand_fd : d->child_fd, argv, environ);
	_exit(71);
}
