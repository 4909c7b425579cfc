/* smtp: delivers messages to other servers. */
#ifndef SMTP_SMTP_AGENT_H
#define SMTP_SMTP_AGENT_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "lookup/lookup.h"
#include "message/message.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"
#include "route/route.h"
#include "schedule/schedule.h"
#include "smtp/smtp.h"
#include "tls/tls.h"

#define EVENTS_FILE "smtp/events.def"
#include "log/events.h"

enum {
	REASON_MOST = 400,       /* of a peer's words: a verdict about all recipients fits into one packet */
	HOP_BUCKETS = 1024, INPUT_MOST = 64 * 1024, BLOCK = 64 * 1024,
	TURNED_IDLE_MS = 1000,
	LINE_MOST = 2048, LINE_AUTH = 12288 /* RFC 4954 4 */,
	IDLE_MS = 5000,          /* a connection is kept for the next message */
	DNS_LIMIT_MS = 30000, CACHE_MS = 60000, NO_TLS_MS = 600000,
	NEXT_ADDRESS_MS = 250,   /* then the next address is tried beside the one before (RFC 8305 5) */
	BROKEN_MS = 3600000,     /* a peer that breaks on an extension is spared it for so long */
};

enum { PEER_PIPELINING = 1, PEER_SIZE = 2, PEER_8BITMIME = 4, PEER_CHUNKING = 8, PEER_DSN = 16, PEER_STARTTLS = 32,
	PEER_SMTPUTF8 = 64, PEER_BINARYMIME = 128, PEER_REQUIRETLS = 256 };

/* A next hop: its addresses, its connections, who waits for either. */
struct hop {
	struct agent *agent;
	enum tls_demand demand;
	const char *route;       /* nexthop without the demand's prefix */
	char *nexthop, *domain;  /* the route's text; the section whose parameters hold, "" for the server's */
	uint32_t server;
	const struct outbound_params *out; /* of configuration number generation */
	uint32_t generation;
	struct lookup lookup;
	bool resolving, helo_only, lmtp; /* lmtp: RFC 2033 is spoken there */
	int64_t fresh_until_ms, no_tls_until_ms, no_pipelining_until_ms, no_chunking_until_ms;
	struct job *waiting;     /* for the look-up */
	struct job *ready, **ready_end; /* for a connection */
	struct conn *idle;
	size_t conns;            /* slots taken: connections, and jobs on the way to one */
	size_t leaving;          /* of them, those that have said QUIT */
	size_t allowed;          /* connections that qmgr wants, 0: as many as there are deliveries */
	bool turned, turned_tls; /* the peer made the connection (RFC 2645), with TLS */
	int turned_fd;           /* until its first message comes, then -1 */
	struct event *turned_timer;
	char turned_peer[64];
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
	bool fresh_only, connected;
	bool plain;              /* tried again without pipelining */
	bool heard;              /* a host answered: the fallback is out of the question */
	bool slot;               /* holds one of its hop's connections, without having one yet */
	struct conn *racing;     /* connections that are being made for it */
	struct event *race;      /* the next address's turn */
	char peer[408];
	char *last_reason;
	const char *last_status; /* RFC 3463, of last_reason; NULL: 4.4.0; 5.x.x: it is for good */
	int64_t began_ms;
	struct buffer results;   /* the verdict, until it is confirmed */
	bool sending;            /* its transaction has begun: a stop waits for it */
	bool done;
	struct job *next;        /* in its hop's waiting list */
	struct job *next_all;
};

enum conn_state { CONN_CONNECTING, CONN_GREETING, CONN_EHLO, CONN_HELO, CONN_STARTTLS, CONN_HANDSHAKE, CONN_AUTH, CONN_IDLE,
	CONN_ENVELOPE, CONN_BODY, CONN_DOT, CONN_RSET, CONN_QUIT };

/* Replies that are outstanding, in order. */
enum expected { EXPECT_MAIL, EXPECT_RCPT, EXPECT_DATA, EXPECT_DOT, EXPECT_RSET };

/* AUTH under way. */
struct login {
	struct conn *conn;
	uint64_t serial;
	bool asks;               /* authd is to say something; else it is the peer's turn */
	struct buffer held;      /* a first response too long for the line of AUTH: sent when the peer asks for it */
	bool begun, done, ended; /* done: nothing is left but the peer's yes; ended: authd knows it no more */
	struct login *next;
};

struct conn {
	struct agent *agent;
	struct hop *hop;
	struct lookup_target target;
	size_t target_index;
	char peer[408];          /* the target in words, made when a job first needs them */
	int fd;
	enum conn_state state;
	struct event *readable, *writable, *timer;
	bool want_write, tls_wants_write;
	SSL *ssl;
	struct buffer in, out;
	size_t out_at;           /* written so far */
	struct peer_reply reply;
	unsigned offers;
	uint32_t mechanisms;     /* of AUTH, that the peer offers */
	struct login *login;
	bool logged_in;
	uint64_t peer_size;
	struct job *job;
	struct { enum expected what; uint32_t rcpt; } *expect;
	size_t expect_n, expect_at, expect_size;
	size_t accepted;
	bool chunked, line_start, data_refused, greeted;
	uint64_t body_at;        /* content bytes put out so far */
	int64_t messages;
	bool stepping, closed;   /* closed while its replies are read: freed by the reading loop */
	uint32_t generation;     /* of the configuration under whose policy it was made */
	bool slot, leaving;      /* counts among its hop's connections; has said QUIT */
	struct conn *next_idle, *next_racing;
};

/* Connections of one server: qmgr says how many this agent may have. */
struct share {
	size_t conns, most;
};

struct agent {
	struct process proc;
	struct share *shares;    /* by server */
	struct own_addresses own;
	struct channel *resolver, *authd, *sts;
	struct login *logins;
	struct hop *hops[HOP_BUCKETS];
	struct job *jobs;
	SSL_CTX **tls; /* by server */
	char **tls_files; /* of their authorities */
	size_t tls_n;
	struct query *queries;
	uint64_t serial;
	bool stopping;
	struct event *stopped;   /* a moment after the last transaction: for the confirmations */
};

struct query {
	uint64_t serial;
	struct hop *hop;
	enum dns_kind kind;
	bool sts;                /* it was put to sts, for a policy */
	struct query *next;
};

static inline const struct server_params *agent_params(const struct agent *a, uint32_t server)
{
	return &a->proc.config.servers[server].p;
}
const struct outbound_params *hop_out(struct hop *h);

/* job.c */
int job_on_deliver(struct channel *ch, struct message *m);
int job_on_part(struct channel *ch, struct message *m);
int job_on_confirm(struct channel *ch, struct message *m);
void job_tell_again(struct agent *a, struct channel *qmgr, uint32_t server);
void job_set_rcpt(struct job *j, uint32_t rcpt, uint32_t outcome, int code, struct span enhanced, struct span text);
void job_set_all(struct job *j, uint32_t outcome, int code, struct span enhanced, struct span text); /* all undecided */
void job_finish(struct job *j, bool down);
void job_start(struct job *j);
bool job_is_left(struct job *j);       /* at a stop: a job whose transaction has not begun is left to the next start */
void job_stop_if_idle(struct agent *a); /* a stop ends with the last transaction */
/* hop.c */
struct hop *hop_get(struct agent *a, uint32_t server, struct span nexthop, struct span domain);
void hop_release(struct agent *a, struct hop *h);
void hop_resolve(struct agent *a, struct hop *h);
int hop_on_answer(struct channel *ch, struct message *m);
int hop_on_policy(struct channel *ch, struct message *m);
void hop_resolver_gone(struct agent *a, bool sts); /* or sts */
/* slots.c: how many connections a next hop may have */
bool slot_take(struct job *j);           /* false: none is free, j waits in line for one */
void slot_pass(struct job *j, struct conn *c); /* from the job to its connection */
void slot_free_job(struct job *j);
void slot_free(struct conn *c);
void slot_leaving(struct conn *c);       /* it says QUIT: another may begin where only qmgr's wish bounds them */
void slot_next(struct hop *h);           /* those in line have their turn */
void slot_idle(struct conn *c);          /* the connection is free for the next message */
void slot_remove_idle(struct conn *c);
void slot_new_policy(struct agent *a);   /* a reload: connections and look-ups of before serve no further message */
/* policy.c: TLS as the route's policy and the host's records want it */
enum tls_level policy_of(const struct conn *c);
MUST_CHECK int policy_demand(struct conn *c); /* of the session that is about to begin.  0 or EINVAL */
int policy_make_contexts(struct agent *a);    /* 0 or ENOMEM: those before it have not changed */
/* report.c: for TLS reports, where the server wants them */
void report_left_out(struct lookup *l, const char *domain, const char *host, enum policy_kind kind, enum session_result why);
void report_session(struct conn *c, enum session_result result, const char *reason);
void report_handshake(struct conn *c, bool done);
/* turn.c */
bool turn_is(struct span nexthop);
int turn_on_turned(struct channel *ch, struct message *m);
void turn_start(struct job *j);
/* conn.c */
void conn_adopt(struct job *j, int fd);        /* one that the peer has made; may end j */
void conn_open(struct job *j);                 /* to its next address */
void conn_take(struct conn *c, struct job *j); /* an idle one */
void conn_close(struct conn *c);
void conn_arm(struct conn *c, int64_t seconds);
void conn_flush(struct conn *c);               /* may close c */
void conn_say_quit(struct conn *c);            /* may close c */
void conn_quit_soon(struct conn *c);           /* does not */
void conn_state(struct conn *c, enum conn_state state, int64_t seconds);
/* dialog.c */
void dialog_input(struct conn *c);             /* complete lines are in c->in; may close c */
void dialog_begin(struct conn *c);             /* a job on an established connection */
void dialog_broken(struct conn *c, const char *reason); /* no more can be said; closes c */
void dialog_handshake(struct conn *c);
void dialog_established(struct conn *c);       /* all that comes before the first message has been said */
void dialog_next_address(struct conn *c, const char *what); /* the reply means that this one is of no use now */
/* auth.c */
void auth_take_extension(struct conn *c, struct span words);
bool auth_is_due(const struct conn *c);        /* before the first message */
void auth_begin(struct conn *c);               /* may close c */
void auth_reply(struct conn *c);
void auth_forget(struct conn *c);
int auth_on_answer(struct channel *ch, struct message *m);
void auth_gone(struct agent *a);
/* envelope.c */
void envelope_send(struct conn *c);
void envelope_reply(struct conn *c);
void envelope_expect_dot(struct conn *c); /* the replies that come to the end of the message */
/* adapt.c */
bool envelope_fits(struct conn *c);           /* false: what is undecided has been decided */
void adapt_offers(struct conn *c);            /* takes back what the peer offers and can't be used */
bool adapt_after_break(struct conn *c);       /* the job is to be tried again at the same address, in a plainer way */
bool adapt_to_refused_chunk(struct conn *c);  /* the message is to be sent again by DATA */
/* body.c */
void body_begin(struct conn *c);
/* Puts the next piece out: 1: there is more to write, 0: nothing to do, -1: the connection is gone. */
int body_more(struct conn *c);

#endif
