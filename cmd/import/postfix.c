/* horn-import-postfix: Posthorn's configuration of Postfix's, and Postfix's waiting mail. */
#include "cmd/import/postfix.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const struct cli_option options[] = {
	{"-c", "DIR", "the configuration that is made (/etc/posthorn)"},
	{"--from", "DIR", "where main.cf and master.cf are (/etc/postfix)"},
	{"--report", "", "tell only, write nothing"},
	{"--queue", "", "hand the mail that waits in Postfix's queue_directory to Posthorn; the configuration stays as it is"},
	{"--held", "", "with --queue: messages on hold too"},
	{"--direct", "", "with --queue: read the queue files without postcat, as is done where Postfix is gone"},
	{"--json", "", "the report as JSON objects, one a line"},
	{"--help", "", "this text"},
};
static const char usage[] = "horn-import-postfix [-c DIR] [--from DIR] [--report] [--json]\n"
	"       horn-import-postfix [-c DIR] [--from DIR] --queue [--held] [--direct] [--json]";

struct wanted {
	bool queue, held, direct;
};

static void free_all(struct postfix *pf)
{
	for (size_t i = 0; i < pf->services_n; i++)
		free(pf->services[i].options);
	free(pf->services);
	free(pf->settings);
	arena_free(&pf->arena);
	import_free(&pf->im);
}

static int move_queue(struct postfix *pf, const struct wanted *w)
{
	int status = cli_load(&pf->im.cli);
	if (status != 0)
		return status;
	status = pf_queue(pf, pf_get(pf, "queue_directory"), w->held, w->direct);
	pf->im.report_only = true; /* the configuration stays */
	int end = import_end(&pf->im);
	return status != 0 ? status : end;
}

static int run(struct postfix *pf, const struct wanted *w)
{
	int status = w->queue ? 0 : import_begin(&pf->im);
	if (status == 0)
		status = pf_read(pf);
	if (status != 0)
		return status;
	if (w->queue)
		return move_queue(pf, w);
	pf_translate(pf);
	return import_end(&pf->im);
}

int main(int argc, char **argv)
{
	struct postfix pf = {.im = {.cli = {.program = "horn-import-postfix", .dir = "/etc/posthorn"}}, .dir = "/etc/postfix"};
	struct wanted w = {.queue = false};
	int status = 0;
	for (int i = 1; i < argc && status == 0; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			cli_help(usage, options, COUNT_OF(options));
			return EX_OK;
		}
		if (import_take_option(&pf.im, argv, argc, &i))
			continue;
		if (strcmp(argv[i], "--from") == 0 && i + 1 < argc)
			pf.dir = argv[++i];
		else if (strcmp(argv[i], "--queue") == 0)
			w.queue = true;
		else if (strcmp(argv[i], "--held") == 0)
			w.held = true;
		else if (strcmp(argv[i], "--direct") == 0)
			w.direct = true;
		else
			status = cli_fail(&pf.im.cli, EX_USAGE, "'%s' is not understood; usage: %s", argv[i], usage);
	}
	if (status == 0)
		status = run(&pf, &w);
	free_all(&pf);
	return status;
}
