/* front: takes connections, counts them, hands them to workers. */
#ifndef SMTPD_FRONT_H
#define SMTPD_FRONT_H

#include "ipc/ipc.h"
#include "lookup/lookup.h"
#include "log/log.h"
#include "proc/proc.h"
#include "smtp/smtp.h"

#define EVENTS_FILE "smtpd/front/events.def"
#include "log/events.h"

/* What one client address (IPv6: one /64) does at one server.  Without sessions it is kept while a rate still counts it,
 * in a list of its own, of which the oldest make room for new ones: an attacker can make it no longer. */
struct client_count {
	unsigned char addr[16];
	uint32_t server, n;       /* n: its sessions */
	struct rate_window {
		int64_t start_ms, n;
	} rates[RATE_KINDS];
	struct client_count *next;          /* in its bucket */
	struct client_count *older, *newer; /* of those without sessions */
};
enum { CLIENT_BUCKETS = 16384, CLIENTS_IDLE_MOST = 65536 };

struct front_server {
	struct client_list trusted, access, proxies, xclients;
	struct rate rates[RATE_KINDS];
	uint64_t sessions;
	enum server_state state;
	uint32_t serial; /* of the state */
};

/* A worker's peer_state. */
struct front_worker {
	bool reported; /* all of held */
	bool retiring; /* gets no more */
	uint32_t servers; /* that it tells of */
	uint32_t sessions, held_all;
	uint32_t held[]; /* by server: what it has of earlier fronts */
};

struct front_session {
	uint32_t server;
	bool used, trusted, may_xclient;
	unsigned char network[16]; /* the client's address as IPv6, of an IPv6 client its /64 */
	struct channel *worker;
	struct client_count *client; /* NULL: not counted */
};

enum { PROXY_HEADER_S = 5 };
struct front_listener {
	struct event *event;
	uint32_t number, server;
	uint32_t flags; /* session_flag bits of its sessions */
	uint16_t port;
	bool any, shared; /* on "*"; another server names an address of this port */
	struct front *front;
	struct front_listener *next;
};

struct front {
	struct process proc;
	struct channel *workers, *authd;
	struct front_listener *listeners;
	struct front_session *sessions; /* the index is the session's number */
	uint32_t sessions_n, free_hint;
	struct front_server *servers;
	struct client_count *clients[CLIENT_BUCKETS], *oldest, *newest;
	size_t idle_n;
	int64_t forgot_ms;              /* when it was last said that clients are forgotten too early */
	struct event *report, *open;
	struct hash_secret secret;      /* of clients' buckets: who chooses addresses can't choose buckets */
	size_t proxied_n;               /* connections whose PROXY header is awaited */
	bool report_due, stopping, is_open;
	int64_t stop_ms;
};

void front_admit(struct front *f, int fd, const struct front_listener *l, const struct sockaddr *sa, socklen_t n); /* fd is its own from now on */
bool front_accept(struct front *f, int listen_fd, const struct front_listener *l); /* true: more may wait */
void front_find_shared(struct front *f);
void front_report_soon(struct front *f);
void front_end_session(struct front *f, uint32_t number);
void front_take_held(struct front *f, const struct channel *worker, uint32_t server, uint32_t n);
void front_end_worker(struct front *f, const struct channel *worker);
bool front_rate_is_over(struct front *f, uint32_t number, enum rate_kind kind); /* counts the session's client */
int front_on_session_client(struct channel *c, struct message *m);
int front_on_client_query(struct channel *c, struct message *m);
/* proxy.c */
bool proxy_begin(struct front *f, int fd, const struct front_listener *l, const struct sockaddr_storage *peer, socklen_t n); /* false: no room */
/* clients.c: whose limits they are: the address as IPv6, of an IPv6 client its /64 */
void client_key(const struct sockaddr *sa, unsigned char out[16]);
/* One more session of a client.  NULL: it gets none, *why says it; *limit is the parameter's name. */
struct client_count *client_enter(struct front *f, uint32_t server, const struct sockaddr *sa, enum reply *why, const char **limit);
void client_leave(struct front *f, struct client_count *c); /* c may be NULL */
bool client_is_over(struct front *f, struct client_count *c, enum rate_kind kind); /* counts it, once */

#endif
