/* run: other programs, and what they write. */
#ifndef CMD_RUN_H
#define CMD_RUN_H

#include "base/base.h"

enum { RUN_PATH = 4200 };
/* Where what lies beside this program is: a command, or libexec. */
void run_beside(char out[RUN_PATH], const char *name);
/* All that a program writes to its standard output, and to standard error what it has to say unless quiet; a name without / is looked
 * for in PATH.  Its exit status, -1: it could not be run, or was ended by a signal. */
MUST_CHECK int run_output(const char *program, char *const argv[], bool quiet, struct buffer *out);
/* The same with this program's standard output. */
MUST_CHECK int run_and_wait(const char *program, char *const argv[]);

#endif
