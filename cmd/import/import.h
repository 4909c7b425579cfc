/* import: what the programs share that make a configuration of another server's. */
#ifndef CMD_IMPORT_IMPORT_H
#define CMD_IMPORT_IMPORT_H

#include "cmd/common/cli.h"

/* What became of something that was there. */
enum fate { IMPORT_TAKEN, IMPORT_DIFFERS, IMPORT_NONE };

struct import_row {
	enum fate fate;
	const char *what, *text; /* what: as it was there */
};
struct import_setting {
	const char *server, *domain; /* server NULL: of the service; domain NULL: of the server */
	const char *name, *value;
};
struct import_secret {
	const char *name, *text; /* a file below DIR */
};
struct import {
	struct cli cli;
	bool json, report_only;
	struct arena arena;
	struct import_row *rows;
	size_t rows_n;
	struct import_setting *settings;
	size_t settings_n;
	struct import_secret *secrets;
	size_t secrets_n;
	char **servers; /* beside default */
	size_t servers_n;
	bool failed; /* not enough memory */
};
void import_say(struct import *im, enum fate fate, const char *what, const char *format, ...) PRINTF_LIKE(4, 5);
/* False: the value is not one that Posthorn takes; a row says so.  A second value of a name takes the first one's place. */
bool import_set(struct import *im, const char *what, const char *server, const char *domain, const char *name, const char *value);
/* import_set, and a row that says so. */
void import_take(struct import *im, const char *what, const char *server, const char *name, const char *value);
const char *import_value(const struct import *im, const char *server, const char *domain, const char *name); /* NULL: not set */
void import_add_server(struct import *im, const char *name);
/* Writes the configuration, unless only a report is wanted, and the report.  A sysexits code. */
MUST_CHECK int import_end(struct import *im);
/* Is there a configuration already?  It is not written over. */
MUST_CHECK int import_begin(struct import *im);
/* -c DIR, --report, --json; false: argv[*i] is none of them. */
bool import_take_option(struct import *im, char **argv, int argc, int *i);
/* A file whose line is a password, made with the configuration; its path. */
const char *import_secret(struct import *im, const char *name, struct span text);
void import_free(struct import *im);

#endif
