/* smtp: delivers messages to other servers. */
#ifndef SMTP_SMTP_AGENT_H
#define SMTP_SMTP_AGENT_H

#include "dns/dns.h"
#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"
#include "schedule/schedule.h"
#include "smtp/smtp.h"
#include "tls/tls.h"

#define EVENTS_FILE "smtp/events.def"
#include "log/events.h"

enum {
	REASON_MOST = 400,       /* of a peer's words: a verdict about all recipients fits into one packet */
	HOP_BUCKETS = 1024, ADDRESSES_MOST = 20, INPUT_MOST = 64 * 1024, BLOCK = 64 * 1024,
	IDLE_MS = 5000,          /* a connection is kept for the next message */
	DNS_LIMIT_MS = 30000, CACHE_MS = 60000, NO_TLS_MS = 600000,
};

enum { PEER_PIPELINING = 1, PEER_SIZE = 2, PEER_8BITMIME = 4, PEER_CHUNKING = 8, PEER_DSN = 16, PEER_STARTTLS = 32,
	PEER_SMTPUTF8 = 64, PEER_BINARYMIME = 128 };

struct target {
	struct sockaddr_storage addr;
	socklen_t addr_n;
	char name[256];          /* of the host, for people */
};

/* A next hop: its addresses, its idle connections, who waits for a look-up. */
struct hop {
	char *nexthop;
	uint32_t server;
	struct target *targets;
	size_t targets_n;
	bool resolving;
	int64_t fresh_until_ms, no_tls_until_ms;
	enum { HOP_UNKNOWN, HOP_READY, HOP_FAILED, HOP_DEFERRED } state;
	char enhanced[12];
	char *reason;
	/* the look-up under way */
	struct mx_host { uint32_t preference, order; char name[256]; } *hosts;
	size_t hosts_n, host_at;
	unsigned asking;         /* answers outstanding for the present host */
	bool host_tempfail;
	uint16_t port;
	struct job *waiting;
	struct conn *idle;
	size_t users;
	struct hop *next;
};

struct rcpt_result {
	bool decided, accepted;
	uint32_t outcome, code;
	char enhanced[12];
	char *text;
};

/* One delivery. */
struct job {
	uint64_t delivery;
	struct qid id;
	struct channel *qmgr;
	uint32_t server;
	struct agent *agent;
	struct arena arena;
	struct envelope e;
	char *envelope;
	struct buffer content;
	int body_fd;
	uint64_t size;
	struct buffer indexes;
	struct rcpt_result *rcpts;
	struct hop *hop;
	size_t target_at;        /* next address to try */
	bool reused;             /* on a connection that had carried mail before */
	bool fresh_only, no_tls, connected;
	char peer[400];
	char *last_reason;
	int64_t began_ms;
	struct buffer results;   /* the verdict, until it is confirmed */
	bool done;
	struct job *next;        /* in its hop's waiting list */
	struct job *next_all;
};

enum conn_state { CONN_CONNECTING, CONN_GREETING, CONN_EHLO, CONN_HELO, CONN_STARTTLS, CONN_HANDSHAKE, CONN_IDLE,
	CONN_ENVELOPE, CONN_BODY, CONN_DOT, CONN_RSET, CONN_QUIT };

/* Replies that are outstanding, in order. */
enum expected { EXPECT_MAIL, EXPECT_RCPT, EXPECT_DATA, EXPECT_DOT, EXPECT_RSET };

struct conn {
	struct agent *agent;
	struct hop *hop;
	struct target target;
	int fd;
	enum conn_state state;
	struct event *readable, *writable, *timer;
	bool want_write, tls_wants_write;
	SSL *ssl;
	struct buffer in, out;
	size_t out_at;           /* written so far */
	struct peer_reply reply;
	unsigned offers;
	uint64_t peer_size;
	struct job *job;
	struct { enum expected what; uint32_t rcpt; } *expect;
	size_t expect_n, expect_at, expect_size;
	size_t accepted;
	bool chunked, line_start, data_refused, greeted;
	uint64_t body_at;        /* content bytes put out so far */
	int64_t messages;
	bool stepping, closed;   /* closed while its replies are read: freed by the reading loop */
	struct conn *next_idle;
};

struct agent {
	struct process proc;
	struct channel *resolver;
	struct hop *hops[HOP_BUCKETS];
	struct job *jobs;
	SSL_CTX *tls;
	struct query *queries;
	uint64_t serial;
	bool stopping;
};

struct query {
	uint64_t serial;
	struct hop *hop;
	enum dns_kind kind;
	struct query *next;
};

static inline const struct server_params *agent_params(const struct agent *a, uint32_t server)
{
	return &a->proc.config.servers[server].p;
}

/* job.c */
int job_on_deliver(struct channel *ch, struct message *m);
int job_on_part(struct channel *ch, struct message *m);
int job_on_confirm(struct channel *ch, struct message *m);
void job_tell_again(struct agent *a, struct channel *qmgr, uint32_t server);
void job_set_rcpt(struct job *j, uint32_t rcpt, uint32_t outcome, int code, struct span enhanced, struct span text);
void job_set_all(struct job *j, uint32_t outcome, int code, struct span enhanced, struct span text); /* all undecided */
void job_finish(struct job *j, bool down);
void job_start(struct job *j);
/* hop.c */
struct hop *hop_get(struct agent *a, uint32_t server, struct span nexthop);
void hop_release(struct agent *a, struct hop *h);
void hop_resolve(struct agent *a, struct hop *h);
int hop_on_answer(struct channel *ch, struct message *m);
void hop_resolver_gone(struct agent *a);
void hop_remove_idle(struct conn *c);
/* conn.c */
void conn_open(struct job *j);                 /* to its next address */
void conn_take(struct conn *c, struct job *j); /* an idle one */
void conn_close(struct conn *c);
void conn_arm(struct conn *c, int64_t seconds);
void conn_flush(struct conn *c);               /* may close c */
void conn_state(struct conn *c, enum conn_state state, int64_t seconds);
/* dialog.c */
void dialog_input(struct conn *c);             /* complete lines are in c->in; may close c */
void dialog_begin(struct conn *c);             /* a job on an established connection */
void dialog_broken(struct conn *c, const char *reason); /* no more can be said; closes c */
void dialog_handshake(struct conn *c);
/* envelope.c */
void envelope_send(struct conn *c);
void envelope_reply(struct conn *c);
bool envelope_fits(struct conn *c);
/* body.c */
void body_begin(struct conn *c);
/* Puts the next piece out: 1: there is more to write, 0: nothing to do, -1: the connection is gone. */
int body_more(struct conn *c);

#endif
