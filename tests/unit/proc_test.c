/* Each rule of confinement: the forbidden act fails confined, works unconfined; a permitted act works confined. */
#include "proc/proc.h"
#include "unit.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef POSTHORN_SANITIZED /* the sanitizers need more calls: there seccomp only logs */

enum { DONE = 0, REFUSED = 1, SKIPPED = 2 };

static int act_open(void)
{
	int fd = open("/etc/passwd", O_RDONLY);
	return fd >= 0 ? DONE : REFUSED;
}

static int act_create(void)
{
	int fd = open("/tmp/posthorn-proc-test", O_WRONLY | O_CREAT, 0600);
	(void)unlink("/tmp/posthorn-proc-test");
	return fd >= 0 ? DONE : REFUSED;
}

static int act_exec(void)
{
	(void)execl("/bin/true", "true", (char *)NULL);
	return REFUSED;
}

static int act_fork(void)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	return pid > 0 ? DONE : REFUSED;
}

static int act_socket(void)
{
	return socket(AF_INET, SOCK_STREAM, 0) >= 0 ? DONE : REFUSED;
}

static int act_pair(void)
{
	int ends[2];
	return socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 ? DONE : REFUSED;
}

static int act_kill(void)
{
	return kill(getppid(), 0) == 0 ? DONE : REFUSED;
}

static int act_ptrace_prctl(void)
{
	return prctl(PR_SET_DUMPABLE, 1) == 0 ? DONE : REFUSED;
}

static int act_execmap(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED ? DONE : REFUSED;
}

static int act_inotify(void)
{
	return inotify_init1(0) >= 0 ? DONE : REFUSED;
}

static int act_setuid(void)
{
	return setuid(getuid()) == 0 ? DONE : REFUSED;
}

static int act_rename(void)
{
	return rename("/nonexistent/a", "/nonexistent/b") != 0 && errno == ENOENT ? DONE : REFUSED;
}

static int act_write_pipe(void)
{
	int ends[2] = {-1, -1};
	char c = 'x';
	/* made before the confinement by pipe_before */
	ends[0] = 40;
	ends[1] = 41;
	return write(ends[1], &c, 1) == 1 && read(ends[0], &c, 1) == 1 ? DONE : REFUSED;
}

static int act_memory(void)
{
	void *p = malloc(8 * 1024 * 1024);
	int result = p != NULL ? DONE : REFUSED;
	free(p);
	return result;
}

static int act_memfd(void)
{
	return memfd_create("x", 0) >= 0 ? DONE : REFUSED;
}

static int act_random(void)
{
	char c[8];
	return fill_random(c, sizeof c) == 0 ? DONE : REFUSED;
}

static const struct rule {
	const char *name;
	unsigned calls;
	int (*act)(void);
	bool allowed;
} rules[] = {
	{"open", 0, act_open, false}, {"open", CALLS_SOCKET, act_open, false}, {"create", CALLS_SOCKET | CALLS_CONNECT, act_create, false},
	{"exec", 0, act_exec, false}, {"exec", CALLS_FILES | CALLS_WRITE | CALLS_RENAME | CALLS_DB, act_exec, false},
	{"fork", 0, act_fork, false}, {"fork", CALLS_FILES | CALLS_DB, act_fork, false},
	{"socket", 0, act_socket, false}, {"socket", CALLS_FILES | CALLS_WRITE | CALLS_RENAME, act_socket, false}, {"socket", CALLS_SOCKET, act_socket, false},
	{"socket", CALLS_ACCEPT, act_socket, false}, {"kill", 0, act_kill, false}, {"kill", CALLS_CONNECT, act_kill, false},
	{"dumpable again", 0, act_ptrace_prctl, false}, {"executable memory", 0, act_execmap, false}, {"executable memory", CALLS_DB, act_execmap, false},
	{"inotify", CALLS_FILES, act_inotify, false}, {"setuid", 0, act_setuid, false}, {"rename", CALLS_FILES, act_rename, false},
	{"rename", CALLS_FILES | CALLS_WRITE, act_rename, false}, {"memfd", CALLS_SOCKET, act_memfd, false},
	{"read and write", 0, act_write_pipe, true}, {"memory", 0, act_memory, true}, {"random bytes", 0, act_random, true},
	{"open", CALLS_FILES, act_open, true}, {"rename", CALLS_RENAME, act_rename, true}, {"socket", CALLS_CONNECT, act_socket, true},
	{"pair", CALLS_SOCKET | CALLS_CONNECT, act_pair, false}, {"pair", CALLS_PAIR, act_pair, true},
	{"inotify", CALLS_INOTIFY, act_inotify, true}, {"memfd", CALLS_MEMFD, act_memfd, true},
};

static void pipe_before(void)
{
	int ends[2];
	if (pipe(ends) == 0 && dup2(ends[0], 40) == 40)
		(void)dup2(ends[1], 41);
}

/* The act's result in a child of its own; killed counts as refused. */
static int in_child(const struct rule *r, bool confined)
{
	pid_t pid = fork();
	int status;
	if (pid == 0) {
		pipe_before();
		if (confined && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || confine_calls(r->calls, false) != 0))
			_exit(SKIPPED);
		_exit(r->act());
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status)) {
		ck_assert_int_eq(WTERMSIG(status), SIGSYS);
		return REFUSED;
	}
	return WEXITSTATUS(status);
}

START_TEST(each_rule_of_seccomp)
{
	const struct rule *r = &rules[_i];
	ck_assert_msg(in_child(r, false) == DONE, "%s does not work unconfined", r->name);
	ck_assert_msg(in_child(r, true) == (r->allowed ? DONE : REFUSED), "%s with calls %u", r->name, r->calls);
}
END_TEST

enum { ABI_TO_TRY = 1 };

/* A directory with right, one without; connect to a port with right, one without. */
static int landlock_child(unsigned rights, const char *path, int flags, uint16_t allowed, uint16_t wanted)
{
	pid_t pid = fork();
	int status;
	if (pid == 0) {
		unsigned abi;
		struct path_rule rule = {open("/tmp", O_RDONLY | O_DIRECTORY), rights};
		struct port_list ports = {.ports = &allowed, .n = 1};
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || confine_paths(&rule, rights == 0 ? 0 : 1, &ports, true, &abi) != 0)
			_exit(SKIPPED);
		if (abi < ABI_TO_TRY || (path == NULL && abi < 4))
			_exit(SKIPPED);
		if (path != NULL)
			_exit(open(path, flags, 0600) >= 0 ? DONE : REFUSED);
		struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(wanted), .sin_addr = {htonl(INADDR_LOOPBACK)}};
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		_exit(connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0 || errno == ECONNREFUSED ? DONE : REFUSED);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WEXITSTATUS(status);
}

START_TEST(landlock_gives_its_directories_and_ports_and_no_more)
{
	static const char inside[] = "/tmp/posthorn-landlock-test";
	int fd = open(inside, O_WRONLY | O_CREAT, 0600);
	(void)close(fd);
	if (landlock_child(0, "/etc/passwd", O_RDONLY, 1, 1) != SKIPPED) { /* a kernel without it: the status says so */
		ck_assert_int_eq(landlock_child(0, "/etc/passwd", O_RDONLY, 1, 1), REFUSED);
		ck_assert_int_eq(landlock_child(PATH_READ, "/etc/passwd", O_RDONLY, 1, 1), REFUSED);
		ck_assert_int_eq(landlock_child(PATH_READ, inside, O_RDONLY, 1, 1), DONE);
		ck_assert_int_eq(landlock_child(PATH_READ, inside, O_WRONLY, 1, 1), REFUSED);
		ck_assert_int_eq(landlock_child(PATH_READ | PATH_WRITE, inside, O_WRONLY, 1, 1), DONE);
	}
	if (landlock_child(0, NULL, 0, 25, 26) != SKIPPED) {
		ck_assert_int_eq(landlock_child(0, NULL, 0, 25, 26), REFUSED);
		ck_assert_int_eq(landlock_child(0, NULL, 0, 26, 26), DONE);
	}
	(void)unlink(inside);
}
END_TEST

#endif

Suite *suite_proc(void)
{
	Suite *s = suite_create("proc");
	TCase *t = tcase_create("proc");
#ifndef POSTHORN_SANITIZED
	tcase_add_loop_test(t, each_rule_of_seccomp, 0, (int)COUNT_OF(rules));
	tcase_add_test(t, landlock_gives_its_directories_and_ports_and_no_more);
#endif
	suite_add_tcase(s, t);
	return s;
}
