/* maps: looks addresses up in the administrator's tables, for the processes that may not read files. */
#ifndef MAPS_MAPS_H
#define MAPS_MAPS_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "map/map.h"
#include "proc/proc.h"
#include "route/route.h"

#define EVENTS_FILE "maps/events.def"
#include "log/events.h"

enum { STEPS_MOST = 20000, ASK_LIMIT_S = 20, ASK_MOST_MS = 5000, COMPLAIN_AGAIN_MS = 60000, FIELDS_MOST = 1000 };

/* One map of the configuration, whoever names it. */
struct source {
	char *spec;
	struct map *map;         /* NULL: not open (yet); remote ones are opened by their helper */
	bool whole_only;         /* patterns: never a part of an address */
	int helper_fd;           /* of a remote map's process, -1: it is read here */
	struct event *readable;
	struct query *first, *last; /* waiting for the helper; the first one's key is with it */
	int64_t complained_ms;
	struct maps *maps;
};
/* One thing to try. */
struct step {
	enum step_kind { STEP_MAP, STEP_USER, STEP_SAY } kind;
	struct source *source;
	struct span key;
	enum map_answered answer; /* when it is found */
	struct span text;         /* of STEP_SAY: the value */
	const char *param;
	uint32_t group;           /* of the steps of one group the first that finds something decides */
};
/* What a group stands for. */
struct finding {
	bool canonical;           /* else: an action */
	bool found;
	struct span asked, value; /* an address or a field; what was found */
	const char *field;        /* canonical, of a header: where its field begins */
};
struct query {
	struct channel *channel; /* NULL: gone */
	uint64_t serial;
	struct arena arena;
	struct step *steps;
	size_t n, size, at;
	struct finding *groups;     /* of ASK_CLIENT and later */
	size_t groups_n, groups_size;
	enum map_question question;
	struct span asked;        /* the header, the sender or recipient */
	enum map_answered answer;
	bool list, asking_owner; /* an owner- alias stands beside it */
	struct buffer value;
	int64_t spent_ms;         /* in tables that are read here: patterns may be slow */
	char rule[400];
	struct server *server;
	struct query *next, *next_all;
};
struct maps {
	struct process proc;
	struct source *sources;
	size_t sources_n;
	struct query *queries;
};

/* main.c */
struct source *source_find(struct maps *m, struct span spec);
/* query.c */
int query_on_query(struct channel *ch, struct message *msg);
void query_run(struct maps *m, struct query *q); /* may end it */
void query_take(struct maps *m, struct query *q, enum map_status s, struct complaint *why); /* what the present step gave; value holds it */
void query_forget(struct maps *m, const struct channel *ch);
/* operator.c */
int operator_on_query(struct channel *ch, const struct msg_map_query *asked);
/* plan.c: what is tried, in its order */
void plan_expansion(struct maps *m, struct query *q, const struct address *a, const struct domain *d);
void plan_recipient(struct maps *m, struct query *q, const struct address *a, const struct domain *d);
void plan_relay(struct maps *m, struct query *q, const struct address *a, const struct domain *d);
void plan_logins(struct maps *m, struct query *q, const struct address *a, const struct domain *d);
void plan_secret(struct maps *m, struct query *q, struct span login);
void plan_client(struct maps *m, struct query *q, struct span address);
void plan_sender(struct maps *m, struct query *q, struct span address);
void plan_recipient_access(struct maps *m, struct query *q, struct span address);
void plan_sender_name(struct maps *m, struct query *q, struct span address);
void plan_recipient_name(struct maps *m, struct query *q, struct span address);
void plan_header(struct maps *m, struct query *q, struct span header);
/* screen.c: what was found, as an answer */
/* False: a canonical map has what is no address. */
bool screen_answer(struct query *q, struct buffer *action, struct buffer *changed);
void plan_owner(struct maps *m, struct query *q, const struct step *found);
/* helper.c: maps that ask a server, each in a process of its own */
MUST_CHECK int helper_start(struct maps *m, struct source *s);
int helper_watch(struct maps *m, struct source *s);
void helper_ask(struct maps *m, struct source *s, struct query *q);

#endif
