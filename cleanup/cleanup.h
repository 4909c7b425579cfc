/* cleanup: appends what the origins submit to the journal. */
#ifndef CLEANUP_CLEANUP_H
#define CLEANUP_CLEANUP_H

#include "ipc/ipc.h"
#include "login/login.h"
#include "log/log.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"

#define EVENTS_FILE "cleanup/events.def"
#include "log/events.h"

enum { BATCH_BYTES = 1024 * 1024, KNOWN_BUCKETS = 8192, PARTS_LIMIT = 256 * 1024 };

/* Who waits for the batch to be durable. */
struct waiter {
	struct channel *origin; /* NULL: it is gone */
	struct qid id;
	bool has_body; /* a large one, in its file */
};

/* Ids of the last two segments: the answer to a repeated submission. */
struct known_id {
	struct qid id;
	uint64_t seq;
	struct known_id *next;
};

/* Content that comes in parts, before its submit. */
struct parts {
	struct channel *origin;
	struct qid id;
	struct buffer content;
	struct parts *next;
};

struct cleanup {
	struct process proc;
	int journal_fd;
	unsigned char auth_key[LOGIN_KEY];
	struct storage *storage, leased;
	const struct lease_slot *lease;
	bool closed_before;          /* what another node may still write is void by now */
	struct segment_writer writer;
	bool writable;               /* there is a segment to write to */
	uint64_t previous_seq, previous_end;
	uint64_t ready_seq;          /* the next segment, made by mover; 0: not yet */
	bool wanted, full;           /* full: mover has no space */
	struct batch batch;
	struct waiter *waiters;
	size_t waiters_n, waiters_size;
	struct known_id *known[KNOWN_BUCKETS];
	struct parts *parts;
	struct channel *qmgr, *mover;
	struct event *commit, *retry;
	bool commit_due;
	struct arena arena;
};

/* journal.c */
int journal_recover(struct cleanup *c);
void journal_want(struct cleanup *c);
void journal_commit(struct cleanup *c);
void journal_tell_qmgr(struct cleanup *c);
int journal_on_ready(struct channel *ch, struct message *m);
/* submit.c */
int submit_on_part(struct channel *ch, struct message *m);
int submit_on_submit(struct channel *ch, struct message *m);
void submit_origin_gone(struct cleanup *c, const struct channel *origin);
struct known_id *known_find(struct cleanup *c, const struct qid *id);
int known_add(struct cleanup *c, const struct qid *id, uint64_t seq);
void known_forget(struct cleanup *c, uint64_t before_seq);

#endif
