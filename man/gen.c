/* The generated parts of manual pages: parameters from params.def, diagnostics from each events.def. */
#include "log/log.h"
#include "params/params.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

struct event_row {
	const char *program, *name;
	enum log_level level;
	const char *meaning, *action;
};

static const struct event_row events[] = {
#include "man/diagnostics.def"
};

static int print_events(const char *program)
{
	static const char *const levels[] = {"error", "warning", "info", "debug"};
	for (size_t i = 0; i < COUNT_OF(events); i++)
		if (strcmp(events[i].program, program) == 0)
			(void)printf(".TP\n.BR %s \" (%s)\"\n%s %s\n", events[i].name, levels[events[i].level], events[i].meaning, events[i].action);
	return EX_OK;
}

int main(int argc, char **argv)
{
	static const char *const scopes[] = {"service", "server", "domain"};
	if (argc != 3)
		return EX_USAGE;
	if (strcmp(argv[1], "events") == 0)
		return print_events(argv[2]);
	for (size_t i = 0; i < COUNT_OF(scopes); i++)
		if (strcmp(argv[2], scopes[i]) == 0)
			params_print_man(stdout, (enum param_scope)i);
	return EX_OK;
}
