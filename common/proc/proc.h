/* proc: the life of a process of the service, from the master's hello to its confined loop. */
#ifndef PROC_PROC_H
#define PROC_PROC_H

#include "base/base.h"
#include "ipc/ipc.h"
#include "lease/lease.h"
#include "log/log.h"
#include "params/params.h"
#include <sys/resource.h>

enum { PROC_CONTROL_FD = 3 };
enum proc_flag { PROC_ROOT = 1, PROC_SANITIZED = 2 }; /* of hello */

/* System-call sets beyond what every process has. */
enum call_set {
	CALLS_SOCKET = 1,   /* a session with a peer on an inherited or new connection */
	CALLS_CONNECT = 2,  /* socket, connect, bind: outgoing connections and datagrams of IPv4 and IPv6 */
	CALLS_ACCEPT = 4,   /* accept4 */
	CALLS_FILES = 8,    /* open, create, read, stat, list below held directories */
	CALLS_WRITE = 16,   /* write, sync, truncate, allocate files; with CALLS_FILES */
	CALLS_RENAME = 32,  /* rename, link, unlink, mkdir */
	CALLS_MEMFD = 64,
	CALLS_INOTIFY = 128,
	CALLS_UNIX = 512,   /* sockets of this machine, with CALLS_CONNECT */
	CALLS_PAIR = 1024,  /* socketpair within this machine */
	CALLS_POLL = 2048,   /* poll: libcurl asks by it whether a connection stands */
	CALLS_DB = 256,     /* what Berkeley DB needs: mmap of files, locks */
};
enum path_right { PATH_READ = 1, PATH_WRITE = 2 };

/* What the kernel is told about a role; the comment on top of its main.c says the same. */
struct confinement {
	const char *user_suffix; /* "" is mail_owner itself */
	bool in_setgid_group;    /* keeps setgid_group: reads what members of it wrote */
	unsigned calls;          /* call_set bits */
	bool connects;           /* TCP connect to the ports in proc_confine's list */
	rlim_t files;            /* RLIMIT_NOFILE wanted; 0: as it is */
};

struct process {
	enum role role;
	uint32_t instance, epoch, flags;
	char server[72], suffix[16];
	struct config config;
	uint32_t generation;
	struct event_base *base;
	struct channel *control;
	struct log log;
	struct buffer names;       /* of fds[1..]: blank-separated, as the master named them */
	int fds[IPC_FDS];          /* fds[0] was the configuration, closed */
	size_t fds_n;
	uint64_t turns;
	unsigned landlock;
	uint32_t number;           /* of its server, which stays while the service runs; UINT32_MAX: it has none */
	const struct lease_slot *leases; /* by server, NULL: this role needs none */
	void *program;
	struct channel_owner control_owner;
	/* called for channels that the master links; NULL: refused */
	void (*linked)(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd);
	/* orderly stop: the program calls proc_done when nothing is left, at the latest after grace_ms */
	void (*stop)(struct process *p, uint32_t grace_ms);
	void (*reloaded)(struct process *p, const struct config *old);
};

/* Reads hello, parses the configuration, makes the loop.  0 or errno, *why says what for people. */
MUST_CHECK int proc_begin(struct process *p, enum role role, struct complaint *why);
/* A further message that the master may send to this role. */
void proc_handle(struct process *p, enum msg_type type, message_handler *run);
/* The lease that a server's queue needs here; NULL: none. */
const struct lease_slot *proc_lease(const struct process *p, uint32_t server);
const struct lease_slot *proc_own_lease(const struct process *p); /* of the process's own server */
/* The descriptor that the master sent under this name, -1: none. */
int proc_fd(const struct process *p, const char *name);

struct path_rule {
	int dir_fd;
	unsigned rights; /* path_right bits */
};
/* Limits, user, no_new_privs, Landlock, seccomp: in this order.  0 or errno. */
MUST_CHECK int proc_confine(struct process *p, const struct confinement *c, const struct path_rule *paths, size_t paths_n,
	const struct port_list *ports, struct complaint *why);
/* For the one process that stays root, to become others: capabilities only for that, no new privileges.  No Landlock, no
 * seccomp: what it starts would inherit them.  0 or errno. */
MUST_CHECK int proc_confine_root(struct process *p, const struct confinement *c, struct complaint *why);
/* Says ready and runs the loop until proc_done.  Returns the exit status. */
int proc_run(struct process *p);
void proc_done(struct process *p);
/* For the master to be told why a start failed; returns EX_TEMPFAIL and the like for main to return. */
int proc_fail(struct process *p, int status, const struct complaint *why);
/* The whole of what most mains do between proc_begin and proc_run. */
bool proc_is_alone(const struct process *p); /* started by hand, not by master */

/* Applies only Landlock and seccomp: for tests of the rules. */
MUST_CHECK int confine_calls(unsigned calls, bool log_only);
MUST_CHECK int confine_paths(const struct path_rule *paths, size_t n, const struct port_list *ports, bool connects, unsigned *abi);

/* deliver's words to child, in its environment. */
#define CHILD_ACTION "POSTHORN_ACTION"
#define CHILD_TARGET "POSTHORN_TARGET"
#define CHILD_QUOTA "POSTHORN_QUOTA"
#define CHILD_FORWARD "POSTHORN_FORWARD" /* first: .forward, then the mailbox; only; no: the mailbox */
#define CHILD_MAPS "POSTHORN_MAPS"       /* alias_maps, for expand */
#define CHILD_DELIMITER "POSTHORN_DELIMITER"
#define CHILD_NAME "POSTHORN_NAME"       /* %u, where the user is mailbox_user; else empty */
#define CHILD_OWNER "POSTHORN_OWNER"     /* whose maps may name commands and files, beside root */

int proc_default_uid(const char *owner, const char *suffix, uid_t *uid, gid_t *gid);

#endif
