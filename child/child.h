/* child: one local delivery, as the recipient. */
#ifndef CHILD_CHILD_H
#define CHILD_CHILD_H

#include "base/base.h"

enum { TASK_FD = 3, CONTENT_FD = 4, WORDS_FD = 5, ADDRESSES_FD = 6, TASK_LIMIT = 256 * 1024, HEADER_MOST = 256 * 1024 };

/* What deliver said (action, target, quota) and what local told of the message. */
struct child_task {
	struct span action, target, id, sender, recipient, local, domain, extension, original, arrived, quota;
	struct span forward, maps, delimiter, owner, name; /* proc.h has their words */
	struct span note; /* said beside a success: why a .forward was not followed */
	struct buffer bytes; /* of local's words: the spans point into it */
	char *path;      /* target with %u and %d filled in, below the home unless it begins with / */
};

void child_begin(struct child_task *t);              /* reads it; ends the process on a loop */
_Noreturn void child_deliver(struct child_task *t); /* by action and target */
_Noreturn void child_go_on(void);                   /* RUN_GO_ON: the mailbox gets the message, in another process */
/* Ends the process with "CODE X.Y.Z TEXT"; how: printf's. */
_Noreturn void child_end(int code, const char *enhanced, const char *format, ...) PRINTF_LIKE(3, 4);
/* After a failed call on a file: no room and no quota wait or return, as the task says, all else waits. */
_Noreturn void child_fail(const struct child_task *t, const char *what, int error);
/* The message with its trace lines, LF ends its lines; mbox: a From_ line before it, >From quoted, an empty line behind.
 * 0 or errno. */
MUST_CHECK int content_copy(const struct child_task *t, int out, bool mbox);
bool content_has_been_here(const struct child_task *t); /* a Delivered-To of this recipient: a loop */
void content_put_from_line(struct buffer *b, const struct child_task *t);
_Noreturn void maildir_deliver(const struct child_task *t);
_Noreturn void mbox_deliver(const struct child_task *t);
_Noreturn void pipe_deliver(const struct child_task *t);

/* forward.c: .forward, where there is one that is safe.  Returns: the mailbox gets the message, nothing else does. */
void forward_follow(struct child_task *t);

/* items.c: the right side of an alias or .forward */
struct items {
	const struct child_task *task;
	struct span own;          /* of .forward: the user; an address that is this one is the mailbox.  Of an alias: empty */
	bool includes;            /* :include: is followed */
	bool runs;                /* commands and files are taken */
	struct buffer addresses;  /* a line each */
	bool mailbox;
	unsigned depth, items;
};
/* Commands are run and files written as they come; the first that fails ends the process with its words. */
void items_do(struct items *it, struct span text, const char *where);
/* Hands the addresses on and ends the process: 250, RUN_GO_ON, or by delivering to the mailbox. */
_Noreturn void items_end(struct items *it, struct child_task *t);

#endif
