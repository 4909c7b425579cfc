/* hornmap: makes, asks and lists look-up tables. */
#include "cmd/common/cli.h"
#include "map/map.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const struct cli_option options[] = {
	{"-c", "DIR", "the configuration (/etc/posthorn); for aliases only"},
	{"--aliases", "", "build: the text has \"name: value\" lines, as aliases(5)"},
	{"--json", "", "query, dump: JSON objects, one a line"},
	{"--help", "", "this text"},
};
static const char usage[] = "hornmap build [--aliases] TYPE:FILE... | query [--json] TYPE:FILE KEY... |\n"
	"               dump [--json] TYPE:FILE | [-c DIR] aliases";

struct request {
	struct cli cli;
	bool aliases, json;
};

static int status_of(int error)
{
	return error == ENOENT ? EX_NOINPUT : error == EACCES || error == EPERM ? EX_NOPERM : error == EINVAL || error == EEXIST ? EX_DATAERR :
		error == ENOSPC || error == EROFS ? EX_CANTCREAT : error == ENOTSUP ? EX_USAGE : EX_IOERR;
}

static int fail(const struct request *r, int error, const struct complaint *why)
{
	if (why->line > 0)
		return cli_fail(&r->cli, status_of(error), "%s:%u: %s", why->file, why->line, why->reason);
	return cli_fail(&r->cli, status_of(error), "%s: %s", why->file, why->reason);
}

static bool is_spec(const struct request *r, const char *text)
{
	struct span rest = span_of(text), spec;
	bool bad;
	if (map_spec_next(&rest, &spec, &bad) && rest.n == 0)
		return true;
	(void)cli_fail(&r->cli, EX_USAGE, "'%s': write TYPE:FILE with an absolute FILE; types: hash btree cdb regexp pcre odbc ldap, or inline:{ key = value }", text);
	return false;
}

static int build_one(const struct request *r, struct span spec, bool aliases)
{
	struct complaint why = {.file = ""};
	size_t n;
	int error = map_build(spec, aliases, &n, &why);
	if (error != 0)
		return fail(r, error, &why);
	(void)printf("%.*s: %zu entries\n", SPAN_ARG(spec), n);
	return 0;
}

static void print_pair(const struct request *r, struct span key, struct span value)
{
	struct buffer b;
	if (!r->json) {
		(void)printf("%.*s\t%.*s\n", SPAN_ARG(key), SPAN_ARG(value));
		return;
	}
	buffer_init(&b, 4 * MAP_VALUE_MOST);
	buffer_puts(&b, "{\"key\":");
	buffer_put_json(&b, key);
	buffer_puts(&b, ",\"value\":");
	buffer_put_json(&b, value);
	(void)printf("%s}\n", buffer_cstr(&b));
	buffer_free(&b);
}

static int query_one(const struct request *r, struct map *m, const char *key)
{
	struct complaint why = {.file = ""};
	struct buffer value, folded;
	buffer_init(&value, MAP_VALUE_MOST);
	buffer_init(&folded, MAP_KEY_MOST);
	for (const char *p = key; *p != '\0'; p++)
		buffer_putc(&folded, (char)tolower((unsigned char)*p));
	enum map_status s = buffer_ok(&folded) ? map_query(m, buffer_span(&folded), &value, &why) : MAP_NONE;
	if (s == MAP_FOUND && r->json)
		print_pair(r, span_of(key), buffer_span(&value));
	else if (s == MAP_FOUND)
		(void)printf("%s\n", buffer_cstr(&value));
	buffer_free(&value);
	buffer_free(&folded);
	return s == MAP_FAILED ? fail(r, EIO, &why) : s == MAP_NONE ? 1 : 0;
}

static int query_all(const struct request *r, char **args)
{
	struct complaint why = {.file = ""};
	struct map *m;
	int status = 0;
	int error = map_open(span_of(args[0]), &m, &why);
	if (error != 0)
		return fail(r, error, &why);
	for (size_t i = 1; args[i] != NULL && status <= 1; i++) {
		int one = query_one(r, m, args[i]);
		status = one > status ? one : status;
	}
	map_close(m);
	return status;
}

static bool take(void *context, struct span key, struct span value)
{
	print_pair(context, key, value);
	return true;
}

static int dump(struct request *r, const char *spec)
{
	struct complaint why = {.file = ""};
	struct map *m;
	int error = map_open(span_of(spec), &m, &why);
	if (error != 0)
		return fail(r, error, &why);
	error = map_each(m, take, r, &why);
	map_close(m);
	return error != 0 ? fail(r, error, &why) : 0;
}

static int build_texts(const struct request *r, const char *texts)
{
	struct span rest = span_of(texts), spec;
	bool bad;
	int status = 0;
	while (map_spec_next(&rest, &spec, &bad)) {
		struct span name = spec, type = span_until(&name, ':');
		bool built = span_is(type, "hash") || span_is(type, "btree") || span_is(type, "cdb");
		int one = built ? build_one(r, spec, true) : 0;
		status = one > status ? one : status;
	}
	return status;
}

/* newaliases: every alias_maps of the configuration. */
static int build_aliases(struct request *r)
{
	int status = cli_load(&r->cli);
	if (status != 0)
		return status;
	for (size_t i = 0; i < r->cli.config.servers_n; i++) {
		const struct server *s = &r->cli.config.servers[i];
		int one = build_texts(r, s->p.local.alias_maps);
		status = one > status ? one : status;
		for (size_t k = 0; k < s->domains_n; k++) {
			const char *own = local_of(s, &s->domains[k])->alias_maps;
			one = strcmp(own, s->p.local.alias_maps) == 0 ? 0 : build_texts(r, own);
			status = one > status ? one : status;
		}
	}
	config_free(&r->cli.config);
	return status;
}

static int run(struct request *r, char **args)
{
	int n = 0, status = 0;
	while (args[n] != NULL)
		n++;
	if (n == 1 && strcmp(args[0], "aliases") == 0)
		return build_aliases(r);
	for (int i = 1; i < n && (i == 1 || strcmp(args[0], "build") == 0); i++)
		if (!is_spec(r, args[i]))
			return EX_USAGE;
	if (n >= 2 && strcmp(args[0], "build") == 0) {
		for (int i = 1; i < n; i++) {
			int one = build_one(r, span_of(args[i]), r->aliases);
			status = one > status ? one : status;
		}
		return status;
	}
	if (n >= 3 && strcmp(args[0], "query") == 0)
		return query_all(r, args + 1);
	if (n == 2 && strcmp(args[0], "dump") == 0)
		return dump(r, args[1]);
	return cli_fail(&r->cli, EX_USAGE, "usage: %s", usage);
}

int main(int argc, char **argv)
{
	struct request r = {.cli = {.program = "hornmap", .dir = "/etc/posthorn"}};
	int n = 0;
	char **args = calloc((size_t)argc + 1, sizeof *args);
	if (args == NULL)
		return EX_OSERR;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			cli_help(usage, options, COUNT_OF(options));
			free(args);
			return 0;
		}
		if (strcmp(argv[i], "--aliases") == 0)
			r.aliases = true;
		else if (strcmp(argv[i], "--json") == 0)
			r.json = true;
		else if (strcmp(argv[i], "-c") == 0 && i + 1 < argc)
			r.cli.dir = argv[++i];
		else if (argv[i][0] == '-' && argv[i][1] != '\0' && n == 0) {
			free(args);
			return cli_fail(&r.cli, EX_USAGE, "%s: no such option; usage: %s", argv[i], usage);
		} else
			args[n++] = argv[i];
	}
	int status = run(&r, args);
	free(args);
	if (fflush(stdout) != 0 && status == 0)
		status = cli_fail(&r.cli, EX_IOERR, "standard output: %s", strerror(errno));
	return status;
}
