/* holder: which program has an address that a server wants. */
#ifndef CMD_HOLDER_H
#define CMD_HOLDER_H

#include "base/base.h"

/* For each "cannot listen on ADDR:PORT" in the text, says on standard error who listens there, as far as this user may see it. */
void holder_say(const char *program, struct span text);

#endif
