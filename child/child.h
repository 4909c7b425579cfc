/* child: one local delivery, as the recipient. */
#ifndef CHILD_CHILD_H
#define CHILD_CHILD_H

#include "base/base.h"

enum { TASK_FD = 3, CONTENT_FD = 4, WORDS_FD = 5, TASK_LIMIT = 256 * 1024, HEADER_MOST = 256 * 1024 };

/* What deliver said (action, target, quota) and what local told of the message. */
struct child_task {
	struct span action, target, id, sender, recipient, local, domain, extension, original, arrived, quota;
	char *path;      /* target with %u and %d filled in, below the home unless it begins with / */
};

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

#endif
