/* What the files of message share. */
#ifndef MESSAGE_PRIVATE_H
#define MESSAGE_PRIVATE_H

#include "message/message.h"

/* Bytes of a comment that s begins with, nested ones included (RFC 5322 3.2.2); all of s when it does not end. */
size_t comment_length(struct span s);
size_t quoted_length(struct span s); /* the same of a quoted string (RFC 5322 3.2.4) */

#endif
