/* postfix: main.cf, master.cf, tables and queue files of Postfix. */
#ifndef CMD_IMPORT_POSTFIX_H
#define CMD_IMPORT_POSTFIX_H

#include "cmd/import/import.h"

struct pf_setting {
	const char *name, *value; /* as written */
	bool used;                /* something was said about it */
};
struct pf_service {
	const char *name, *type, *command; /* "smtp", "inet", "smtpd" */
	struct pf_setting *options;        /* -o name=value */
	size_t options_n;
	const char *arguments;             /* what else stands behind the command */
};
struct postfix {
	struct import im;
	const char *dir;           /* of main.cf */
	const char *host, *domain; /* myhostname, mydomain where they are not set */
	struct pf_setting *settings;
	size_t settings_n;
	struct pf_service *services;
	size_t services_n;
	struct arena arena;
};

/* Reads DIR/main.cf and DIR/master.cf.  A sysexits code. */
MUST_CHECK int pf_read(struct postfix *pf);
/* A parameter's value, $names replaced; Postfix's default where it is not set and that matters here, else "".  It counts as used. */
const char *pf_get(struct postfix *pf, const char *name);
bool pf_is_set(const struct postfix *pf, const char *name);
bool pf_is_yes(struct postfix *pf, const char *name);
bool pf_has_logins(struct postfix *pf); /* is AUTH offered anywhere? */
/* "name = value", for the report. */
const char *pf_what(struct postfix *pf, const char *name);
/* The next of a list: blanks and commas separate, {...} is one. */
struct span pf_word(struct span *rest);

/* The rows of the text from which a table is made: "hash:/etc/postfix/transport".  False: it cannot be read; a row says so. */
bool pf_table(struct postfix *pf, const char *what, struct span table, void (*take)(void *context, struct span key, struct span value), void *context);
/* Postfix's list of tables as Posthorn writes it; those that have no counterpart are left out, and told. */
const char *pf_maps(struct postfix *pf, const char *name);

/* All that the configuration says. */
void pf_translate(struct postfix *pf);
void pf_translate_network(struct postfix *pf);
void pf_translate_tls(struct postfix *pf);
void pf_translate_domains(struct postfix *pf);
void pf_translate_rules(struct postfix *pf);

/* Hands each waiting message to Posthorn's maildrop; a file that was taken goes to QUEUE/posthorn.  direct: not by postcat.  A
 * sysexits code. */
MUST_CHECK int pf_queue(struct postfix *pf, const char *queue, bool held, bool direct);

#endif
