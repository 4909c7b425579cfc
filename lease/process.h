/* lease: takes, renews and gives back the lease of one server's queue. */
#ifndef LEASE_PROCESS_H
#define LEASE_PROCESS_H

#include "ipc/ipc.h"
#include "lease/lease.h"
#include "log/log.h"
#include "proc/proc.h"

#define EVENTS_FILE "lease/events.def"
#include "log/events.h"

enum keeper_state { KEEPER_WATCHES, KEEPER_SETTLES, KEEPER_HOLDS, KEEPER_ENDED };
struct keeper {
	struct process proc;
	int queue_fd, file_fd;        /* file_fd: locked while it is held */
	struct lease_slot *slot;
	struct lease_record own;      /* what stands in the file while it is ours */
	struct lease_watch watch;
	enum keeper_state state;
	int64_t term_ms, settled_ms, taken_ms;
	const char *from;             /* why it could be taken */
	struct event *timer;
	bool said;                    /* that it is watched */
};

/* file.c */
MUST_CHECK int file_read(const struct keeper *k, struct lease_record *out); /* ENOENT; EBADMSG: not whole */
MUST_CHECK int file_write(struct keeper *k); /* own, synced */
MUST_CHECK int file_lock(struct keeper *k, bool *alone); /* alone: no other process of this node has it locked */
MUST_CHECK int file_last_token(const struct keeper *k, uint32_t *token); /* of Queue/tokens; 0: none */
MUST_CHECK int file_note(const struct keeper *k, int64_t wall_s); /* a line of Queue/tokens */

#endif
