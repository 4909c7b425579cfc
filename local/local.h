/* local: delivers to users of this machine, by way of deliver. */
#ifndef LOCAL_LOCAL_H
#define LOCAL_LOCAL_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"

#define EVENTS_FILE "local/events.def"
#include "log/events.h"

/* One delivery to one recipient; after its end the verdict, until qmgr has confirmed it. */
struct local_job {
	uint64_t delivery;
	struct qid id;
	struct buffer content, indexes, task;
	int body_fd;
	char *address, *user, *base; /* base: the user before an extension, "" when there is none */
	char *domain;                /* the section whose parameters hold, "" for the server's */
	char *own_domain;            /* of the address, as it is known */
	enum job_step { STEP_GATHER, STEP_ASK, STEP_ALIAS, STEP_FORWARD, STEP_DELIVER, STEP_DONE } step;
	bool running;                /* the step was begun: maps or deliver has been told */
	bool plain;                  /* no alias is looked for */
	bool to_mailbox;             /* an alias leads to its own name (too) */
	struct buffer addresses;     /* where it goes on to, a line each */
	unsigned addresses_count;
	char *owner;                 /* of a list: whom reports go to */
	uint32_t outcome, code;
	char enhanced[12], text[420];
	int64_t began_ms;
	struct local_job *next;
};

struct local {
	struct process proc;
	struct server *server;
	uint32_t server_index;
	struct channel *qmgr, *deliver, *maps;
	struct local_job *jobs;
};

int job_on_part(struct channel *ch, struct message *m);
int job_on_deliver(struct channel *ch, struct message *m);
int job_on_confirm(struct channel *ch, struct message *m);
int job_on_ran(struct channel *ch, struct message *m);
int job_on_answer(struct channel *ch, struct message *m);
void job_maps_gone(struct local *l);
void job_go_on(struct local *l, struct local_job *j); /* begins the present step, where that can be */
void job_fail(struct local *l, struct local_job *j, bool for_good, const char *enhanced, const char *text);
void job_finish(struct local *l, struct local_job *j);
const struct local_params *job_params(const struct local *l, const struct local_job *j);
void job_tell_again(struct local *l);
void job_deliver_back(struct local *l); /* deliver is there (again): what it does not run begins */
void job_deliver_gone(struct local *l);
void job_drop_parts(struct local *l);   /* qmgr is gone: contents that came in part */
/* expand.c: where an alias leads to.  False: the job has ended */
bool expand_take(struct local *l, struct local_job *j, struct span value, bool alias, bool list);
bool expand_lines(struct local *l, struct local_job *j, struct span lines); /* as the child found them */
void expand_end(struct local *l, struct local_job *j);                      /* goes on: the mailbox, or the verdict */
/* task.c: what the child is told; the words of its end */
int task_compose(struct local *l, struct local_job *j, const struct envelope *e, struct span nexthop);
void task_ended(struct local_job *j, const struct msg_ran *ran);

#endif
