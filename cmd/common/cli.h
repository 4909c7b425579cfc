/* cli: what the commands share: options, the configuration, the control socket. */
#ifndef CMD_CLI_H
#define CMD_CLI_H

#include "base/base.h"
#include "params/params.h"
#include <stdio.h>
#include <sys/types.h>

struct cli {
	const char *program, *dir; /* dir: -c, else /etc/posthorn */
	int dir_fd;
	struct config config;
};
/* One option of a command, for --help and the man page's test. */
struct cli_option {
	const char *flag, *argument, *text;
};
void cli_help(const char *usage, const struct cli_option *options, size_t n);
/* Prints "program: text" to standard error; returns status, for main to return. */
int cli_fail(const struct cli *c, int status, const char *format, ...) PRINTF_LIKE(3, 4);
/* Opens DIR and reads its configuration; a sysexits code. */
MUST_CHECK int cli_open(struct cli *c);
MUST_CHECK int cli_load(struct cli *c);
/* Asks the running service one thing; rows go to take as they come, the last text to *text. */
MUST_CHECK int cli_ask(struct cli *c, const char *act, const char *server, const char *argument,
	void (*take)(void *context, struct span bytes), void *context, struct buffer *text);
/* The running master's process, 0: none (its lock is free). */
pid_t cli_master(struct cli *c);
/* Writes a file aside in its folder, syncs it, gives it its name.  0 or errno. */
MUST_CHECK int cli_replace(const char *folder, const char *name, struct span bytes, mode_t mode);
/* Edits a file below DIR under a lock: edit gets the old text. */
int cli_edit_file(struct cli *c, const char *name, int (*edit)(void *context, struct span old, struct buffer *out), void *context);

#endif
