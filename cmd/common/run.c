#include "cmd/common/run.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

void run_beside(char out[RUN_PATH], const char *name)
{
	char self[RUN_PATH - 100];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	self[n > 0 ? n : 0] = '\0';
	char *slash = strrchr(self, '/');
	if (slash != NULL)
		*slash = '\0';
	(void)snprintf(out, RUN_PATH, "%s/%s", self, name);
}

static int status_of(pid_t pid)
{
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int run_output(const char *program, char *const argv[], bool quiet, struct buffer *out)
{
	posix_spawn_file_actions_t actions;
	char part[16384];
	int ends[2];
	pid_t pid;
	if (pipe2(ends, O_CLOEXEC) != 0)
		return -1;
	int error = posix_spawn_file_actions_init(&actions);
	if (error == 0)
		error = posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
	if (error == 0 && quiet)
		error = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	if (error == 0)
		error = posix_spawnp(&pid, program, &actions, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)close(ends[1]);
	for (ssize_t n; error == 0 && (n = read(ends[0], part, sizeof part)) != 0;)
		if (n > 0)
			buffer_put(out, part, (size_t)n);
		else if (errno != EINTR)
			break;
	(void)close(ends[0]);
	return error != 0 ? -1 : status_of(pid);
}

int run_and_wait(const char *program, char *const argv[])
{
	pid_t pid;
	return posix_spawnp(&pid, program, NULL, NULL, argv, environ) != 0 ? -1 : status_of(pid);
}
