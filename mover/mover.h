/* mover: renames, unlinks, zero-fills, writes large bodies and waiting files. */
#ifndef MOVER_MOVER_H
#define MOVER_MOVER_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"

#define EVENTS_FILE "mover/events.def"
#include "log/events.h"

enum { STORE_BATCH = 256, SPARES_KEPT = 4, BODY_BUCKETS = 256, SYNC_AHEAD = 4 * 1024 * 1024, COPY_BLOCK = 256 * 1024 };

/* A message on its way from the journal to its own file. */
struct store_job {
	struct qid id;
	uint64_t seq, offset;
	uint32_t length;
	struct buffer fates;
	int fd, error;
	struct store_job *next;
};

struct body_file {
	struct qid id;
	struct channel *origin;
	int fd, error;
	uint64_t n, synced;
	struct body_file *next;
};

struct mover {
	struct process proc;
	int queue_fd, journal_fd, wait_fd, body_fd;
	struct storage *storage, leased;
	uint32_t token; /* in the head of segments: of the lease, else the service's epoch */
	struct channel *qmgr, *cleanup;
	struct store_job *jobs, **jobs_end;
	size_t jobs_n;
	struct body_file *bodies[BODY_BUCKETS];
	struct event *work;
	bool work_due;
	uint64_t spares[64];  /* prepared segments that cleanup does not write yet, ascending */
	size_t spares_n, segments_n;
	uint64_t last_seq, segment_size, made_ms;
	int64_t stop_ms;
	int64_t limit;
};

/* store.c */
int store_on_store(struct channel *ch, struct message *m);
int store_on_fold(struct channel *ch, struct message *m);
int store_on_discard(struct channel *ch, struct message *m);
int store_on_corrupt(struct channel *ch, struct message *m);
int store_on_corrupt_record(struct channel *ch, struct message *m);
int store_on_body_refused(struct channel *ch, struct message *m);
void store_work(struct mover *m);
/* body.c */
int body_on_begin(struct channel *ch, struct message *m);
int body_on_data(struct channel *ch, struct message *m);
int body_on_copy(struct channel *ch, struct message *m);
int body_on_end(struct channel *ch, struct message *m);
int body_on_drop(struct channel *ch, struct message *m);
bool body_any(const struct mover *m); /* is one on its way? */
void body_origin_gone(struct mover *m, const struct channel *origin);
/* segments.c */
int segments_recover(struct mover *m);
int segments_on_want(struct channel *ch, struct message *m);
int segments_on_free(struct channel *ch, struct message *m);
/* dirs.c */
int dirs_prepare(struct mover *m);

#endif
