/* pickup: makes messages of the files in Pickup and maildrop. */
#ifndef PICKUP_PICKUP_H
#define PICKUP_PICKUP_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "message/message.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"
#include "route/route.h"

#include <dirent.h>

#define EVENTS_FILE "pickup/events.def"
#include "log/events.h"

enum { FILE_LIMIT = 64 * 1024 * 1024, FILES_A_TURN = 50, RESCAN_S = 5, SUBMIT_MOST = 100, LEFT_MS = 10000, LATER_MOST = 10000 };

/* One of the two directories. */
struct place {
	int fd, taken_fd;       /* taken_fd: its .taken */
	bool maildrop;          /* the sender is the file's owner's word */
	int watch;
	DIR *left;              /* .taken, while what lies there is gone through; NULL: that is done */
};

/* A file that is complete while SUBMIT_MOST are on their way. */
struct later {
	struct later *next;
	struct place *place;
	char name[];
};

/* What a file becomes. */
struct draft {
	struct buffer envelope, content;
	size_t header_at, header_n; /* the header in content, after our Received */
	bool screened;              /* tables are asked about it: own domains are masked after that */
	char reason[200];
};

/* A message that tables are asked about. */
struct screening {
	char file[256];             /* as it was called */
	struct buffer was;          /* its envelope, as the draft had it; e and arena are of it */
	struct arena arena;
	struct envelope e;
	size_t at, header_at, header_n; /* at: 0 the sender, then each recipient, then the header */
	uint64_t serial;            /* of the question that is out */
};

/* A file that was renamed to .taken/TOKEN and is on its way. */
struct submission {
	struct qid id;
	struct place *place;
	struct buffer envelope, content;
	struct screening *screening; /* NULL: nothing (more) is asked */
	bool in_file;
	enum { BODY_HERE, BODY_ON_ITS_WAY, BODY_STORED } body; /* of in_file: with mover */
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
	struct channel *cleanup, *mover, *maps;
	uint64_t questions;
	struct submission *submissions;
	size_t submissions_n;
	struct qid_maker ids;
	struct later *later, **later_end;
	size_t later_n;
	struct event *notified, *rescan, *again, *more;
	int64_t left_ms;        /* when files that a table has put off are looked at again; 0: there is none */
};

/* scan.c */
void scan_place(struct pickup *p, struct place *pl, bool settle);
void scan_leftovers(struct pickup *p, struct place *pl);
void scan_more(struct pickup *p);      /* a place on the way is free */
void scan_notified(struct pickup *p);
int scan_begin(struct pickup *p);      /* watches; before the confinement */
int scan_make_taken(struct pickup *p); /* after it */
/* draft.c: a taken file becomes envelope and content; else why not. */
int draft_make(struct pickup *p, const struct place *pl, const struct qid *id, struct span text, uid_t owner, struct draft *out);
/* After the tables: e as they left it, header as they have it (empty: as it was).  0, ENOMEM. */
MUST_CHECK int draft_screened(const struct server *s, struct arena *arena, struct envelope *e, struct span header, struct draft *d);
/* screen.c: canonical maps and header checks */
bool screen_is_needed(const struct server *s);
MUST_CHECK int screen_begin(struct submission *s, const struct draft *d, const char *file);
void screen_ask(struct pickup *p, struct submission *s);
void screen_free(struct submission *s);
int screen_on_answer(struct channel *ch, struct message *m);
/* submit.c */
/* name: as the file was called before it was taken, "" when that is not known any more. */
void submit_file(struct pickup *p, struct place *pl, const struct qid *id, const char *name);
void submit_again(struct pickup *p);
void submit_mover_gone(struct pickup *p); /* what was on its way to it begins anew */
void submit_screened(struct pickup *p, struct submission *s);      /* tables have nothing against it: it goes on */
void submit_later(struct pickup *p, const struct submission *s, const char *reason);
void submit_leave(struct pickup *p, struct submission *s, const char *reason); /* in .taken for some time; frees s */
void submit_refuse(struct pickup *p, struct submission *s, const char *reason); /* to Badmail; frees s */
void submit_drop(struct pickup *p, struct submission *s);          /* a table wants it to go nowhere; frees s */
int submit_on_submitted(struct channel *ch, struct message *m);
int submit_on_credit(struct channel *ch, struct message *m);
int submit_on_body_done(struct channel *ch, struct message *m);

#endif
