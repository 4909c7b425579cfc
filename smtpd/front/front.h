/* front: takes connections, counts them, hands them to workers. */
#ifndef SMTPD_FRONT_H
#define SMTPD_FRONT_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"
#include "smtp/smtp.h"

#define EVENTS_FILE "smtpd/front/events.def"
#include "log/events.h"

/* Sessions of one client address (IPv6: one /64) with one server. */
struct client_count {
	unsigned char addr[16];
	uint32_t server, n;
	struct client_count *next;
};
enum { CLIENT_BUCKETS = 4096 };

struct front_session {
	uint32_t server;
	bool used;
	struct channel *worker;
	struct client_count *client; /* NULL: trusted, not counted */
};

struct front_listener {
	struct event *event;
	uint32_t server;
	struct front *front;
};

struct front {
	struct process proc;
	struct channel *workers;
	struct front_listener listeners[IPC_FDS];
	size_t listeners_n;
	struct front_session *sessions; /* the index is the session's number */
	uint32_t sessions_n, free_hint;
	uint64_t *counts;               /* by server */
	struct client_list *trusted;    /* by server */
	struct client_count *clients[CLIENT_BUCKETS];
	struct event *report;
	bool report_due, stopping;
};

void front_accept(struct front *f, int listen_fd, uint32_t server);
void front_end_session(struct front *f, uint32_t number);
void front_end_worker(struct front *f, const struct channel *worker);
struct client_count *front_count_client(struct front *f, uint32_t server, const struct sockaddr *sa, int64_t limit, bool *full);
void front_drop_client(struct front *f, struct client_count *c);

#endif
