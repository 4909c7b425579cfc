/* authd: has the passwords: checks logins, and logs in at other servers, for the processes that may not know them. */
#ifndef AUTHD_AUTHD_H
#define AUTHD_AUTHD_H

#include "ipc/ipc.h"
#include "login/login.h"
#include "log/log.h"
#include "passwd/passwd.h"
#include "proc/proc.h"

#include <gsasl.h>
#include <sys/stat.h>

#define EVENTS_FILE "authd/events.def"
#include "log/events.h"

enum {
	LOGINS_MOST = 4000,      /* at a time */
	FAILURES_MOST = 65536,    /* clients and names that are remembered; the oldest make room */
	FAILURE_BUCKETS = 16384,
	FAILURE_KEY = 16,
};

/* What is remembered of a client, of a name, or of both together. */
struct failure {
	unsigned char key[FAILURE_KEY];
	int64_t start_ms, n;
	struct failure *next;          /* in its bucket */
	struct failure *older, *newer; /* all */
};
struct failures {
	struct failure *buckets[FAILURE_BUCKETS], *oldest, *newest;
	size_t n;
};

struct dovecot;

struct auth_server {
	struct passwd_file file;
	struct stat seen;              /* of the file that was read */
	bool is_there, is_new;
	char fault[100];               /* what was wrong with it; is_new: not yet told */
	struct rate client_rate, user_rate;
	struct dovecot *dovecot;       /* NULL: another back end */
	uint32_t integrated;           /* what gssd has for it */
};

/* A conversation.  It has one owner at a time: front (whose address is it?), the list of turns, the client, the delay. */
struct login {
	struct authd *authd;
	struct channel *worker;
	uint64_t serial, number;
	uint32_t server, mechanism;
	Gsasl_session *gsasl;
	enum login_wait { WAITS_FRONT, WAITS_TURN, WAITS_CLIENT, WAITS_BACKEND, WAITS_DELAY } wait;
	bool first, last;              /* no response yet; the client only has to say that it has seen our last words */
	bool client_known, trusted;
	bool begun, lost, settled;     /* at the back end: it has heard of it; it has forgotten it; it has decided */
	unsigned char client[16];      /* as IPv6; the network of an IPv6 client */
	char name[PASSWD_NAME_MOST + 1 + 256];
	struct buffer response;
	char challenge[320];           /* of CRAM-MD5 */
	struct buffer certificates;    /* of the client, for EXTERNAL */
	bool keys_asked, wants_keys;   /* of SCRAM, at a table */
	struct passwd_file keys;       /* its row */
	char *password;                /* while a table is asked what it is compared with */
	struct event *delay;
	enum login_status answer;      /* when the delay is over */
	struct login *next, *next_turn;
};

struct outward;
struct outward_password;

struct authd {
	struct process proc;
	struct auth_server *servers;
	struct channel *front, *workers, *pamd, *gssd, *gssc, *maps;
	struct login *logins, *turns, **turns_end;
	size_t logins_n;
	uint64_t numbers;
	struct outward *outward, *outward_turns; /* logins at other servers */
	size_t outward_n;
	uint64_t outward_made;
	struct outward_password *passwords, *fresh_passwords;
	Gsasl *gsasl;
	struct event *turn, *changed;
	struct failures failures, known; /* known: clients and names whose logins were good */
	unsigned char key[LOGIN_KEY], secret[LOGIN_KEY]; /* secret: of the failures' table */
	int dir_fd, notify_fd;
};

/* users.c: the files of passwords */
int users_watch(struct authd *a);                    /* before the confinement; 0 or errno */
void users_read(struct authd *a);                    /* those that have changed; tells the workers what is offered */
void users_tell(struct authd *a);                    /* the log */
uint32_t users_offered(const struct authd *a, size_t server); /* which mechanisms */
void users_offer(struct authd *a, struct channel *worker);
void users_offer_all(struct authd *a, uint32_t server); /* to all workers */
void users_changed(int fd, short what, void *context);
int users_read_rates(struct authd *a);
/* login.c */
struct login *login_by_number(const struct authd *a, uint64_t number); /* NULL: it is over */
int login_on_begin(struct channel *c, struct message *m);
int login_on_step(struct channel *c, struct message *m);
int login_on_end(struct channel *c, struct message *m);
int login_on_client(struct channel *c, struct message *m);
void login_run(int fd, short what, void *context);   /* one turn: hashing takes its time, and pings want an answer */
void login_worker_gone(struct authd *a, const struct channel *worker);
void login_front_gone(struct authd *a);
/* for back ends that answer later */
void login_wait_for_backend(struct login *l, int seconds);
void login_take_name(struct login *l, struct span said);
void login_resume(struct login *l);                  /* its turn comes again, with the words that it has */
void login_challenge(struct login *l, struct span bytes);
void login_accept(struct login *l);                  /* ends l, as the next two do */
void login_refuse(struct login *l, const char *why);
void login_failed(struct login *l);                  /* it can't be told now */
void login_put_client(const struct login *l, struct buffer *b);
/* pam.c */
bool pam_is(const struct authd *a, size_t server);
uint32_t pam_offers(const struct authd *a);
void pam_ask(struct login *l, const char *password); /* within a step of libgsasl */
bool pam_waits(struct login *l);                     /* after it; may end l */
int pam_on_answer(struct channel *c, struct message *m);
void pam_gone(struct authd *a);
/* cram.c: CRAM-MD5, of users of the file */
void cram_step(struct login *l);
uint32_t cram_offers(const struct authd *a, size_t server);
/* integrated.c: Kerberos, NTLM and certificates, by gssd */
bool integrated_is(const struct login *l);
void integrated_step(struct login *l);
void integrated_forget(const struct login *l);       /* it ends before gssd has decided */
int integrated_on_offer(struct channel *c, struct message *m);
int integrated_on_answer(struct channel *c, struct message *m);
void integrated_gone(struct authd *a);
/* table.c */
bool table_is(const struct authd *a, size_t server);
uint32_t table_offers(const struct authd *a, size_t server);
bool table_asks_first(struct login *l);                /* before a step: it goes on when the table has said the keys of SCRAM */
const struct passwd_row *table_row(const struct login *l); /* NULL: it has none */
void table_ask(struct login *l, const char *password); /* within a step of libgsasl */
bool table_waits(struct login *l);                     /* after it; may end l */
void table_forget(struct login *l);                    /* the password */
int table_on_answer(struct channel *c, struct message *m);
void table_linked(struct authd *a);
/* dovecot.c */
int dovecot_begin(struct authd *a);
uint32_t dovecot_offers(const struct authd *a, size_t server);
void dovecot_step(struct login *l);
void dovecot_forget(const struct login *l);          /* it ends before Dovecot has decided */
/* sasl.c: what libgsasl asks */
const char *sasl_word(uint32_t mechanism);
void sasl_bind(Gsasl_session *g, struct span exporter, struct span unique); /* to the connection */
int sasl_begin(struct login *l);                     /* 0 or ENOMEM */
int sasl_take_name(struct login *l, const char *said); /* as it is known here.  0 or EINVAL */
/* One step with l->response.  GSASL_NEEDS_MORE, GSASL_OK (both with *out, which the caller frees by gsasl_free), else it failed. */
int sasl_step(struct login *l, char **out, size_t *n);
int sasl_callback(Gsasl *g, Gsasl_session *session, Gsasl_property property);
/* outward.c */
int outward_on_file(struct channel *c, struct message *m);
int outward_on_files_end(struct channel *c, struct message *m);
int outward_on_begin(struct channel *c, struct message *m);
int outward_on_step(struct channel *c, struct message *m);
int outward_on_end(struct channel *c, struct message *m);
void outward_run(struct authd *a); /* one turn */
int outward_on_answer(struct channel *c, struct message *m); /* gssc's */
void outward_gssc_gone(struct authd *a);
void outward_agent_gone(struct authd *a, const struct channel *agent);
/* failures.c */
bool failures_over(struct login *l, const char **limit); /* is it looked at? */
void failures_count(struct login *l);
void failures_good(struct login *l);

#endif
