/* keyd: has the private keys, and signs for the processes that may not have them. */
#ifndef KEYD_KEYD_H
#define KEYD_KEYD_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"
#include "tls/tls.h"

#define EVENTS_FILE "keyd/events.def"
#include "log/events.h"

enum {
	PEM_MOST = 128 * 1024, /* bytes of a file */
	OLD_KEYS_S = 60,       /* a handshake that began under a key may end under it */
	TICKETS_S = 3600,      /* keys of tickets are new after this, and still taken as long again */
	EXPIRY_DAYS = 30,      /* MISSION C7: warned of so long ahead */
};

/* A certificate with its key. */
struct pair {
	uint32_t server;
	char *name, *file;     /* name: "", or what clients ask for */
	struct buffer chain;
	X509 *certificate;
	EVP_PKEY *key;
	unsigned char id[TLS_KEY_ID];
	bool is_bad;           /* its files were of no use: it only says for whom something is missing */
	int64_t gone_ms;       /* when it was replaced */
	struct pair *next;
};

struct keyd {
	struct process proc;
	struct pair *pairs, *fresh, **fresh_end, *old; /* in use; as they come in; replaced */
	uint32_t generation;   /* of pairs; 0: none has come yet */
	struct tls_tickets *tickets; /* by server */
	struct event *rotate, *daily, *forget;
	struct channel *workers;
};

/* pairs.c */
int pairs_on_pair(struct channel *c, struct message *m);
int pairs_on_end(struct channel *c, struct message *m);
void pairs_offer(struct keyd *k, struct channel *worker);
void pairs_forget(int fd, short what, void *context);
void pairs_look_at_dates(int fd, short what, void *context);
/* sign.c */
int sign_on_request(struct channel *c, struct message *m);
/* tickets.c */
int tickets_begin(struct keyd *k); /* 0 or errno */
void tickets_offer(struct keyd *k, struct channel *worker);

#endif
