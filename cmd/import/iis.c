/* horn-import-iis: virtual servers and domains of an IIS 6.0 SMTP service. */
#include "cmd/import/iis.h"

#include <libxml/parser.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const struct cli_option options[] = {
	{"-c", "DIR", "the configuration that is made (/etc/posthorn)"},
	{"--report", "", "tell only, write nothing"},
	{"--json", "", "the report as JSON objects, one a line"},
	{"--help", "", "this text"},
};
static const char usage[] = "horn-import-iis [-c DIR] [--report] [--json] METABASE.XML";

const char *iis_own(struct iis *x, const xmlNode *node, const char *name)
{
	for (const xmlAttr *a = node->properties; a != NULL; a = a->next) {
		if (strcasecmp((const char *)a->name, name) != 0)
			continue;
		xmlChar *text = xmlNodeGetContent((const xmlNode *)a);
		const char *value = text == NULL ? NULL : arena_dup(&x->im.arena, span_trim(span_of((const char *)text)));
		xmlFree(text);
		return value;
	}
	return NULL;
}

const char *iis_get(struct iis *x, const xmlNode *node, const char *property)
{
	const char *value = iis_own(x, node, property);
	return value != NULL || x->service == NULL ? value : iis_own(x, x->service, property);
}

/* "/LM/SmtpSvc/1/Domain/example.org": 1, and what is behind it.  False: not of an SMTP server. */
static bool take_location(const char *location, unsigned long *number, struct span *behind)
{
	struct span rest = span_of(location);
	uint64_t n;
	(void)span_until(&rest, '/');
	if (!span_case_is(span_until(&rest, '/'), "LM") || !span_case_is(span_until(&rest, '/'), "SmtpSvc"))
		return false;
	if (parse_u64(span_until(&rest, '/'), 1000000, &n) != 0)
		return false;
	*number = (unsigned long)n;
	*behind = rest;
	return true;
}

static struct iis_server *find_server(struct iis *x, unsigned long number)
{
	for (size_t i = 0; i < x->servers_n; i++)
		if (x->servers[i].number == number)
			return &x->servers[i];
	return NULL;
}

static void add_server(struct iis *x, const xmlNode *node, unsigned long number)
{
	if (find_server(x, number) != NULL)
		return;
	size_t at = x->servers_n;
	struct iis_server *more = realloc(x->servers, (at + 1) * sizeof *more);
	if (more == NULL)
		return;
	x->servers = more;
	while (at > 0 && more[at - 1].number > number) { /* by number: the lowest is default */
		more[at] = more[at - 1];
		at--;
	}
	more[at] = (struct iis_server){.number = number, .node = node};
	x->servers_n++;
}

/* The nodes of IIsSmtp..., wherever they stand. */
static void walk(struct iis *x, const xmlNode *node, void (*take)(struct iis *, const xmlNode *, const char *location))
{
	for (; node != NULL; node = node->next) {
		const char *location = node->type != XML_ELEMENT_NODE ? NULL : iis_own(x, node, "Location");
		if (location != NULL)
			take(x, node, location);
		walk(x, node->children, take);
	}
}

static bool is_named(const xmlNode *node, const char *name)
{
	return strcasecmp((const char *)node->name, name) == 0;
}

static void find_servers(struct iis *x, const xmlNode *node, const char *location)
{
	unsigned long number;
	struct span behind;
	if (is_named(node, "IIsSmtpService") && strcasecmp(location, "/LM/SmtpSvc") == 0)
		x->service = node;
	else if (is_named(node, "IIsSmtpServer") && take_location(location, &number, &behind) && behind.n == 0)
		add_server(x, node, number);
}

static void find_domains(struct iis *x, const xmlNode *node, const char *location)
{
	unsigned long number;
	struct span behind;
	if (!is_named(node, "IIsSmtpDomain") || !take_location(location, &number, &behind) || !span_case_is(span_until(&behind, '/'), "Domain"))
		return;
	const struct iis_server *s = find_server(x, number);
	const char *domain = arena_dup(&x->im.arena, behind);
	if (s != NULL && domain != NULL)
		iis_translate_domain(x, s, node, domain);
}

static int run(struct iis *x, const char *file)
{
	int status = import_begin(&x->im);
	if (status != 0)
		return status;
	/* no network, no entities of other files: it may come from anywhere */
	x->document = xmlReadFile(file, NULL, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOBLANKS);
	if (x->document == NULL) {
		const xmlError *e = xmlGetLastError();
		return cli_fail(&x->im.cli, EX_DATAERR, "%s:%d: %.*s", file, e == NULL ? 0 : e->line, e == NULL || e->message == NULL ? 6 : (int)strcspn(e->message, "\n"), e == NULL || e->message == NULL ? "no XML" : e->message);
	}
	walk(x, xmlDocGetRootElement(x->document), find_servers);
	if (x->servers_n == 0)
		return cli_fail(&x->im.cli, EX_DATAERR, "%s: no IIsSmtpServer is in it: it is not the metabase of an SMTP service", file);
	for (size_t i = 0; i < x->servers_n; i++) { /* NOLINT(clang-analyzer-unix.Malloc): main frees the list */
		x->servers[i].name = i == 0 ? "default" : arena_printf(&x->im.arena, "smtp%lu", x->servers[i].number);
		if (x->servers[i].name == NULL)
			return EX_OSERR;
		if (i > 0)
			import_add_server(&x->im, x->servers[i].name);
		iis_translate(x, &x->servers[i]);
	}
	walk(x, xmlDocGetRootElement(x->document), find_domains);
	return import_end(&x->im);
}

int main(int argc, char **argv)
{
	struct iis x = {.im = {.cli = {.program = "horn-import-iis", .dir = "/etc/posthorn"}}};
	const char *file = NULL;
	int status = 0;
	for (int i = 1; i < argc && status == 0; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			cli_help(usage, options, COUNT_OF(options));
			return EX_OK;
		}
		if (import_take_option(&x.im, argv, argc, &i))
			continue;
		if (argv[i][0] != '-' && file == NULL)
			file = argv[i];
		else
			status = cli_fail(&x.im.cli, EX_USAGE, "'%s' is not understood; usage: %s", argv[i], usage);
	}
	if (status == 0 && file == NULL)
		status = cli_fail(&x.im.cli, EX_USAGE, "usage: %s", usage);
	if (status == 0)
		status = run(&x, file);
	xmlFreeDoc(x.document);
	xmlCleanupParser();
	free(x.servers);
	import_free(&x.im);
	return status;
}
