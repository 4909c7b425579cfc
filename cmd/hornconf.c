/* hornconf: shows and edits the configuration; the postconf of Posthorn. */
#include "cmd/hornconf.h"
#include "lookup/lookup.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const struct cli_option options[] = {
	{"-c", "DIR", "the configuration (/etc/posthorn)"},
	{"-s", "SERVER", "the server's parameters (default)"},
	{"-D", "DOMAIN", "the domain's parameters"},
	{"-n", "", "only what differs from the default"},
	{"-d", "", "defaults"},
	{"-h", "", "values only"},
	{"-x", "", "values with $name replaced"},
	{"-e", "name=value...", "edit in place"},
	{"-X", "name...", "remove a setting"},
	{"-p", "name...", "describe a parameter"},
	{"--service", "", "a name of both scopes means posthorn.conf"},
	{"--drain", "", "server remove: its mail leaves first"},
	{"--discard", "", "server remove: its mail is deleted"},
	{"--to", "HOST", "copy: the other machine, by ssh; may come again"},
	{"--user", "USER", "copy: who logs in there"},
	{"--with-secrets", "", "copy, export: passwords and keys too, as far as they are below DIR"},
	{"--json", "", "one JSON object"},
	{"--help", "", "this text"},
};
static const char usage[] = "hornconf [-c DIR] [-s SERVER] [-D DOMAIN] [-n|-d] [-h] [-x] [--json] [name...]\n"
	"       hornconf [-c DIR] [-s SERVER] [-D DOMAIN] -e name=value... | -X name...\n"
	"       hornconf -p name...\n"
	"       hornconf [-c DIR] init [name=value...] | check\n"
	"       hornconf [-c DIR] export FILE [--with-secrets] | import FILE | copy --to HOST [--to HOST...] [--user USER] [--with-secrets]\n"
	"       hornconf [-c DIR] server add NAME [name=value...] | remove NAME [--drain|--discard]\n"
	"                          | rename OLD NEW | clone OLD NEW [name=value...] | list\n"
	"       hornconf [-c DIR] [-s SERVER] domain add DOMAIN name=value... | remove DOMAIN | rename OLD NEW | list | default DOMAIN";

static void say_warning(void *context, const char *text)
{
	(void)fprintf(stderr, "%s: warning: %s\n", (const char *)context, text);
}

static int check(struct cli *c)
{
	int status = cli_load(c);
	if (status != 0)
		return status;
	config_warnings(&c->config, say_warning, (void *)(uintptr_t)"hornconf");
	own_warn_of_gateways(&c->config, say_warning, (void *)(uintptr_t)"hornconf");
	(void)printf("%s: the configuration is good\n", c->dir);
	return EX_OK;
}

static int describe(struct cli *c, char **names, int n)
{
	int status = EX_OK;
	for (int i = 0; i < n; i++) {
		bool found = false;
		for (size_t k = 0; k < param_rows_n; k++) {
			const struct param_row *r = &param_rows[k];
			static const char *const scopes[] = {"service", "server", "domain"};
			if (strcmp(r->name, names[i]) != 0)
				continue;
			found = true;
			(void)printf("%s (%s)\n  default: %s\n  %s\n", r->name, scopes[r->scope], r->standard[0] == '\0' ? "empty" : r->standard, r->text);
			if (r->words[0] != '\0')
				(void)printf("  one of: %s\n", r->words);
		}
		if (!found)
			status = cli_fail(c, EX_USAGE, "unknown parameter '%s'", names[i]);
	}
	return status;
}

typedef int verb_function(struct cli *c, struct conf_options *o, char **args, int n);

static int verb_check(struct cli *c, struct conf_options *o, char **args, int n)
{
	(void)o;
	(void)args;
	(void)n;
	return check(c);
}

static const struct { const char *word; verb_function *run; } verbs[] = {
	{"init", conf_init}, {"check", verb_check}, {"server", conf_server}, {"domain", conf_domain},
	{"export", conf_export}, {"import", conf_import}, {"copy", conf_copy},
};

static int run(struct cli *c, struct conf_options *o, char **args, int n)
{
	if (o->describe)
		return describe(c, args, n);
	if (o->edit || o->remove)
		return conf_edit(c, o, args, n);
	for (size_t i = 0; n > 0 && i < COUNT_OF(verbs); i++)
		if (strcmp(args[0], verbs[i].word) == 0)
			return verbs[i].run(c, o, args + 1, n - 1);
	return conf_print(c, o, args, n);
}

static bool take_flag(struct conf_options *o, const char *arg)
{
	struct { const char *flag; bool *place; } flags[] = {{"-n", &o->changed}, {"-d", &o->defaults}, {"-h", &o->values}, {"-x", &o->expanded},
		{"-e", &o->edit}, {"-X", &o->remove}, {"-p", &o->describe}, {"--service", &o->service}, {"--json", &o->json}};
	for (size_t i = 0; i < COUNT_OF(flags); i++) {
		if (strcmp(arg, flags[i].flag) == 0) {
			*flags[i].place = true;
			return true;
		}
	}
	return false;
}

int main(int argc, char **argv)
{
	struct cli c = {.program = "hornconf", .dir = "/etc/posthorn"};
	struct conf_options o = {.server = NULL};
	char **args = calloc((size_t)argc + 1, sizeof *args);
	const char *bad = NULL;
	int n = 0;
	if (args == NULL)
		return EX_OSERR;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			cli_help(usage, options, COUNT_OF(options));
			free(args);
			return EX_OK;
		}
		const char **value = strcmp(argv[i], "-c") == 0 ? &c.dir : strcmp(argv[i], "-s") == 0 ? &o.server : strcmp(argv[i], "-D") == 0 ? &o.domain : NULL;
		if (value != NULL && i + 1 < argc)
			*value = argv[++i];
		else if (strcmp(argv[i], "--drain") == 0 || strcmp(argv[i], "--discard") == 0 || strcmp(argv[i], "--with-secrets") == 0 || (argv[i][0] == '-' && argv[i][1] == '\0'))
			args[n++] = argv[i];
		else if ((strcmp(argv[i], "--to") == 0 || strcmp(argv[i], "--user") == 0) && i + 1 < argc) {
			args[n++] = argv[i];
			args[n++] = argv[++i];
		}
		else if (value != NULL || (argv[i][0] == '-' && !take_flag(&o, argv[i])))
			bad = argv[i];
		else if (argv[i][0] != '-')
			args[n++] = argv[i];
	}
	int status = bad == NULL ? run(&c, &o, args, n) : cli_fail(&c, EX_USAGE, "'%s' is not understood; --help shows the options", bad);
	free(args);
	return status;
}
