/* qmgr: schedules the messages of one queue, records their fates. */
#ifndef QMGR_QMGR_H
#define QMGR_QMGR_H

#include "index.h"
#include "ipc/ipc.h"
#include "login/login.h"
#include "log/log.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"
#include "route/route.h"
#include "schedule/schedule.h"

#define EVENTS_FILE "qmgr/events.def"
#include "log/events.h"

enum {
	ACTIVE_LIMIT = 10000,       /* messages in memory; what is beyond stays in the journal or the index */
	PARK_LIMIT = 2000,          /* tasks of one destination; what is beyond waits in a file at once */
	BUCKETS = 16384,
	AGENT_TASKS = 1500,         /* deliveries that an agent holds */
	AHEAD = 4, AHEAD_MS = 200,  /* deliveries handed over for one connection, where one takes no longer than that */
	WINDOW_FIRST = 5, REPORT_CONTENT = 50 * 1024,
	FATES_BYTES = 4 * 1024 * 1024, FATES_MOST = 256 * 1024 * 1024, /* a file of facts: usual size, and when a disk failed */
	TASK_RCPTS = 250, TASK_RCPTS_LOCAL = 1000, /* of drop; local runs one at a time */ /* recipients of one delivery: verdicts fit into a packet */
	FACTS_A_PACKET = 64 * 1024,
	EXPANSION_BYTES = 32 * 1024, /* addresses of one derived message */
	DAMAGE_BYTES = 32 * 1024, NOTICE_AGAIN_S = 10, NOTICE_PAUSE_S = 60, /* a notice to postmaster: its size, when it goes again, when the next one */
	DUE_A_TURN = 500,
	ETRN_NODES_MOST = 100,      /* of ETRN at a time; of one ATRN */
	ETRN_OPEN_MS = 60000,       /* how long a domain's mail goes out after its ETRN; no second start before that */
	REPORT_FAILED_MS = 500,     /* one that bounce could not make, after that time */
	REPORT_AGAIN_MS = 10000,    /* a report that was asked for and is not in the journal then is asked for again */
};

enum rcpt_state { RCPT_DUE, RCPT_QUEUED, RCPT_OUT, RCPT_DEFERRED, RCPT_OWED, RCPT_CLOSED };

struct qrcpt {
	struct span address;   /* in the message's envelope bytes */
	struct span orcpt;
	uint8_t notify;        /* dsn_notify bits */
	uint8_t state;
	bool plain;            /* no alias leads it elsewhere: it is delivered as its domain says */
	struct dest *dest;
	char *reason;
};

/* A derived message that is to be made. */
struct owed {
	struct qid id;
	uint32_t kind;         /* fate_report */
	struct buffer results;
	int64_t asked_ms;      /* when bounce was asked last */
	struct owed *next;
};

struct qmsg {
	struct qid id;
	struct qmsg *next_hash;
	char *envelope;        /* bytes of it; e's spans point here */
	struct envelope e;
	struct qrcpt *rcpts;
	uint64_t seq, offset;
	uint32_t length;
	uint32_t attempts, tasks;
	int64_t next_attempt_s, last_attempt_s;
	bool in_wait, in_index, storing, store_failed, delayed, held, gone, park;
	bool forced;           /* an operator wants all recipients tried now */
	bool damaged;          /* its files are set aside, not discarded */
	struct owed *owed;
	struct buffer fates;   /* lines so far, while the journal holds the message */
	struct span fresh;     /* content, during intake only */
};

struct task {
	uint64_t delivery;
	struct qmsg *m;
	struct dest *dest;
	struct channel *agent; /* NULL: queued */
	uint32_t *indexes;
	size_t n;
	bool badmail, split;
	int64_t sent_ms;
	struct task *next, *prev; /* in the destination's queue */
	struct task *next_hash;
};

/* Who delivers: smtp, drop, local. */
enum agent_kind { AGENT_SMTP, AGENT_DROP, AGENT_LOCAL, AGENT_KINDS };

struct dest {
	enum agent_kind kind;
	char *nexthop;         /* a route, or how local mail is delivered */
	char *domain;          /* the section with parameters of its own, "" for the server's */
	struct dest *next_hash, *next_ready, *next_blocked;
	bool blocked;          /* in line for what all share: connections of the server, room at an agent */
	struct task *first, *last;
	size_t queued, out;
	size_t splits;         /* tasks, queued or out, that are a further part of their message: each wants a connection (MISSION D8) */
	size_t conns;          /* connections that its deliveries have now */
	struct channel *agent; /* its deliveries go to one agent, which counts its connections */
	uint32_t last_ms;      /* what its last delivery took */
	double window;
	bool local, ready, down, probing;
	uint64_t turn;         /* of which turned connection it is; 0: of none */
	bool over;             /* that has ended */
	bool etrn;             /* its mail is held until its server asks for it */
	int64_t probe_ms;      /* when down: the next probe */
	char *reason;
	size_t users;          /* recipients that point here */
};

struct seg_state {
	uint64_t seq, end, alive;
	bool complete, read, freeing;
};

struct fates_state {
	uint64_t seq, last_segment;
	size_t folds;
};

struct fold {
	struct qid id;
	uint64_t fates_seq;
	struct buffer lines;
	struct fold *next;
};

/* A node (RFC 1985) whose mail goes out for a while. */
struct opened {
	char *node;
	int64_t until_ms, begun_ms;
	struct opened *next;
};

/* A connection that a client has turned round to take its mail (RFC 2645). */
struct turn {
	struct channel *worker, *agent;
	uint64_t serial;       /* the worker's */
	uint64_t number;
	char *nodes;           /* with blanks between them */
	struct turn *next;
};

struct agent {
	struct channel *channel;
	size_t tasks;
	bool told;             /* its holds have come */
	struct agent *next;
};

struct qmgr {
	struct process proc;
	struct server *server;
	uint32_t server_index;
	struct storage *storage, leased;
	int queue_fd, journal_fd, fates_fd, wait_fd, body_fd;
	struct channel *cleanup, *mover, *bounce, *control;
	struct agent *agents[AGENT_KINDS];
	struct qmsg *messages[BUCKETS];
	size_t active, waiting; /* in memory; in the index */
	size_t conns;           /* outgoing connections, as far as deliveries tell */
	struct task *tasks[BUCKETS];
	struct dest *dests[BUCKETS], *ready, **ready_end;
	struct dest *blocked, **blocked_end;
	uint64_t next_delivery;
	struct qid_maker ids;
	/* journal */
	struct seg_state *segs;
	size_t segs_n;
	struct segment_reader reader;
	bool reading;
	struct buffer content;
	/* fates */
	struct fates_file fates;
	struct fates_state *fates_list;
	size_t fates_n;
	struct buffer lines;
	struct buffer unsynced; /* lines appended since the last good sync */
	bool fates_broken;      /* a sync failed and no new file could be begun */
	bool fold_again;        /* mover could not write a fold */
	uint64_t *confirms;     /* delivery numbers to confirm, with their channels */
	struct channel **confirm_to;
	size_t confirms_n, confirms_size;
	struct qid *gone;       /* to be unlinked after the next sync */
	uint8_t *gone_what;
	size_t gone_n, gone_size;
	struct fold *folds, **folds_end;
	struct recovered *recovered[BUCKETS]; /* facts read at the start */
	/* index */
	struct index index;
	bool index_dirty;
	unsigned pass_dir;      /* the start's pass over wait/: next directory; 256: done */
	unsigned sweep_dir;     /* then, over body/ */
	bool store_again;       /* mover could not store a message */
	unsigned seconds;       /* since the start, for what is not done in each */
	bool pass_again;        /* a file or directory could not be read in the pass */
	uint64_t wipes;         /* times that the index was thrown away */
	/* time: wall clock at the start plus monotonic time since */
	int64_t start_s, start_ms, newest_s;
	struct event *turn, *second, *start_timer, *soon;
	bool more_due; /* more rows are due than the last look took */
	bool turn_due, in_turn, started, stopping, ended, leaves, count_due;
	int64_t stop_ms; /* stopping: until when agents are waited for */
	struct listing *listings;
	struct opened *opened;
	struct turn *turns;
	uint64_t turn_numbers;  /* never the same again: an agent may hold a connection from before this process */
	unsigned char auth_key[LOGIN_KEY];
	struct phantom *phantoms;
	/* damage.c: what is to be set aside, the notice about it until it is seen in the journal */
	struct damage *damages;
	bool damage_unnoted;
	struct buffer notice;
	struct qid notice_id;
	int64_t notice_again_s, notice_after_s;
	uint64_t last_count;
};

/* A delivery that an agent carries or has ended for the qmgr before this one. */
struct phantom {
	uint64_t delivery;
	struct qid id;
	struct channel *agent;
	struct buffer indexes, results;
	bool has_verdict;
	uint32_t down, total_ms;
	struct phantom *next;
};

/* Facts about one message read from fates files at the start. */
struct recovered {
	struct qid id;
	struct buffer lines;
	struct recovered *next;
};

static inline const struct server_params *q_params(const struct qmgr *q)
{
	return &q->server->p;
}

int64_t q_now(const struct qmgr *q); /* seconds; never jumps within a run */
void q_turn_soon(struct qmgr *q);
void q_turn(struct qmgr *q);

struct agent **q_agents_of(struct qmgr *q, enum role role); /* the list of that role's agents; NULL: it delivers nothing */

/* message.c */
struct qmsg *msg_find(struct qmgr *q, const struct qid *id);
MUST_CHECK int msg_make(struct qmgr *q, const struct record *r, struct span fates, struct qmsg **out); /* 0, EBADMSG, ENOMEM */
void msg_free(struct qmgr *q, struct qmsg *m);
void msg_apply_fate(struct qmgr *q, struct qmsg *m, const struct fate *f);
void msg_start(struct qmgr *q, struct qmsg *m);  /* makes tasks of what is due */
void msg_go_on(struct qmgr *q, struct qmsg *m);  /* within the same attempt, for what local found to be no alias */
void msg_settle(struct qmgr *q, struct qmsg *m); /* after anything ended; may free m */
void rcpt_set_reason(struct qrcpt *r, struct span text);
/* What holds for a recipient: its domain's parameters, whether it is local. */
struct terms {
	const struct outbound_params *out;
	bool local;
};
struct terms rcpt_terms(const struct qmgr *q, const struct qmsg *m, size_t i);
int64_t msg_next_event(const struct qmgr *q, const struct qmsg *m);
bool msg_is_spent(const struct qmgr *q, const struct qmsg *m); /* a recipient has had retry_attempts */
enum expire_why { EXPIRE_TIME, EXPIRE_ATTEMPTS };
void msg_expire(struct qmgr *q, struct qmsg *m, enum expire_why why);
int64_t msg_next_attempt(const struct qmgr *q, const struct qmsg *m, int64_t after_s); /* by schedule, of what is open */
/* dest.c */
struct dest *dest_get(struct qmgr *q, const struct qmsg *m, size_t rcpt);
void dest_add(struct qmgr *q, struct task *t);
void dest_dispatch(struct qmgr *q);
void dest_ended(struct qmgr *q, struct task *t); /* its agent is done with it */
const struct outbound_params *dest_out(const struct qmgr *q, const struct dest *d);
uint32_t dest_connections(const struct qmgr *q, const struct dest *d); /* that it may have now */
uint32_t dest_share(const struct qmgr *q);                             /* of an agent, of all of the server's */
size_t dest_agents(const struct qmgr *q);                              /* that are used */
void dest_success(struct qmgr *q, struct dest *d);
void dest_down(struct qmgr *q, struct dest *d, struct span reason);
void dest_defer_queued(struct qmgr *q, struct dest *d, struct span reason); /* all that waits for an agent */
void dest_release(struct qmgr *q, struct dest *d);
void dest_wake(struct qmgr *q, struct dest *d);
void dest_drop_queued(struct qmgr *q, struct qmsg *m);
/* task.c */
struct task *task_make(struct qmgr *q, struct qmsg *m, struct dest *d, const uint32_t *indexes, size_t n);
struct task *task_find(struct qmgr *q, uint64_t delivery);
void task_renumber(struct qmgr *q, struct task *t, uint64_t delivery);
void task_end(struct qmgr *q, struct task *t);
int task_send(struct qmgr *q, struct task *t, struct agent *a);
void task_send_parts(struct channel *ch, uint64_t delivery, struct span *content);
void task_badmail(struct qmgr *q, struct qmsg *m, const uint32_t *indexes, size_t n, struct span reason);
void agent_gone(struct qmgr *q, const struct channel *ch);
struct agent *agent_pick_smtp(struct qmgr *q); /* the one with the least; NULL: none has room */
struct agent *agent_pick(struct qmgr *q, struct dest *d); /* NULL: none has room; d NULL: for Badmail */
/* verdict.c */
int verdict_on_verdict(struct channel *ch, struct message *m);
void verdict_apply(struct qmgr *q, struct channel *ch, struct task *t, const struct msg_verdict *v);
void verdict_defer(struct qmgr *q, struct task *t, struct span reason);
void verdict_fail(struct qmgr *q, struct qmsg *m, struct span results); /* failures found without an agent */
/* content.c */
int content_read(struct qmgr *q, struct qmsg *m, struct buffer *into, struct span *content, size_t limit, bool *truncated);
int content_body_fd(struct qmgr *q, const struct qmsg *m);
/* journal.c */
int journal_on_end(struct channel *ch, struct message *m);
int journal_on_segment_ends(struct channel *ch, struct message *m);
int journal_on_freed(struct channel *ch, struct message *m);
void journal_read(struct qmgr *q);
void journal_less(struct qmgr *q, uint64_t seq);
void journal_free_segments(struct qmgr *q);
int journal_list(struct qmgr *q);
struct seg_state *journal_seg(struct qmgr *q, uint64_t seq);
/* fates.c */
int fates_recover(struct qmgr *q);
struct recovered *fates_recovered(struct qmgr *q, const struct qid *id, bool make);
void fates_line(struct qmgr *q, struct qmsg *m, const struct fate *f);
void fates_confirm(struct qmgr *q, struct channel *agent, uint64_t delivery);
void fates_flush(struct qmgr *q);
bool fates_sync_now(struct qmgr *q); /* false: not all lines are on the disk */
void fates_gone(struct qmgr *q, const struct qid *id, unsigned what);
int fates_on_folded(struct channel *ch, struct message *m);
void fates_fold(struct qmgr *q, const struct qid *id, struct span lines); /* in pieces that fit into packets */
void fates_send_folds(struct qmgr *q);
void fates_apply_pending(struct qmgr *q, struct qmsg *m); /* facts that its file may not hold yet */
void fates_drop_old(struct qmgr *q);
void fates_forget_channel(struct qmgr *q, const struct channel *ch);
/* wait.c */
int wait_on_stored(struct channel *ch, struct message *m);
void wait_store(struct qmgr *q, struct qmsg *m);
void wait_put_row(struct qmgr *q, struct qmsg *m);
void wait_load_due(struct qmgr *q);
/* What waits and is wanted (NULL: all of it) is due now; what is held stays so.  How many. */
uint64_t wait_make_due(struct qmgr *q, bool (*wanted)(const struct row *row, struct span what), struct span what);
/* row NULL: none is known.  0; ENOENT, EBADMSG: there is no such message (any more); else it cannot be read now. */
MUST_CHECK int wait_load(struct qmgr *q, const struct qid *id, const struct row *row, struct qmsg **out);
void wait_pass(struct qmgr *q);
/* Each id with this tail in the directory of that number below parent_fd, until look says false.  0, or an errno value: the
 * directory could not be read to its end. */
MUST_CHECK int wait_each_id(struct qmgr *q, int parent_fd, unsigned which, const char *tail, bool (*look)(struct qmgr *q, const struct qid *id));
void wait_send_stores(struct qmgr *q);  /* to a new mover: all that the one before has not confirmed */
void wait_store_failed(struct qmgr *q); /* what mover could not store, once more */
void index_trouble(struct qmgr *q, int error);
/* report.c */
void report_owe(struct qmgr *q, struct qmsg *m, uint32_t kind, struct span results);
void report_expand(struct qmgr *q, struct qmsg *m, struct span results); /* the message goes on to the results' addresses */
void report_ask(struct qmgr *q, struct qmsg *m, struct owed *o);
void report_ask_all(struct qmgr *q);
void report_ask_late(struct qmgr *q); /* each second: those that were lost on their way */
void report_seen(struct qmgr *q, const struct envelope *e, const struct qid *id);
int report_on_failed(struct channel *ch, struct message *m);
void report_delay(struct qmgr *q, struct qmsg *m);
/* damage.c: what failed its check is set aside, logged, and told to postmaster */
void damage_record(struct qmgr *q, const struct segment_reader *r);
void damage_envelope(struct qmgr *q, const struct record *r);
void damage_file(struct qmgr *q, const struct qid *id, int error);
void damage_message(struct qmgr *q, const struct qmsg *m, int error);
void damage_orphan(struct qmgr *q, const struct qid *id);
bool damage_holds(const struct qmgr *q, uint64_t seq); /* the segment's bytes are still to be copied */
void damage_seen(struct qmgr *q, const struct qid *id); /* a message that came: the notice? */
void damage_work(struct qmgr *q);                      /* each second */
/* sweep.c */
void sweep_bodies(struct qmgr *q);
/* start.c */
int start_recover(struct qmgr *q, struct complaint *why);
int start_on_holds(struct channel *ch, struct message *m);
int start_keep_verdict(struct qmgr *q, struct channel *ch, const struct msg_verdict *v);
void start_adopt(struct qmgr *q, struct qmsg *m);
void start_forget(struct qmgr *q, const struct channel *ch); /* NULL: all */
void start_when_told(struct qmgr *q, bool timed_out);
/* acts.c */
int acts_on_act(struct channel *ch, struct message *m);
int acts_on_credit(struct channel *ch, struct message *m);
void acts_forget(struct qmgr *q, const struct channel *ch);
/* etrn.c */
int etrn_on_etrn(struct channel *ch, struct message *m);
#define ETRN_HELD SPAN_LIT("held until the domain's server asks for it (ETRN, ATRN)")
bool etrn_covers(struct span node, struct span domain); /* "example.org", or "@example.org": it and all below it */
bool etrn_has_mail(const struct row *row, struct span node);
bool etrn_is_open(const struct qmgr *q, struct span domain); /* of a recipient's address */
/* turn.c */
int turn_on_turn(struct channel *ch, struct message *m);
int turn_on_over(struct channel *ch, struct message *m);
const struct turn *turn_of(const struct qmgr *q, struct span domain); /* NULL: nobody takes its mail now */
void turn_forget(struct qmgr *q, const struct channel *ch);          /* a worker or an agent is gone */
/* rows.c */
void row_put_json(struct qmgr *q, struct buffer *b, const struct qid *id, const struct row *row);
void row_of_message(struct qmgr *q, const struct qmsg *m, struct buffer *bytes);

#endif
