/* pickup: makes messages of the files in Pickup and maildrop. */
#ifndef PICKUP_PICKUP_H
#define PICKUP_PICKUP_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "message/message.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"
#include "route/route.h"

#define EVENTS_FILE "pickup/events.def"
#include "log/events.h"

enum { FILE_LIMIT = 64 * 1024 * 1024, FILES_A_TURN = 50, RESCAN_S = 5, SUBMIT_MOST = 100 };

/* One of the two directories. */
struct place {
	int fd, taken_fd;       /* taken_fd: its .taken */
	bool maildrop;          /* the sender is the file's owner's word */
	int watch;
};

/* A file that was renamed to .taken/TOKEN and is on its way. */
struct submission {
	struct qid id;
	struct place *place;
	struct buffer envelope, content;
	bool in_file, sent;
	uint64_t sent_bytes, size;
	unsigned credit;
	struct submission *next;
};

struct pickup {
	struct process proc;
	struct server *server;
	struct place places[2];
	size_t places_n;
	int badmail_fd, inotify_fd;
	struct channel *cleanup, *mover;
	struct submission *submissions;
	size_t submissions_n;
	struct qid_maker ids;
	struct event *notified, *rescan, *again;
	bool rescan_due;
};

/* scan.c */
void scan_place(struct pickup *p, struct place *pl, bool settle);
int scan_leftovers(struct pickup *p, struct place *pl);
void scan_notified(struct pickup *p);
int scan_begin(struct pickup *p);      /* watches; before the confinement */
int scan_make_taken(struct pickup *p); /* after it */
/* file.c: a taken file becomes envelope and content; else why not. */
struct draft {
	struct buffer envelope, content;
	char reason[200];
};
int draft_make(struct pickup *p, const struct place *pl, const struct qid *id, struct span text, uid_t owner, struct draft *out);
/* submit.c */
/* name: as the file was called before it was taken, "" when that is not known any more. */
void submit_file(struct pickup *p, struct place *pl, const struct qid *id, const char *name);
void submit_again(struct pickup *p);
int submit_on_submitted(struct channel *ch, struct message *m);
int submit_on_credit(struct channel *ch, struct message *m);
int submit_on_body_done(struct channel *ch, struct message *m);

#endif
