/* bounce: makes reports to senders (RFC 3462, RFC 3464). */
#ifndef BOUNCE_BOUNCE_H
#define BOUNCE_BOUNCE_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "message/message.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"

#define EVENTS_FILE "bounce/events.def"
#include "log/events.h"

enum { IN_MEMORY = 128 * 1024 }; /* a larger report goes to a file by way of mover */

struct bounce_server {
	struct channel *cleanup, *qmgr, *mover;
};
/* A large report whose file mover is writing. */
struct pending {
	struct qid id;
	uint32_t server;
	struct buffer envelope;
	struct pending *next;
};
/* A content that comes in parts. */
struct gathering {
	uint64_t delivery;
	uint32_t server;
	struct buffer content;
	struct gathering *next;
};
struct bounce {
	struct process proc;
	struct bounce_server *servers;
	struct pending *pending;
	struct gathering *gathering;
};

/* What a report is made of. */
struct report {
	struct qid id, parent;
	enum fate_report kind;    /* EXPANSION: the message itself, with two lines on top, to the addresses in results */
	const struct envelope *e; /* of the parent */
	struct span to;           /* whom it is for */
	struct span results, content;
	enum report_original original;
	const struct server_params *p;
	int64_t wall_s;
};
/* All before the end of the original, and all behind it; between them stands a body file where the original is one. */
void report_compose(struct buffer *head, struct buffer *tail, const struct report *r);
/* What stands above a message that goes on to an alias's addresses. */
void expansion_compose(struct buffer *head, const struct report *r);
/* A message to postmaster; lines name the files, each with its reason. */
void damage_compose(struct buffer *b, const struct qid *id, const struct server_params *p, struct span lines, int64_t wall_s);

/* submit.c: reports on their way to cleanup, large ones through a file of mover's */
void submit_report(struct bounce *b, uint32_t server, const struct report *r, uint64_t original_bytes);
int submit_on_body_done(struct channel *ch, struct message *m);
void submit_mover_gone(struct bounce *b, uint32_t server);
int submit_on_part(struct channel *ch, struct message *m);
struct gathering *submit_gathered(struct bounce *b, uint32_t server, uint64_t delivery); /* the caller frees; NULL: none */
void submit_free_gathering(struct gathering *g);
void submit_qmgr_gone(struct bounce *b, uint32_t server);

#endif
