/* The index of what waits: a cache, made anew from the waiting files whenever it is in doubt. */
#ifndef QMGR_INDEX_H
#define QMGR_INDEX_H

#include "base/base.h"
#include "queuefile/queuefile.h"
#include <db.h>

struct index {
	DB_ENV *env;
	DB *rows, *by_time, *by_dest, *by_sender;
	DB_TXN *txn;       /* of this turn */
	uint64_t changes;  /* since the last checkpoint */
};

/* A row, as the fields lie in it. */
struct row {
	int64_t next_s;         /* when something is due; ROW_ACTIVE, ROW_HELD */
	int64_t next_attempt_s, last_attempt_s, arrived_us;
	uint32_t attempts, flags;
	uint64_t size;
	struct span sender, dest;
	struct span rcpts;      /* u8 state, address, reason: repeated */
};
enum { ROW_DELAYED = 1, ROW_IS_HELD = 2, ROW_FORCED = 4 };
#define ROW_ACTIVE INT64_C(0)
#define ROW_HELD INT64_MAX

void row_put(struct buffer *b, const struct row *r);
MUST_CHECK int row_parse(struct span bytes, struct row *out);

/* The environment is the present directory.  Errors are Berkeley DB's or errno values. */
int index_open(struct index *x, bool recover);
void index_close(struct index *x);
int index_wipe(void);                 /* all files of the present directory */
int index_put(struct index *x, const struct qid *id, const struct row *row);
int index_delete(struct index *x, const struct qid *id);      /* ENOENT: it was not there */
int index_get(struct index *x, const struct qid *id, struct buffer *bytes, struct row *out);
/* Ids due at or before now_s, the earliest first; *next_s is when the first later one is due. */
int index_due(struct index *x, int64_t from_s, int64_t now_s, struct qid *out, size_t size, size_t *n, int64_t *next_s);
/* The row after *id in the order of ids (empty id: the first).  ENOENT: none. */
int index_next(struct index *x, struct qid *id, struct buffer *bytes, struct row *out);
int index_count(struct index *x, uint64_t *n);
int index_commit(struct index *x);    /* ends the turn's transaction */

#endif
