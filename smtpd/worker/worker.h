/* smtpd's worker: speaks SMTP with clients. */
#ifndef SMTPD_WORKER_H
#define SMTPD_WORKER_H

#include "ipc/ipc.h"
#include "lookup/lookup.h"
#include "log/log.h"
#include "login/login.h"
#include "message/message.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"
#include "route/route.h"
#include "smtp/smtp.h"
#include "tls/tls.h"

#define EVENTS_FILE "smtpd/worker/events.def"
#include "log/events.h"

enum {
	LINE_LIMIT = 4096,            /* RFC 5321 4.5.3.1.4 with room for every extension */
	LINE_LIMIT_AUTH = 12288,      /* RFC 4954 4: with AUTH, and each of its responses */
	INPUT_LIMIT = 256 * 1024,
	OUTPUT_LIMIT = 256 * 1024,    /* replies that a client does not read */
	MEMORY_CONTENT = 128 * 1024,  /* larger contents are streamed to a file */
	ASK_MS = 30000,               /* for maps to say whether a recipient exists, for the DNS to name a client */
	BODY_CREDIT = 8,              /* body_data messages under way */
	ENVELOPE_LIMIT = 128 * 1024,  /* bytes of a transaction's recipients, whatever recipient_limit says: it travels in one packet */
};

/* What a session waits for; limits: connection_timeout but where said. */
#define STATES(X) X(HANDSHAKE) X(COMMAND) X(LOGIN) X(ASKING) X(BODY) X(CHUNK) X(COMMITTING) X(TURNED) X(CLOSING)
enum session_state {
#define STATE(name) ST_##name,
	STATES(STATE)
#undef STATE
	ST_COUNT
};

struct transaction {
	struct arena arena;
	struct qid id;
	struct mail_args mail;
	struct span sender;
	struct envelope_rcpt *rcpts;
	size_t rcpts_n, rcpts_size, rcpts_bytes;
	uint64_t size;            /* content bytes so far */
	struct buffer content;    /* what is in memory: all, or what the mover has no credit for yet */
	struct data_decoder decoder;
	struct header_walk walk;
	struct buffer received;
	struct span asked_for;    /* the address that maps is asked about */
	size_t header_n;          /* bytes of the content's header */
	int64_t arrived_us;
	int64_t rewritten_bytes;  /* by which rewriting made the content longer */
	bool rewritten;
	bool header_asked, header_known, header_long; /* of header checks and canonical maps */
	bool owned;               /* sender_login_map gives the sender to the login */
	bool hold, discard;       /* as a table said */
	enum reply screened;      /* what a table says of the message; REPLY_COUNT: nothing */
	struct span screened_why;
	bool too_big, no_memory, bare, chunk_cr, bad_chunk, last_chunk, in_file, body_failed, submitted;
	unsigned credit;
	uint64_t chunk_left;
};

/* AUTH, once it has begun; good: it is over, and name is who it is. */
struct session_login {
	struct session *session;
	uint64_t serial;
	uint32_t mechanism;
	bool good, lost;                  /* lost: the authd that knew of it is gone */
	char *name;
	unsigned char proof[LOGIN_PROOF]; /* cleanup wants to see it */
	struct session_login *next;       /* of those that are not over */
};

/* ATRN: the other end is smtp's, who is the client now. */
struct session_turn {
	struct session *session;
	uint64_t serial;
	int fd;
	struct event *readable, *writable;
	bool wants_read, wants_write;
	struct session_turn *next; /* of the worker's */
};

/* A client's names, once something has asked for them. */
struct client_names {
	struct session *session;
	struct reverse reverse;
	uint64_t serial;           /* of the question that is open */
	int64_t asked_ms;
	struct client_names *next; /* of those that are open */
};
/* What goes on when they are known. */
enum names_for { NAMES_FOR_NOTHING, NAMES_FOR_ACCESS, NAMES_FOR_RELAY, NAMES_FOR_DATA, NAMES_FOR_CHUNK };

struct session {
	int fd;
	uint32_t number, server;
	enum session_state state;
	enum phase phase;
	struct worker *worker;
	struct event *readable, *writable;
	SSL *ssl;
	struct sockaddr_storage client;
	char address[48];
	char *helo;
	bool esmtp, skipping_line, dead, want_write, quit, tls_wants_write, stopping, paused;
	bool early_tls;          /* TLS comes before the greeting: until it is there */
	bool submission;         /* nothing without TLS, no mail without a login */
	bool decide_by_name;     /* whether it may connect */
	bool trusted;            /* limits for each client do not concern it */
	bool slow_down;          /* what out holds is told after a while only */
	bool is_rated;           /* front has been asked; in ST_ASKING */
	unsigned fronts;         /* which front it came from */
	struct event *tarpit;    /* the while */
	struct client_names *names; /* NULL: nobody has asked */
	enum names_for names_for;
	struct session_turn *turn;   /* NULL: no ATRN */
	struct session_login *login; /* NULL: AUTH has not begun */
	struct session_xclient *xclient; /* NULL: front has not been asked */
	bool may_xclient;        /* who made the connection is in xclient_clients */
	enum rate_kind rated;
	struct session *next_rated;
	struct buffer in, out;
	struct transaction *t;
	uint64_t session_bytes;
	uint32_t errors, junk, messages;
	bool is_asking;          /* maps has been asked; in ST_ASKING nothing goes on before its answer */
	bool hold, discard;      /* whatever this client sends, as a table said */
	uint64_t asked;          /* the question's number */
	uint32_t question;       /* map_question */
	int64_t asked_ms;
	int64_t deadline_ms;
	uint64_t progress;       /* body bytes since the deadline was set */
	struct session *older, *newer; /* the server's list by deadline */
	struct session *next_hash;     /* waiting for an answer under its transaction's id */
	struct session *next_asking;
	struct session *next_jobless;
	bool is_jobless;
	bool awaits_keys;        /* it came before keyd has said which certificates there are */
	int64_t opened_ms;       /* then */
};

/* A signature that keyd has been asked for, and that its successor will be asked for. */
struct session_signing {
	struct session *session;
	uint64_t serial;
	int64_t asked_ms;
	unsigned char key[TLS_KEY_ID];
	uint16_t scheme;
	size_t n;
	struct session_signing *next;
	char text[TLS_TEXT];
};
enum { KEY_KINDS = 8 }; /* certificates for one name */
struct key_offer {
	unsigned char key[TLS_KEY_ID];
	char *name, *chain;
	size_t chain_n;
	struct key_offer *next;
};
struct key_context {
	char *name; /* "": for clients that ask for none, or for one that is not there */
	SSL_CTX *context;
	struct key_context *next;
};

struct worker_server {
	struct channel *cleanup, *mover, *qmgr;
	struct client_list access, relay_exceptions, etrn_clients, xclients;
	struct rate rates[RATE_KINDS];
	uint32_t mechanisms;           /* that authd has for it */
	bool stopped;                  /* what comes for it is refused */
	uint32_t serial;               /* of that state */
	uint32_t held;                 /* sessions that came from earlier fronts */
	struct key_offer *offers, *fresh_offers; /* in use; as they come in */
	struct key_context *contexts;
	SSL_CTX *tls;                  /* that of "", which is one of them */
	struct tls_tickets tickets;
	struct buffer authorities;     /* whose certificates clients may show, PEM; empty: nobody's */
	struct session *oldest, *newest;
	char *size_line;
};

enum { WAIT_BUCKETS = 1024 };
/* An OCSP response, sent with the certificate that it is about. */
struct staple {
	unsigned char id[TLS_CERTIFICATE_ID];
	struct staple *next;
	size_t n;
	char response[];
};

struct worker {
	struct process proc;
	struct channel *front, *maps, *resolver, *authd, *keyd, *sts;
	struct staple *staples;        /* what authorities say of certificates */
	size_t staples_n;
	struct session_signing *signing;
	struct session *jobless;       /* handshakes for which there was no job, the oldest first */
	uint64_t signatures;
	bool keys_known;               /* keyd has said what there is */
	struct session_turn *turns;
	struct session_xclient *xclients; /* for an answer of front */
	struct session_login *logins;  /* for an answer of authd */
	unsigned fronts;               /* how many there have been */
	struct session *rated;         /* for an answer of front */
	struct client_names *naming;   /* for an answer of resolver */
	struct session *asking;        /* for an answer of maps */
	uint64_t questions;
	struct worker_server *servers;
	struct qid_maker ids;
	struct session *waiting[WAIT_BUCKETS]; /* by id: for an answer of cleanup or mover */
	struct event *sweep, *grace;
	size_t sessions_n;
	uint64_t content_bytes;
	bool stopping, retiring;
	struct buffer envelope;
	char scratch[65536];
};

static inline const struct server_params *session_params(const struct session *s)
{
	return &s->worker->proc.config.servers[s->server].p;
}

static inline bool session_has_login(const struct session *s)
{
	return s->login != NULL && s->login->good;
}

/* session.c */
void session_greet(struct session *s, bool refused, struct span why);
void session_open(struct worker *w, const struct msg_session_open *open, int fd);
void session_let_in(struct session *s);    /* the certificates are known, or not waited for any more; may free s */
void session_begin(struct session *s);     /* what comes before the greeting, once TLS is there where it comes first; may free s */
void session_put_greeting(struct session *s);
void session_name_client(struct session *s); /* by its address, for people */
void session_welcome(struct session *s);   /* it may connect */
void session_run(struct session *s);       /* goes on with what is in the input, writes, may free s */
void session_free(struct session *s);
void session_arm(struct session *s);
void session_end(struct session *s, enum reply r); /* 421 and close, after what is pending */
void session_put(struct session *s, enum reply r, struct span detail);   /* without a log line: the caller writes one */
void session_reply(struct session *s, enum reply r, struct span detail);
void session_reset(struct session *s);     /* forgets the transaction */
void worker_sweep(int fd, short what, void *context);
void worker_end_sessions(struct worker *w, uint32_t server);
int worker_on_server_state(struct channel *c, struct message *m); /* an orderly stop: 421, or the true answer and then 421 */
/* io.c */
bool session_write(struct session *s);     /* false: the peer is gone */
void session_rest(struct session *s);      /* neither reads nor writes */
void session_on_event(int fd, short what, void *context);
void session_start_tls(struct session *s);
void session_handshake(struct session *s); /* goes on with it; may free s */
/* command.c */
void command_run(struct session *s, struct span line);
/* mail.c */
enum reply mail_begin(struct session *s, struct span args);
struct transaction *mail_make_transaction(struct session *s); /* NULL: no memory */
enum reply mail_recipient(struct session *s, struct span args); /* REPLY_COUNT: said when maps has answered */
enum reply mail_take_recipient(struct session *s);              /* the one that was parsed last */
enum reply mail_route_recipient(struct session *s);             /* the same, before it: its route, may it be relayed, does it exist? */
enum reply mail_screen_sender(struct session *s);    /* what follows when front has counted */
enum reply mail_screen_recipient(struct session *s);
/* client.c: what is known of a client beside its address */
bool client_names_wait(struct session *s, enum names_for why); /* true: they are being looked up, ST_ASKING */
void client_names_early(struct session *s); /* looks them up, waits for nothing */
void client_check_access(struct session *s);
const char *client_remark(const struct session *s); /* MISSION C10, for Received; "" */
bool client_rate(struct session *s, enum rate_kind kind); /* counts; true: front is being asked, ST_ASKING */
void client_forget(struct session *s);
void client_ask_again(struct worker *w);    /* resolver is there again */
void client_front_gone(struct worker *w);
void client_front_new(struct worker *w);    /* it learns what it has to count */
void client_late(struct worker *w, int64_t now_ms);
int client_on_answer(struct channel *c, struct message *m);
int client_on_rate(struct channel *c, struct message *m);
int client_read_lists(struct worker *w);    /* of the configuration: 0 or ENOMEM */
/* auth.c */
void auth_put_extension(struct session *s);  /* the line of EHLO's reply */
void auth_command(struct session *s, struct span args);
void auth_line(struct session *s, struct span line); /* a response */
void auth_bad_line(struct session *s, enum reply r); /* one that is none: the conversation is over */
void auth_forget(struct session *s);
bool auth_is_needed(const struct session *s);        /* before MAIL */
const char *auth_method(const struct session *s);    /* of a session with a login */
void auth_gone(struct worker *w);
int auth_on_answer(struct channel *c, struct message *m);
int auth_on_offer(struct channel *c, struct message *m);
/* keys.c */
tls_signer keys_sign;
void keys_queue(struct session *s);          /* its handshake waits for another's end */
void keys_forget(struct session *s);
void keys_ask_again(struct worker *w);       /* keyd is there again */
void keys_late(struct worker *w, int64_t now_ms);
void keys_reload(struct worker *w);
int keys_on_offer(struct channel *c, struct message *m);
int keys_on_offers_end(struct channel *c, struct message *m);
int keys_on_authorities(struct channel *c, struct message *m);
int keys_on_staple(struct channel *c, struct message *m);
int keys_on_tickets(struct channel *c, struct message *m);
int keys_on_signed(struct channel *c, struct message *m);
/* xclient.c */
bool xclient_is_offered(const struct session *s);
void xclient_command(struct session *s, struct span args);
void xclient_forget(struct session *s);
int xclient_on_answer(struct channel *c, struct message *m);
void xclient_front_gone(struct worker *w);
/* turn.c */
bool turn_is_offered(const struct session *s);
void turn_command(struct session *s, struct span args);
size_t turn_pass(struct session *s, struct span in); /* what the client says; the bytes used */
void turn_look(struct session *s);                   /* reads what smtp says while there is room */
void turn_forget(struct session *s);
int turn_on_answer(struct channel *c, struct message *m);
void turn_qmgr_gone(struct worker *w, uint32_t server);
/* screen.c: the one place where others have a say: at connect, MAIL, RCPT and the end of the header.  What they are asked
 * goes to maps today; milters and policy services will be asked here as well. */
bool screen_is_needed(const struct session *s, enum map_question q);
void screen_ask(struct session *s, enum map_question q, struct span about, bool waits); /* waits: ST_ASKING */
void screen_header(struct session *s, bool waits); /* asks about the transaction's header, once */
int screen_on_answer(struct channel *c, struct message *m);
void screen_forget(struct session *s);  /* no answer is waited for any more */
void screen_ask_again(struct worker *w); /* maps is there again */
void screen_late(struct worker *w, int64_t now_ms);
bool screen_recipient_exists(struct session *s, const struct route *r); /* false: it is being asked */
/* body.c */
size_t body_take(struct session *s, struct span in);  /* ST_BODY */
size_t chunk_take(struct session *s, struct span in); /* ST_CHUNK */
void chunk_begin(struct session *s, struct span args, bool in_place);
void chunk_go_on(struct session *s);                   /* the client's names are known */
void data_begin(struct session *s);
void body_go_on(struct session *s);                    /* the header's answer has come */
/* hop.c: what the first server of a message does to it */
void hop_rewrite(struct session *s); /* as soon as the header is whole */
void hop_replace_header(struct session *s, size_t old, struct buffer *fresh); /* takes what fresh holds */
/* submit.c */
uint64_t submit_size(const struct transaction *t); /* bytes of the content as it is stored */
void submit_begin(struct session *s);     /* the content is complete */
void submit_discard(struct session *s);   /* as a table said: 250, and it goes nowhere */
void submit_all_again(struct worker *w, uint32_t server);
void submit_forget(struct session *s);    /* no answer is waited for any more */
int submit_on_submitted(struct channel *c, struct message *m);
int submit_on_credit(struct channel *c, struct message *m);
int submit_on_body_done(struct channel *c, struct message *m);
void submit_mover_gone(struct worker *w, const struct channel *mover);
bool submit_spill(struct session *s);     /* moves content to the mover as credit allows; false: no mover */

#endif
