/* deliver: starts what runs as a user of this machine. */
#ifndef DELIVER_DELIVER_H
#define DELIVER_DELIVER_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"

#define EVENTS_FILE "deliver/events.def"
#include "log/events.h"

enum { WORDS_MOST = 1000, USER_MOST = 32, CHILD_TASK_FD = 3, CHILD_CONTENT_FD = 4, CHILD_WORDS_FD = 5, CHILD_ADDRESSES_FD = 6 };

/* One process that runs as a user. */
struct run {
	uint64_t job;
	struct channel *local;    /* who asked; NULL: gone */
	uint32_t server;
	pid_t pid;
	int words_fd, addresses_fd; /* what it says of its end; a file of fixed size for addresses */
	struct buffer words;
	struct event *readable, *limit;
	bool late;
	int status;
	struct run *next;
	struct deliver *deliver;
};

struct deliver {
	struct process proc;
	struct run *runs;
	struct event *child_ended;
	int child_fd, expand_fd;  /* the programs that run as the user, as alias_user */
	bool root;
};

/* What a run is asked for with, and what this process's own configuration says about it: who asks can't choose a command,
 * a mailbox or a limit. */
struct request {
	uint64_t job;
	enum run_kind kind;
	char user[USER_MOST + 1], base[USER_MOST + 1]; /* as local says them */
	const char *alias_user;
	const struct local_params *params;
	struct delivery how;
	int64_t uid_min;
};

/* spawn.c: in the new process, never returns */
_Noreturn void spawn_become(const struct deliver *d, const struct request *r, const int fds[4]); /* task, content, words, addresses */

#endif
