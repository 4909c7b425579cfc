/* A command of the recipient's, the message on its standard input. */
#include "child.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

enum { OUTPUT_MOST = 300 };

/* What an exit status says (sysexits.h); what is not here waits. */
static const struct { int status, code; const char *enhanced, *text; } ends[] = {
	{EX_OK, 250, "2.0.0", "delivered to command"},
	{EX_USAGE, 550, "5.3.0", "usage error of the command"}, {EX_DATAERR, 550, "5.6.0", "data format error"},
	{EX_NOINPUT, 550, "5.3.0", "cannot open input"}, {EX_NOUSER, 550, "5.1.1", "user unknown"}, {EX_NOHOST, 550, "5.1.2", "host name unknown"},
	{EX_UNAVAILABLE, 550, "5.3.0", "service unavailable"}, {EX_SOFTWARE, 550, "5.3.0", "internal software error"},
	{EX_OSFILE, 550, "5.3.0", "system file missing"}, {EX_CANTCREAT, 550, "5.2.0", "cannot create output"},
	{EX_PROTOCOL, 550, "5.5.0", "protocol error"}, {EX_NOPERM, 550, "5.7.0", "permission denied"}, {EX_CONFIG, 550, "5.3.5", "local configuration error"},
	{126, 550, "5.3.0", "the command can not be run"}, {127, 550, "5.3.0", "the command was not found"},
};

static void set_environment(const struct child_task *t)
{
	struct { const char *name; struct span value; } words[] = {{"SENDER", t->sender}, {"RECIPIENT", t->recipient}, {"ORIGINAL_RECIPIENT", t->original},
		{"LOCAL", t->local}, {"DOMAIN", t->domain}, {"EXTENSION", t->extension}};
	for (size_t i = 0; i < COUNT_OF(words); i++) {
		char *value = span_dup(words[i].value);
		if (value == NULL || setenv(words[i].name, value, 1) != 0)
			child_end(451, "4.3.0", "not enough memory");
		free(value);
	}
}

static _Noreturn void run(const struct child_task *t, int in, int out)
{
	char *command = span_dup(t->target);
	const char *home = getenv("HOME");
	if (home == NULL || chdir(home) != 0)
		(void)!chdir("/");
	(void)umask(077);
	if (command == NULL || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(EX_TEMPFAIL);
	(void)execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(EX_TEMPFAIL);
}

/* The message, with a From_ line as commands for mail expect; one that doesn't read all of it is no error. */
static _Noreturn void feed(const struct child_task *t, int out)
{
	struct buffer from;
	(void)signal(SIGPIPE, SIG_IGN);
	buffer_init(&from, 4096);
	content_put_from_line(&from, t);
	int error = write_all(out, from.at, from.n);
	if (error == 0)
		error = content_copy(t, out, false);
	_exit(error == 0 || error == EPIPE ? EX_OK : EX_IOERR);
}

/* The first of what the command says, on one line. */
static void listen_to(int fd, char out[OUTPUT_MOST + 1])
{
	char block[4096];
	size_t used = 0;
	ssize_t n;
	while ((n = read(fd, block, sizeof block)) > 0)
		for (ssize_t i = 0; i < n && used < OUTPUT_MOST; i++)
			out[used++] = (char)((unsigned char)block[i] < 0x20 ? ' ' : block[i]);
	while (used > 0 && out[used - 1] == ' ')
		used--;
	out[used] = '\0';
}

static void start(const struct child_task *t, pid_t pids[2], int *listen_fd)
{
	int in[2], out[2];
	if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
		child_fail(t, "a pipe", errno);
	(void)fcntl(TASK_FD, F_SETFD, FD_CLOEXEC);
	(void)fcntl(CONTENT_FD, F_SETFD, FD_CLOEXEC);
	(void)fcntl(WORDS_FD, F_SETFD, FD_CLOEXEC);
	pids[0] = fork();
	if (pids[0] == 0)
		run(t, in[0], out[1]);
	(void)close(in[0]);
	(void)close(out[1]);
	pids[1] = pids[0] < 0 ? -1 : fork();
	if (pids[1] == 0) {
		(void)close(out[0]);
		feed(t, in[1]);
	}
	(void)close(in[1]);
	if (pids[0] < 0 || pids[1] < 0)
		child_fail(t, "a process", errno);
	*listen_fd = out[0];
}

_Noreturn void pipe_deliver(const struct child_task *t)
{
	pid_t pids[2];
	char output[OUTPUT_MOST + 1];
	int fd, status = 0, fed = 0;
	set_environment(t);
	start(t, pids, &fd);
	listen_to(fd, output);
	if (waitpid(pids[0], &status, 0) < 0 || waitpid(pids[1], &fed, 0) < 0)
		child_fail(t, "the command", errno);
	const char *separator = output[0] == '\0' ? "" : ": ";
	if (WIFSIGNALED(status))
		child_end(451, "4.3.0", "the command was ended by signal %d%s%s", WTERMSIG(status), separator, output);
	if (WEXITSTATUS(status) == EX_OK && (!WIFEXITED(fed) || WEXITSTATUS(fed) != EX_OK))
		child_end(451, "4.3.0", "the message could not be read to its end");
	for (size_t i = 0; i < COUNT_OF(ends); i++)
		if (ends[i].status == WEXITSTATUS(status))
			child_end(ends[i].code, ends[i].enhanced, "%s%s%s", ends[i].text, separator, output);
	child_end(451, "4.3.0", "the command ended with status %d%s%s", WEXITSTATUS(status), separator, output);
}
