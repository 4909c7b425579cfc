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
	bool running, done;
	uint32_t outcome, code;
	char enhanced[12], text[420];
	int64_t began_ms;
	struct local_job *next;
};

struct local {
	struct process proc;
	struct server *server;
	struct channel *qmgr, *deliver;
	struct local_job *jobs;
};

int job_on_part(struct channel *ch, struct message *m);
int job_on_deliver(struct channel *ch, struct message *m);
int job_on_confirm(struct channel *ch, struct message *m);
int job_on_ran(struct channel *ch, struct message *m);
void job_tell_again(struct local *l);
void job_deliver_back(struct local *l); /* deliver is there (again): what it does not run begins */
void job_deliver_gone(struct local *l);
void job_drop_parts(struct local *l);   /* qmgr is gone: contents that came in part */
/* task.c: what the child is told; the words of its end */
int task_compose(struct local *l, struct local_job *j, const struct envelope *e, struct span nexthop);
void task_ended(struct local_job *j, const struct msg_ran *ran);

#endif
