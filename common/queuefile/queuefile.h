/* queuefile: messages at rest. */
#ifndef QUEUEFILE_QUEUEFILE_H
#define QUEUEFILE_QUEUEFILE_H

#include "base/base.h"
#include "lease/lease.h"
#include "smtp/smtp.h"

/* ---- queue ids: 9 digits of microseconds, 6 of the origin's suffix; base 62, sorts by time ---- */
enum { QID_N = 15, QID_TIME_N = 9, QID_SUFFIX_N = 6 };
struct qid {
	char text[QID_N + 1]; /* NUL-terminated */
};
struct qid_maker {
	char suffix[QID_SUFFIX_N + 1];
	int64_t last_us;
};
/* The suffix of an origin: unique over nodes (random part), starts (epoch) and processes (instance). */
void qid_suffix(uint32_t node, uint32_t epoch, uint32_t instance, char out[QID_SUFFIX_N + 1]);
struct qid qid_make(struct qid_maker *m, int64_t wall_us);
MUST_CHECK int qid_parse(struct span s, struct qid *out);
int64_t qid_wall_us(const struct qid *id);
struct span qid_span(const struct qid *id);
bool qid_same(const struct qid *a, const struct qid *b);
uint64_t qid_hash(const struct qid *id);
/* "XX/ID": XX spreads ids over 256 directories. */
void qid_path(const struct qid *id, const char *tail, char *out, size_t size);

/* ---- envelope ---- */
enum envelope_flag {
	ENV_8BIT = 1, ENV_UTF8 = 2, ENV_BINARY = 4, /* BINARYMIME: holds bare CR, LF, NUL or long lines */
	ENV_BODY_FILE = 8,  /* content lies in body/XX/ID */
	ENV_LOCAL = 16,     /* came through Pickup or sendmail */
	ENV_REPORT = 32,    /* made by bounce */
	ENV_HELD = 64,
	ENV_REQUIRETLS = 128,   /* never without TLS that is verified (RFC 8689) */
	ENV_TLS_OPTIONAL = 256, /* whatever its recipients publish (RFC 8689 5) */
};
enum { RCPT_PLAIN = 16 /* beside dsn_notify bits: an alias led to its own name, it is not looked for again */ };
struct envelope_rcpt {
	struct span address; /* local@domain */
	unsigned notify;     /* dsn_notify bits, 0: not said; RCPT_PLAIN */
	struct span orcpt;
};
struct envelope {
	struct span sender; /* empty: <> */
	int64_t arrived_us;
	uint32_t flags, hops, ret;
	uint64_t size; /* bytes of content */
	struct span envid, client, helo, protocol, login, origin; /* origin: user or role for local mail */
	struct qid closes;          /* parent message, empty text: none */
	uint32_t closes_kind;       /* fate_report */
	struct span closes_rcpts;   /* u32 indexes */
	struct envelope_rcpt *rcpts; /* in the arena given to the parser */
	size_t rcpts_n;
};
void envelope_put(struct buffer *b, const struct envelope *e);
MUST_CHECK int envelope_parse(struct span text, struct arena *arena, struct envelope *out);

/* ---- storage: every change of a file goes through here, so that tests can trace and cut it ---- */
struct storage {
	int (*write)(struct storage *s, int fd, const char *name, struct span bytes, off_t at);
	int (*sync)(struct storage *s, int fd, const char *name);
	int (*rename)(struct storage *s, int dir_fd, const char *from, const char *to);
	int (*unlink)(struct storage *s, int dir_fd, const char *name);
	int (*sync_dir)(struct storage *s, int dir_fd, const char *name);
	int (*check)(struct storage *s); /* may a file be made or cut now?  NULL: always */
	void *context;
};
extern struct storage storage_real;
struct storage storage_leased(const struct lease_slot *slot); /* ESTALE where the lease does not hold */
MUST_CHECK int storage_check(struct storage *s);

/* ---- journal ---- */
enum { SEGMENT_BLOCK = 4096, SEGMENT_RANDOM = 16, SEGMENT_MIN = 1 << 20 };
struct segment {
	int fd;
	uint64_t seq, size;
	uint32_t epoch;
	char random[SEGMENT_RANDOM];
	char name[32];
};
void segment_name(uint64_t seq, char out[32]);
bool segment_parse_name(const char *name, uint64_t *seq);
/* Makes SEQ.seg below dir_fd (the journal): zero-filled, head written, all synced.  0 or errno. */
MUST_CHECK int segment_create(struct storage *st, int dir_fd, uint64_t seq, uint32_t epoch, uint64_t size);
/* Takes an old segment's space: renamed, new random bytes, synced. */
MUST_CHECK int segment_recycle(struct storage *st, int dir_fd, uint64_t old_seq, uint64_t seq, uint32_t epoch);
MUST_CHECK int segment_open(int dir_fd, uint64_t seq, bool writable, struct segment *out); /* EBADMSG: head damaged */
void segment_close(struct segment *s);

struct batch {
	struct buffer bytes; /* header, records */
	uint32_t records;
};
struct segment_writer {
	struct segment segment;
	uint64_t offset, number, synced_to;
	uint64_t ends_seq, ends_at; /* said in the first batch: where the segment before ended */
};
void batch_begin(struct batch *b);
/* Appends a record; returns its offset inside the batch.  The batch's buffer may fail: ask buffer_ok. */
size_t batch_add(struct batch *b, const struct segment_writer *w, const struct qid *id, struct span envelope,
	const struct span *pieces, size_t pieces_n);
size_t batch_bytes(const struct batch *b); /* as it will lie in the segment */
/* Writes and syncs.  On failure the segment has ended at w->synced_to and must not be written again. */
MUST_CHECK int batch_commit(struct storage *st, struct segment_writer *w, struct batch *b);

struct record {
	struct qid id;
	uint64_t seq, offset;  /* of the record's header in its segment */
	uint32_t length;       /* of the whole record */
	struct span envelope, content;
};
enum { RECORD_HEADER = 64 };
/* Parses a whole record; random NULL: of a waiting file.  EBADMSG when anything is off. */
MUST_CHECK int record_parse(struct span bytes, const char *random, struct record *out);

/* Reading on in a segment.  offset is where the next batch is looked for, end: no further. */
struct segment_reader {
	struct segment segment;
	uint64_t offset;
	struct buffer batch;
	struct span rest;       /* of the present batch */
	uint64_t record_at;     /* offset of rest */
	uint64_t synced_to;     /* the most that any batch said */
	uint64_t ends_seq, ends_at;
	uint64_t bad_at, bad_n; /* after EBADMSG: the bytes that failed their check */
};
MUST_CHECK int segment_reader_open(int dir_fd, uint64_t seq, struct segment_reader *out);
/* 0, ENOENT: nothing more below end, EBADMSG: what failed its check below end was stepped over (a batch's head and
 * all to the next good one, or a record and the rest of its batch), else errno.  end UINT64_MAX: as far as good batches
 * go, nothing behind the last one is missed. */
MUST_CHECK int segment_reader_next(struct segment_reader *r, uint64_t end, struct record *out);
void segment_reader_close(struct segment_reader *r);
/* Names below the queue of what is set aside: "corrupt/SEQ-OFFSET.rec", "corrupt/ID.msg", "corrupt/ID.body". */
void corrupt_record_name(uint64_t seq, uint64_t offset, char *out, size_t size);
void corrupt_file_name(const struct qid *id, const char *tail, char *out, size_t size);
/* Where the last good batch ends. */
MUST_CHECK int segment_scan_end(int dir_fd, uint64_t seq, uint64_t *end, uint64_t *ends_seq, uint64_t *ends_at);

/* ---- fates ---- */
enum fate_kind { FATE_CLOSED = 1, FATE_OWED = 2, FATE_REPORTED = 3, FATE_MOVED = 4, FATE_GONE = 5, FATE_HELD = 6, FATE_RELEASED = 7 };
enum fate_outcome { OUTCOME_SENT = 1, OUTCOME_FAILED = 2, OUTCOME_DEFERRED = 3, OUTCOME_REMOVED = 4,
	OUTCOME_PASSED = 5, /* sent to a peer that will report itself (RFC 3461 5.2.1) */
	OUTCOME_EXPANDED = 6, /* it goes on to other addresses: text holds them, a line each, code how many, peer whom reports go to */
	OUTCOME_PLAIN = 7 };  /* no alias: it is delivered as its domain says (never in a fate) */
enum fate_report { REPORT_FAILURE = 1, REPORT_DELAY = 2, REPORT_SUCCESS = 3,
	REPORT_COPY = 4, /* of a report of failure, for ndr_copy_to */
	REPORT_EXPANSION = 5 /* the message itself, to the addresses that an alias leads to */ };
/* What a report holds of its original: in the message that asks for it, or in the original's body file. */
enum report_original { ORIGINAL_HEADER, ORIGINAL_WHOLE, ORIGINAL_FILE };
/* What became of one recipient. */
struct result {
	uint32_t index;
	uint32_t outcome;     /* fate_outcome */
	uint32_t code;        /* SMTP reply code, 0: none */
	struct span enhanced; /* "5.1.1" */
	struct span text;     /* reply or reason */
	struct span peer;     /* host[address]:port */
};
struct fate {
	enum fate_kind kind;
	struct qid id, report;  /* report: FATE_OWED, FATE_REPORTED */
	uint32_t report_kind;   /* fate_report */
	struct span results;    /* encoded list */
};
void result_put(struct buffer *b, const struct result *r);
MUST_CHECK bool result_take(struct span *rest, struct result *out); /* false: end or damaged */
void fate_put(struct buffer *b, const struct fate *f); /* a whole line: header, CRC, padding to 8 */
/* Next good fate in bytes of a fates file or the tail of a waiting file; false: none is left. */
bool fate_next(struct span *rest, struct fate *out);

struct fates_file {
	int fd;
	uint64_t seq, offset, size;
	bool dirty;
	char name[32];
};
MUST_CHECK int fates_create(struct storage *st, int dir_fd, uint64_t seq, uint64_t size, struct fates_file *out);
MUST_CHECK int fates_append(struct storage *st, struct fates_file *f, struct span lines); /* ENOSPC: full */
MUST_CHECK int fates_sync(struct storage *st, struct fates_file *f);
bool fates_parse_name(const char *name, uint64_t *seq);
void fates_name(uint64_t seq, char out[32]);

/* What of a message a discard takes away, or'ed. */
enum discard_what { DISCARD_WAIT = 1, DISCARD_BODY = 2 };

/* ---- waiting files ---- */
/* The file's bytes: a record without random bytes, then fates. */
void wait_put(struct buffer *b, const struct qid *id, struct span envelope, struct span content, struct span fates);
MUST_CHECK int wait_parse(struct span bytes, struct record *out, struct span *fates);

#endif
