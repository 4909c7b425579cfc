/* resolver: asks the DNS for the others. */
#ifndef RESOLVER_RESOLVER_H
#define RESOLVER_RESOLVER_H

#include "dns/context.h"
#include "dns/dns.h"
#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"
#include <unbound.h>

#define EVENTS_FILE "resolver/events.def"
#include "log/events.h"

enum { QUESTIONS_LIMIT = 4000, QUESTION_BUCKETS = 1024, NEGATIVE_TTL = 60 };

struct asker {
	struct channel *channel; /* NULL: gone */
	uint64_t serial;
	struct asker *next;
};

/* A question under way; equal ones share it. */
struct question {
	struct resolver *resolver;
	enum dns_kind kind;
	char *name;
	struct asker *askers;
	struct event *deadline;
	int async_id;
	bool answered;
	struct question *next;
};

struct resolver {
	struct process proc;
	struct ub_ctx *context;
	struct question *questions[QUESTION_BUCKETS];
	size_t questions_n;
};

int resolver_on_query(struct channel *ch, struct message *m);
void resolver_forget(struct resolver *r, const struct channel *ch);

#endif
