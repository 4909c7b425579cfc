/* hornconf's parts. */
#ifndef CMD_HORNCONF_H
#define CMD_HORNCONF_H

#include "cmd/common/cli.h"
#include <jansson.h>

struct conf_options {
	const char *server, *domain;
	bool changed, defaults, values, expanded, edit, remove, describe, service, json;
};

int conf_print(struct cli *c, struct conf_options *o, char **names, int n);
int conf_edit(struct cli *c, struct conf_options *o, char **settings, int n);
int conf_init(struct cli *c, struct conf_options *o, char **settings, int n);
int conf_server(struct cli *c, struct conf_options *o, char **args, int n);
int conf_domain(struct cli *c, struct conf_options *o, char **args, int n);
#define EXPORT_FORM "configuration 1"
int conf_export(struct cli *c, struct conf_options *o, char **args, int n);
int conf_copy(struct cli *c, struct conf_options *o, char **args, int n);
int conf_import(struct cli *c, struct conf_options *o, char **args, int n);
/* This machine's name as servers without fqdn have it, and its addresses; the caller gives back the list. */
void machine_name(char out[256]);
json_t *machine_addresses(void);
/* Names below DIR of the files with passwords and keys, until take says false; true: it never did. */
bool secret_each(const struct config *c, const char *dir, bool (*take)(void *context, const char *name), void *context);
/* Checks "name=value" for a scope; complains and gives a sysexits code. */
int conf_check_setting(struct cli *c, enum param_scope scope, const char *setting, bool test_mode, const struct param_row **row, const char **value);
/* After an edit: the whole must be good, else the old text comes back. */
int conf_checked_edit(struct cli *c, const char *file, int (*edit)(void *, struct span, struct buffer *), void *context);

#endif
