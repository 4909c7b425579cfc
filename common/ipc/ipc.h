/* ipc: typed messages over channels between the processes of the service. */
#ifndef IPC_IPC_H
#define IPC_IPC_H

#include "base/base.h"
#include <event2/event.h>

/* Roles, one bit each: the matrix of messages.def is made of them. */
#define ROLES(X) X(MASTER, 0) X(FRONT, 1) X(SMTPD, 2) X(CLEANUP, 3) X(QMGR, 4) X(MOVER, 5) X(SMTP, 6) X(DROP, 7) \
	X(BOUNCE, 8) X(PICKUP, 9) X(CONTROL, 10) X(CONFIG, 11) X(LOGD, 12) X(RESOLVER, 13) X(LOCAL, 14) X(DELIVER, 15) X(MAPS, 16) X(AUTHD, 17) X(KEYD, 18) X(PAMD, 19) X(STS, 20) X(GSSD, 21) X(GSSC, 22) X(LEASE, 23)
enum role {
#define ROLE(name, bit) R_##name = 1 << bit,
	ROLES(ROLE)
#undef ROLE
	R_ANY = 0xfffffe, /* all but master */
};
const char *role_name(enum role r); /* "smtpd" */

#define U32(field) uint32_t field;
#define U64(field) uint64_t field;
#define SPAN(field) struct span field;
#define MSG(name, v, from, to, fds, fields) struct msg_##name { fields };
#include "ipc/messages.def"

enum msg_type {
#define WIRE(name) MSG_##name,
#define WIRE_GONE(name) MSG_GONE_##name,
#include "ipc/wire.def"
#undef WIRE
#undef WIRE_GONE
	MSG_COUNT
};

/* A message as it came: spans point into the packet and end with the handler's return. */
struct message {
	enum msg_type type;
	struct span payload;
	int *fds; /* the handler takes one by setting it to -1; the rest is closed */
	size_t fds_n;
};

#define MSG(name, v, from, to, fds, fields) \
	MUST_CHECK int msg_##name##_decode(struct span packet, struct msg_##name *out); \
	void msg_##name##_put(struct buffer *b, const struct msg_##name *m);
#define U32(field)
#define U64(field)
#define SPAN(field)
#include "ipc/messages.def"

uint32_t msg_version(enum msg_type t);
MUST_CHECK int msg_admit(uint32_t type, uint32_t version, size_t fds, enum role from, enum role to);
const char *msg_name(enum msg_type t);

enum {
	IPC_PACKET = 60 * 1024,        /* a packet is sent when it has grown to this */
	IPC_PACKET_MAX = 256 * 1024,   /* a single message may be larger than a packet, up to this */
	IPC_INLINE = 56 * 1024,        /* content up to this travels inside a message */
	IPC_FDS = 16,
};

enum server_state { SERVER_RUNS, SERVER_PAUSED, SERVER_STOPPED, SERVER_CUT /* its time is over: what is left of its sessions ends */ };
enum session_flag {
	SESSION_TRUSTED = 1,      /* in trusted_networks */
	SESSION_NAME_DECIDES = 2, /* its address alone did not decide whether it may connect */
	SESSION_TLS = 4,          /* it begins with TLS (listen_tls) */
	SESSION_SUBMISSION = 8,   /* nothing without TLS, no mail without a login (listen_submission) */
};
enum client_status { CLIENT_TAKEN, CLIENT_DENIED, CLIENT_OVER, CLIENT_NOT_HERE /* this front end may not say it */ }; /* of session_client_answer */
/* SASL mechanisms of a login, as bits: of auth_offer, one of auth_begin. */
#define MECHANISMS(X) X(SCRAM_SHA_256_PLUS, 0, "SCRAM-SHA-256-PLUS") X(SCRAM_SHA_256, 1, "SCRAM-SHA-256") X(PLAIN, 2, "PLAIN") X(LOGIN, 3, "LOGIN") \
	X(GSSAPI, 4, "GSSAPI") X(GS2_KRB5, 5, "GS2-KRB5") X(NTLM, 6, "NTLM") X(EXTERNAL, 7, "EXTERNAL") X(CRAM_MD5, 8, "CRAM-MD5")
enum mechanism {
#define MECHANISM(name, bit, word) MECHANISM_##name = 1 << bit,
	MECHANISMS(MECHANISM)
#undef MECHANISM
	MECHANISMS_BASIC = MECHANISM_SCRAM_SHA_256_PLUS | MECHANISM_SCRAM_SHA_256 | MECHANISM_PLAIN | MECHANISM_LOGIN,
	MECHANISMS_INTEGRATED = MECHANISM_GSSAPI | MECHANISM_GS2_KRB5 | MECHANISM_NTLM,
};
/* What authd says of a login (auth_answer). */
enum login_status {
	LOGIN_GOES_ON, /* text: the challenge */
	LOGIN_GOOD,    /* text: who it is; proof: for cleanup */
	LOGIN_BAD,
	LOGIN_LIMITED, /* too many that failed: not looked at */
	LOGIN_FAILED,  /* it can't be checked now */
};
/* What authd says to smtp (prove_answer). */
enum prove_status {
	PROVE_GOES_ON, /* text: the response */
	PROVE_DONE,    /* the same, and nothing is left to be said but the peer's yes */
	PROVE_FAILED,  /* text: why */
};
enum gssd_status { INTEGRATED_GOES_ON /* text: the challenge */, INTEGRATED_GOOD /* text: who it is */, INTEGRATED_BAD /* text: why */, INTEGRATED_FAILED }; /* of gss_answer */
enum pam_status { PAM_GOOD, PAM_BAD, PAM_FAILED /* it can't be told now */ }; /* of pam_answer */
enum { LOGIN_RESPONSE = 9216 }; /* bytes of a response: RFC 4954 4 has 12288 in base64 */

enum rate_kind { RATE_CONNECTIONS, RATE_MESSAGES, RATE_RECIPIENTS, RATE_KINDS };

/* What maps is asked (map_query), and what it says (map_answer). */
enum map_question {
	ASK_EXPANSION,  /* where does mail for this address of our own go on to? */
	ASK_RECIPIENT,  /* does this address of our own exist? */
	ASK_RELAY,      /* does this address of a remote domain exist? */
	ASK_LOGINS,     /* which logins may send as this address? */
	ASK_SECRET,     /* authd alone: what is a login's password compared with? */
	ASK_CLIENT,     /* what becomes of a client of this address? */
	ASK_SENDER,     /* what becomes of a sender, and what is it known as? */
	ASK_RECIPIENT_ACCESS,
	ASK_HEADER,     /* the same for a header, whole */
	ASK_SENDER_NAME, ASK_RECIPIENT_NAME, /* canonical maps alone: what is this address known as? */
	ASK_OPERATOR,   /* control alone: which servers does a user, by number, operate?  value: the user's name, then theirs */
	ASK_COUNT
};
enum map_answered { ANSWER_NONE, ANSWER_FOUND /* RECIPIENT, RELAY: it exists */, ANSWER_ADDRESSES, ANSWER_ALIAS /* aliases(5) */, ANSWER_FAILED };

/* What runs as whom: of run_as. */
enum run_kind {
	RUN_USER,    /* as the recipient: .forward, the mailbox */
	RUN_FORWARD, /* as the recipient, .forward only: RUN_GO_ON where the mailbox gets it (too) */
	RUN_MAILBOX, /* as the recipient, the mailbox only */
	RUN_ALIAS,   /* as alias_user: commands, files and lists of an alias */
};
enum { RUN_GO_ON = 100 /* exit status */, RUN_ADDRESSES = 256 * 1024 /* bytes of the file with addresses; it ends with its first NUL */ };
/* How a local delivery's process ended: of ran. */
enum run_end { RUN_EXITED, RUN_SIGNAL, RUN_LATE, RUN_NOT };

struct channel;
/* 0; an error closes the channel: EBADMSG, EPERM, EPROTO. */
typedef int message_handler(struct channel *c, struct message *m);

/* What a program does with what comes; handlers by type, NULL: EPERM. */
struct channel_owner {
	message_handler *handlers[MSG_COUNT];
	/* The peer is gone or was cut off (reason: errno, 0: closed by the peer).  The channel is
	 * freed after this returns. */
	void (*gone)(struct channel *c, int reason);
};

struct channel {
	int fd;
	enum role me, peer;
	uint32_t instance, server; /* the peer's */
	pid_t pid;
	void *program;             /* whose handlers run */
	void *peer_state;          /* the program's notes about this peer */
	struct channel *next;      /* free for the program's lists */
	const struct channel_owner *owner;
	/* private */
	struct event_base *base;
	struct event *readable, *writable, *flush, *later;
	struct buffer out;
	int out_fds[IPC_FDS];
	size_t out_fds_n;
	struct packet *queued, **queued_end;
	size_t queued_bytes;
	bool lazy, flush_due, later_due, closing, in_handler, dead;
};

/* fd is the channel's from now on.  NULL: no memory. */
struct channel *channel_make(struct event_base *base, int fd, enum role me, enum role peer,
	const struct channel_owner *owner, void *program);
void channel_close(struct channel *c); /* without calling gone; safe inside its handlers */
/* Takes what a peer that has ended said before: its successor is there sooner than the word that it is gone. */
void channel_drain(struct channel *c);
/* Appends a message; it leaves at the end of this turn of the loop.  fd (or -1) is closed here. */
void channel_begin(struct channel *c, enum msg_type type, size_t *mark);
void channel_end(struct channel *c, size_t mark, int fd);
void channel_end_fds(struct channel *c, size_t mark, const int *fds, size_t fds_n); /* at most IPC_FDS */
void channel_flush(struct channel *c);
/* While lazy is on, what is put leaves with the next message that does not wait, or after 20 ms: for
 * words that nobody is waiting for (a log line, a confirmation) a wake-up each would cost more than they do. */
void channel_lazy(struct channel *c, bool on);
size_t channel_backlog(const struct channel *c); /* bytes not yet taken by the kernel */

#define MSG(name, v, from, to, fds, fields) \
	static inline void send_##name(struct channel *c, struct msg_##name m, int fd) \
	{ size_t mark; channel_begin(c, MSG_##name, &mark); msg_##name##_put(&c->out, &m); channel_end(c, mark, fd); }
#define U32(field)
#define U64(field)
#define SPAN(field)
#include "ipc/messages.def"

/* A pair for two processes: SEQPACKET, 1 MB buffers.  0 or errno. */
MUST_CHECK int channel_pair(int ends[2]);
/* One blocking receive on a channel before there is a loop (a process's hello). */
MUST_CHECK int channel_read_first(int fd, struct buffer *packet, int *fds, size_t *fds_n, struct message *out);

#define HANDLE(c, m, name, var) \
	struct msg_##name var = {0}; \
	do { \
		if (msg_##name##_decode((m)->payload, &var) != 0) \
			return EBADMSG; \
	} while (0)

#endif
