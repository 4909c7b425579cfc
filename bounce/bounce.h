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

struct bounce_server {
	struct channel *cleanup, *qmgr;
};
struct bounce {
	struct process proc;
	struct bounce_server *servers;
};

/* What a report is made of. */
struct report {
	struct qid id, parent;
	enum fate_report kind;
	const struct envelope *e; /* of the parent */
	struct span results, content;
	bool truncated;
	const struct server_params *p;
	int64_t wall_s;
};
void report_compose(struct buffer *b, const struct report *r);
/* A message to postmaster; lines name the files, each with its reason. */
void damage_compose(struct buffer *b, const struct qid *id, const struct server_params *p, struct span lines, int64_t wall_s);

#endif
