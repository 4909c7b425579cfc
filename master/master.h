/* The master: binds, spawns, connects, supervises; parses nothing from outside. */
#ifndef MASTER_MASTER_H
#define MASTER_MASTER_H

#include "base/base.h"
#include "ipc/ipc.h"
#include "lease/lease.h"
#include "log/log.h"
#include "login/login.h"
#include "params/params.h"

#define EVENTS_FILE "master/events.def"
#include "log/events.h"

#define HANDOVER "posthorn-handover 2" /* the form of what one build hands to another */
enum child_state { CHILD_DOWN, CHILD_STARTING, CHILD_READY, CHILD_ENDING };

struct child {
	enum role role;
	uint32_t instance; /* new for each process ever started */
	uint32_t server;   /* index, or NO_SERVER */
	enum child_state state;
	pid_t pid;
	struct channel *channel;
	int64_t started_wall_s, started_ms, ping_sent_ms, pong_ms;
	uint32_t landlock, failures;
	bool asked;    /* to make room for a successor */
	bool old;      /* of the build before an upgrade */
	bool retiring; /* a worker that gets no more sessions: nobody comes after it */
	struct event *respawn;
	struct master *master;
	struct child *next;
};
enum { NO_SERVER = UINT32_MAX };

struct listener {
	int fd;
	uint32_t number, server;
	enum listen_kind kind;
	struct endpoint endpoint;
	bool any;  /* of a "*" */
	bool kept; /* while a new configuration is being put into force */
};

/* A server, by its number (MISSION A3 to A5). */
enum run_state { RUN_STOPPED, RUN_STARTING, RUN_RUNNING, RUN_STOPPING };
struct server_run {
	enum run_state state;
	bool paused;         /* by name */
	bool wanted;         /* remembered: it ran when the service was stopped, or would have */
	bool known;          /* something is remembered */
	bool again;          /* started again once it has stopped */
	bool leased;         /* its queue is this node's */
	bool front_knows;    /* that it is stopped */
	unsigned stage;      /* of its stop */
	uint32_t serial;     /* of the state that front was told last */
	uint64_t sessions, queued;
	struct event *timer; /* of a stop's stage */
	char why[800]; /* why it could not start; empty: nothing went wrong */
};

/* Acts of the control socket that are answered when the servers are where they shall be. */
struct pending {
	uint32_t instance; /* of control */
	uint64_t serial;
	bool start, reload;
	struct pending *next;
	bool servers[];
};

struct master {
	struct event_base *base;
	char *dir, *libexec;
	int dir_fd, lock_fd, notify_fd, control_fd, self_log_fd, state_fd;
	int auth_key_fd; /* sealed, new at each start: by it cleanup knows what authd says of a login */
	int leases_fd; /* a row for each server, which its process lease writes */
	struct lease_slot *leases;
	bool root, sanitized, foreground, stopping, announced;
	struct config config;
	int config_fd; /* sealed snapshot */
	uint32_t generation, epoch, node, instances, stop_stage;
	struct child *children;
	struct listener *listeners;
	size_t listeners_n;
	uint32_t listeners_made;
	struct server_run *runs; /* by server */
	struct pending *pendings;
	struct log log;
	struct event *signals[5], *beat, *stage_timer;
	bool paused; /* the service */
	char *manager; /* the service manager's socket, NULL: none */
	int64_t watchdog_ms, notified_ms, beat_ms;
	bool upgrading;
	struct event *upgrade_later;
	int64_t upgrade_until_ms;
	char *upgrade_to; /* libexec of the other build */
	const char *to_start; /* names of servers, with blanks: started with the service whatever is remembered */
	uint64_t ping_serial;
};

/* start.c: everything before the first process.  0 or a sysexits code, *why filled. */
int master_prepare(struct master *m, struct complaint *why);
int master_run_config(struct master *m, char *const edit[3], struct buffer *out); /* edit NULL: a snapshot; 0 or errno */
int master_config_said(struct span *rest, struct complaint *why); /* 0: "ok", *rest is what follows */
int master_read_config(struct master *m, struct config *out, int *fd, struct complaint *why);
/* dirs.c */
int master_make_dirs(struct master *m, struct complaint *why);
int master_make_server_dirs(struct master *m, const struct server *s, struct complaint *why);
int master_make_drops(struct master *m, struct complaint *why);
int master_open_dir(struct master *m, const char *path);
/* listen.c */
int master_listen(struct master *m, uint32_t server, struct complaint *why); /* all of a server's; 0 or a sysexits code, and then none */
void master_listen_no_more(struct master *m, uint32_t server);
void master_tell_listeners(const struct master *m, const struct child *front, uint32_t server);
int master_relisten(struct master *m, const struct config *fresh, struct complaint *why); /* what is new of running servers; 0 or a sysexits code, and then nothing has changed */
void master_relisten_end(struct master *m); /* what fresh does not have is closed, front has what is new */
/* spawn.c */
int master_spawn_all(struct master *m, struct complaint *why);
int master_spawn_wanted(struct master *m, enum role role, struct complaint *why); /* maps, gssd, gssc: if the configuration needs it, unless it is there */
int master_spawn_local(struct master *m, struct complaint *why); /* unless they are there */
struct child *master_new_child(struct master *m, enum role role, uint32_t server); /* NULL: no memory */
int master_add_child(struct master *m, enum role role, uint32_t server, struct complaint *why);
int master_spawn_server(struct master *m, uint32_t server, struct complaint *why);
void master_stop_child(struct child *c, uint32_t grace_ms);
void master_announce_if_complete(struct master *m);
/* server.c: one server's start and stop */
void master_start_server(struct master *m, uint32_t server); /* run.why: why it can't */
void master_stop_server(struct master *m, uint32_t server);
void master_fail_server(struct master *m, uint32_t server, const char *why);
void master_start_leased(struct master *m, uint32_t server); /* its queue is ours */
void master_end_server(struct master *m, uint32_t server, const char *why); /* it stops, and that is why */
void master_server_ready(struct master *m, uint32_t server); /* if all of its processes are */
void master_server_step(struct master *m, uint32_t server);  /* a process of it has ended, front has told its sessions */
void master_start_servers(struct master *m); /* as is remembered, else as startup says */
void master_child_ended(struct master *m, pid_t pid, int status);
extern const struct channel_owner master_child_owner;
const char *master_child_server(const struct master *m, const struct child *c);
/* hello.c */
int master_send_hello(struct master *m, struct child *c, struct complaint *why);
/* secrets.c */
int master_check_secrets(struct master *m, const struct config *config, struct complaint *why); /* can they be opened? */
void master_send_secrets(struct master *m, struct child *c); /* keyd's, authd's, smtpd's or gssd's; those that can't are told to the log */
/* link.c */
void master_link_child(struct master *m, struct child *c);
void master_link_own_log(struct master *m); /* once logd is there */
/* stop.c */
void master_stop(struct master *m);
void master_stop_step(struct master *m);
void master_beat(int fd, short what, void *context);
/* admin.c */
int master_on_admin(struct channel *c, struct message *m);
/* state.c */
int master_read_states(struct master *m, uint32_t first, struct complaint *why); /* of servers from a number on; 0 or a sysexits code */
int master_write_states(const struct master *m); /* 0 or errno */
const char *master_server_state(const struct master *m, uint32_t server); /* running, paused, stopped, starting, stopping */
bool master_any_paused(const struct master *m);
uint32_t master_server_named(const struct master *m, struct span name); /* NO_SERVER: none */
void master_send_state(const struct master *m, const struct child *to, uint32_t server);
void master_tell_state(struct master *m, uint32_t server); /* to all who go by it */
void master_tell_child(const struct master *m, const struct child *c); /* a new one: states, and front the listeners */
void master_pause(struct master *m, struct span names, bool pause, struct buffer *text, uint32_t *status); /* no names: the service */
/* acts.c */
void master_act_servers(struct master *m, struct channel *control, uint64_t serial, struct span names, bool start);
void master_answer_reload(struct master *m, struct channel *control, uint64_t serial, const bool *begun); /* once those are up that it began */
void master_end_pending(struct master *m); /* answers those that are through */
/* notify.c */
void master_notify_begin(struct master *m);
void master_notify_hand_over(const struct master *m);
void master_notify(const struct master *m, const char *text);
void master_notify_alive(struct master *m, int64_t now_ms);
/* upgrade.c: becomes the master of another build, in place */
void master_upgrade(struct master *m);
/* resume.c: the same, as that build */
int master_print_build(void); /* what the other has to know: -V */
int master_resume(struct master *m, int state_fd, struct complaint *why); /* instead of master_prepare and master_spawn_all */
void master_replace_next(struct master *m); /* the next process of the build before */
void master_end_of_old(struct master *m, struct child *c); /* a retired worker has ended */
/* operators.c */
void master_edit(struct master *m, struct span args, struct buffer *text, uint32_t *status, bool begun[SERVERS_MOST]);
int master_on_record(struct channel *c, struct message *m);
void master_warn_of_operators(struct master *m);
/* reload.c */
void master_reload(struct master *m, struct buffer *text, uint32_t *status, bool begun[SERVERS_MOST]); /* begun: servers that come up by it */
/* lease.c */
MUST_CHECK int master_make_leases(struct master *m); /* or maps those that were handed over */
int master_leases_for(const struct master *m, enum role role); /* a descriptor of the table, -1: it is not concerned */
bool master_lease_due(struct master *m, uint32_t server); /* before anything of it is started */
bool master_waits_for_lease(const struct master *m, uint32_t server);
int master_on_lease_taken(struct channel *c, struct message *m);
int master_on_lease_lost(struct channel *c, struct message *m);
void master_check_leases(struct master *m);
/* for the waiting start command */
int master_set_up_loop(struct master *m); /* main.c */
void master_announce(struct master *m, int status, const char *text);

#endif
