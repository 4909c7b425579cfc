/* The master: binds, spawns, connects, supervises; parses nothing from outside. */
#ifndef MASTER_MASTER_H
#define MASTER_MASTER_H

#include "base/base.h"
#include "ipc/ipc.h"
#include "log/log.h"
#include "login/login.h"
#include "params/params.h"

#define EVENTS_FILE "master/events.def"
#include "log/events.h"

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
	struct event *respawn;
	struct master *master;
	struct child *next;
};
enum { NO_SERVER = UINT32_MAX };

struct listener {
	int fd;
	uint32_t server;
	enum listen_kind kind;
};

struct master {
	struct event_base *base;
	char *dir, *libexec;
	int dir_fd, lock_fd, notify_fd, control_fd, self_log_fd;
	int auth_key_fd; /* sealed, new at each start: by it cleanup knows what authd says of a login */
	bool root, sanitized, foreground, stopping, announced;
	struct config config;
	int config_fd; /* sealed snapshot */
	uint32_t generation, epoch, node, instances, stop_stage;
	struct child *children;
	struct listener *listeners;
	size_t listeners_n;
	struct log log;
	struct event *signals[4], *beat, *stage_timer;
	uint64_t *sessions, *queued; /* by server */
	bool paused, *server_paused; /* the service; by server: each for itself */
	uint64_t ping_serial;
};

/* start.c: everything before the first process.  0 or a sysexits code, *why filled. */
int master_prepare(struct master *m, struct complaint *why);
int master_read_config(struct master *m, struct config *out, int *fd, struct complaint *why);
/* dirs.c */
int master_make_dirs(struct master *m, struct complaint *why);
int master_make_drops(struct master *m, struct complaint *why);
int master_open_dir(struct master *m, const char *path);
/* listen.c */
int master_listen(struct master *m, struct complaint *why);
/* spawn.c */
int master_spawn_all(struct master *m, struct complaint *why);
int master_spawn_wanted(struct master *m, enum role role, struct complaint *why); /* maps, gssd, gssc: if the configuration needs it, unless it is there */
int master_spawn_local(struct master *m, struct complaint *why); /* unless they are there */
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
/* stop.c */
void master_stop(struct master *m);
void master_stop_step(struct master *m);
void master_beat(int fd, short what, void *context);
/* admin.c */
int master_on_admin(struct channel *c, struct message *m);
void master_reload(struct master *m, struct buffer *text, uint32_t *status);
/* state.c */
int master_read_states(struct master *m, struct complaint *why); /* 0 or a sysexits code */
const char *master_server_state(const struct master *m, uint32_t server); /* running, paused, stopping */
bool master_any_paused(const struct master *m);
void master_send_states(const struct master *m, struct child *front);
void master_tell_front(const struct master *m, struct child *front); /* a new one: states, then listeners, which are as many as there are */
void master_pause(struct master *m, struct span names, bool pause, struct buffer *text, uint32_t *status); /* no names: the service */
/* for the waiting start command */
void master_announce(struct master *m, int status, const char *text);

#endif
