/* What the script of an smtpd session and the worker's neighbours, whom it leads, have in common. */
#ifndef REPLAY_SMTPD_H
#define REPLAY_SMTPD_H

#include "replay.h"
#include "smtpd/worker/worker.h"

enum cleanup_mood { CLEANUP_ANSWERS, CLEANUP_HOLDS };

struct side {
	struct worker worker;
	struct channel *cleanup, *mover, *front, *maps, *qmgr, *resolver, *authd, *keyd;  /* the far ends */
	uint64_t dns;                    /* the last question that resolver was asked */
	uint32_t dns_kind;
	char dns_about[300], rate_about[40];
	uint32_t front_serial;           /* of the server's state by which front goes */
	uint32_t rated;                  /* the session that front was asked about */
	uint64_t login;                  /* the last that authd was asked about */
	char login_about[700];
	uint64_t turn;                   /* the last ATRN that qmgr was asked for */
	int turn_fd;
	char turn_about[300];
	char etrn[300];                  /* the last that qmgr was asked for */
	uint64_t question;               /* the last that maps was asked */
	unsigned asked, answered, discards;
	char about[900];
	enum cleanup_mood mood;
	uint32_t status;                 /* of cleanup's answers */
	uint32_t body_status;            /* of mover's */
	bool mover_holds;
	uint32_t port;                   /* session_flag bits of the listener */
	char client[64];
	bool opened;
	unsigned submissions, taken;     /* that cleanup saw; that the script looked at */
	unsigned sessions_closed, promises; /* promises: 250 for a message */
	struct buffer parts, content, envelope, body;
	struct qid id;
	SSL_CTX *tls;
	uint32_t client_status, client_flags; /* what front says to XCLIENT */
	EVP_PKEY *key;                   /* that keyd has */
	enum { KEYD_SIGNS, KEYD_HOLDS, KEYD_REFUSES } keyd_mood;
};
extern struct side side;

struct channel *link_to(struct replay *r, enum role role, struct channel **far);
void answer_submission(void);
void replay_state(struct replay *r, struct span args);
void replay_front_serial(struct replay *r, struct span args);

#endif
