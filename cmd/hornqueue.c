/* hornqueue: shows the queues and acts on their messages. */
#include "cmd/hornqueue.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const struct cli_option options[] = {
	{"-c", "DIR", "the configuration (/etc/posthorn)"},
	{"-s", "SERVER", "this server's queue only"},
	{"--json", "", "one JSON object a line"},
	{"--help", "", "this text"},
};
static const char usage[] = "hornqueue [-c DIR] [-s SERVER] [--json] list | flush | show ID... | cat ID | why ID... |\n"
	"                 hold ID... | release ID... | retry ID... | remove ID... |\n"
	"                 badmail list | badmail show|requeue|remove ID...";

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));
	return text == NULL ? "-" : text;
}

void print_safe(const char *text)
{
	for (const char *p = text; *p != '\0'; p++)
		(void)putchar((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p);
}

static void print_row(struct request *r, struct span line)
{
	json_t *o;
	if (r->json) {
		(void)printf("%.*s\n", SPAN_ARG(line));
		return;
	}
	o = json_loadb(line.at, line.n, 0, NULL);
	if (o == NULL)
		return;
	(void)printf("%s %-8s %8lld %s <", text_of(o, "id"), text_of(o, "state"), (long long)json_integer_value(json_object_get(o, "size")), text_of(o, "arrival"));
	print_safe(text_of(o, "sender"));
	(void)printf(">\n");
	size_t i;
	json_t *rcpt;
	json_array_foreach(json_object_get(o, "recipients"), i, rcpt) {
		if (strcmp(text_of(rcpt, "state"), "closed") == 0)
			continue;
		(void)printf("    <");
		print_safe(text_of(rcpt, "address"));
		(void)printf("> ");
		print_safe(text_of(rcpt, "reason"));
		(void)putchar('\n');
	}
	(void)printf("    %lld attempt(s), next %s\n", (long long)json_integer_value(json_object_get(o, "attempts")), text_of(o, "next_attempt"));
	json_decref(o);
}

static void take_rows(void *context, struct span bytes)
{
	struct request *r = context;
	buffer_put_span(&r->partial, bytes);
	for (;;) {
		struct span rest = buffer_span(&r->partial);
		size_t n = rest.n;
		struct span line = span_until(&rest, '\n');
		if (line.n == n)
			return;
		if (line.n > 0) {
			r->rows++;
			print_row(r, line);
		}
		buffer_drop(&r->partial, line.n + 1);
	}
}

static void take_bytes(void *context, struct span bytes)
{
	(void)context;
	(void)fwrite(bytes.at, 1, bytes.n, stdout);
}

/* An id is looked for in each queue in turn. */
static int ask_about(struct cli *c, struct request *r, const char *act, const char *id, void (*take)(void *, struct span))
{
	int status = EX_NOINPUT;
	struct buffer text;
	buffer_init(&text, 4096);
	for (size_t i = 0; i < c->config.servers_n && (status == EX_NOINPUT || (status == EX_UNAVAILABLE && text.n > 0 && r->server == NULL)); i++) {
		const char *server = c->config.servers[i].name;
		if (r->server != NULL && strcmp(r->server, server) != 0)
			continue;
		buffer_clear(&text);
		status = cli_ask(c, act, server, id, take, r, &text);
	}
	if (status != 0)
		(void)cli_fail(c, status, "%s: %s", id, text.n == 0 ? "no such message" : buffer_cstr(&text));
	buffer_free(&text);
	return status;
}

/* Without -s a server that is stopped is said and passed over. */
static int list_one(struct cli *c, struct request *r, const char *server)
{
	struct buffer text;
	buffer_init(&text, 4096);
	int status = cli_ask(c, "list", server, "", take_rows, r, &text);
	if (status == EX_UNAVAILABLE && text.n > 0 && r->server == NULL)
		status = cli_fail(c, EX_OK, "%s: %s", server, buffer_cstr(&text));
	else if (status != 0 && text.n > 0)
		(void)cli_fail(c, status, "%s", buffer_cstr(&text));
	buffer_free(&text);
	return status;
}

static int list(struct cli *c, struct request *r)
{
	int status = EX_OK;
	for (size_t i = 0; i < c->config.servers_n && status == 0; i++)
		if (r->server == NULL || strcmp(r->server, c->config.servers[i].name) == 0)
			status = list_one(c, r, c->config.servers[i].name);
	if (status == 0 && !r->json)
		(void)printf("%zu message%s\n", r->rows, r->rows == 1 ? "" : "s");
	return status;
}

static int flush(struct cli *c, const struct request *r)
{
	int status = EX_OK;
	for (size_t i = 0; i < c->config.servers_n && status == 0; i++) {
		struct buffer text;
		if (r->server != NULL && strcmp(r->server, c->config.servers[i].name) != 0)
			continue;
		buffer_init(&text, 4096);
		status = cli_ask(c, "flush", c->config.servers[i].name, "", NULL, NULL, &text);
		if (status == 0)
			(void)printf("%s: %s message(s) are tried now\n", c->config.servers[i].name, buffer_cstr(&text));
		else
			(void)cli_fail(c, status, "%s", buffer_cstr(&text));
		buffer_free(&text);
	}
	return status;
}

static const struct { const char *act; void (*take)(void *, struct span); } acts[] = {
	{"show", take_rows}, {"cat", take_bytes}, {"why", take_bytes}, {"hold", NULL}, {"release", NULL}, {"retry", NULL}, {"remove", NULL},
};

static int run(struct cli *c, struct request *r, char **args, int n)
{
	int worst = EX_OK;
	if (n == 0)
		return cli_fail(c, EX_USAGE, "usage: %s", usage);
	if (r->server != NULL && config_server(&c->config, span_of(r->server)) == NULL)
		return cli_fail(c, EX_USAGE, "no server '%s'", r->server);
	if (strcmp(args[0], "list") == 0)
		return list(c, r);
	if (strcmp(args[0], "flush") == 0)
		return flush(c, r);
	if (strcmp(args[0], "badmail") == 0)
		return badmail_run(c, r, args + 1, n - 1);
	for (size_t i = 0; i < COUNT_OF(acts); i++) {
		if (strcmp(args[0], acts[i].act) != 0)
			continue;
		if (n < 2)
			return cli_fail(c, EX_USAGE, "%s needs the id of a message", args[0]);
		for (int k = 1; k < n; k++) {
			int status = ask_about(c, r, args[0], args[k], acts[i].take);
			worst = status != 0 ? status : worst;
		}
		return worst;
	}
	return cli_fail(c, EX_USAGE, "'%s' is not understood; --help shows what there is", args[0]);
}

int main(int argc, char **argv)
{
	struct cli c = {.program = "hornqueue", .dir = "/etc/posthorn"};
	struct request r = {.server = NULL};
	char **args = calloc((size_t)argc + 1, sizeof *args);
	const char *bad = NULL;
	int n = 0;
	if (args == NULL)
		return EX_OSERR;
	buffer_init(&r.partial, 64 * 1024 * 1024);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			cli_help(usage, options, COUNT_OF(options));
			free(args);
			return EX_OK;
		}
		if (strcmp(argv[i], "-c") == 0 && i + 1 < argc)
			c.dir = argv[++i];
		else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc)
			r.server = argv[++i];
		else if (strcmp(argv[i], "--json") == 0)
			r.json = true;
		else if (argv[i][0] == '-')
			bad = argv[i];
		else
			args[n++] = argv[i];
	}
	int status = bad != NULL ? cli_fail(&c, EX_USAGE, "'%s' is not understood; --help shows the options", bad) : cli_load(&c);
	if (status == 0)
		status = run(&c, &r, args, n);
	free(args);
	return status;
}
