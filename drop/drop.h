/* drop: writes messages into Drop and Badmail directories. */
#ifndef DROP_DROP_H
#define DROP_DROP_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"

#define EVENTS_FILE "drop/events.def"
#include "log/events.h"

/* A message on its way into a directory, its verdict until qmgr has confirmed it. */
struct drop_job {
	uint64_t delivery;
	struct qid id;
	bool badmail, named, not_kept; /* not_kept: Badmail is full */
	int fd, error, body_fd, dir_fd;
	struct buffer content, head, reason; /* head: the X- lines, or the envelope for Badmail */
	struct buffer indexes;
	struct drop_job *next;
};

/* A local domain's own directory. */
struct drop_place {
	char *domain;
	int fd;
};

struct drop {
	struct process proc;
	struct drop_place *places;
	size_t places_n;
	int drop_fd, badmail_fd;
	struct channel *qmgr;
	struct drop_job *jobs;      /* of this turn */
	struct drop_job *told;      /* verdicts not yet confirmed */
	struct drop_job *gathering; /* contents that come in parts */
	struct event *work;
	bool work_due;
	struct server *server;
	/* badmail.c: what the directory holds, as far as it is known */
	uint64_t badmail_bytes, badmail_lost;
	int64_t badmail_oldest_s, badmail_seen_ms;
};

int drop_on_part(struct channel *ch, struct message *m);
int drop_on_deliver(struct channel *ch, struct message *m);
int drop_on_badmail(struct channel *ch, struct message *m);
int drop_on_confirm(struct channel *ch, struct message *m);
void drop_tell_again(struct drop *d);
void drop_work(struct drop *d);
void drop_free_job(struct drop_job *j);
/* badmail.c: MISSION D12: at a limit what is there is kept, what comes is counted and logged */
bool badmail_takes(struct drop *d, uint64_t bytes);
void badmail_lose(struct drop *d, const struct drop_job *j);
/* file.c */
void drop_write_job(struct drop *d, struct drop_job *j);
void drop_name_job(struct drop_job *j);

#endif
