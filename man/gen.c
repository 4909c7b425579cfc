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
#define EVENT(name, level, meaning, action) {"master", #name, level, meaning, action},
#include "master/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"front", #name, level, meaning, action},
#include "smtpd/front/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"smtpd", #name, level, meaning, action},
#include "smtpd/worker/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"cleanup", #name, level, meaning, action},
#include "cleanup/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"qmgr", #name, level, meaning, action},
#include "qmgr/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"mover", #name, level, meaning, action},
#include "mover/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"smtp", #name, level, meaning, action},
#include "smtp/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"drop", #name, level, meaning, action},
#include "drop/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"bounce", #name, level, meaning, action},
#include "bounce/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"pickup", #name, level, meaning, action},
#include "pickup/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"control", #name, level, meaning, action},
#include "control/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"logd", #name, level, meaning, action},
#include "logd/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"local", #name, level, meaning, action},
#include "local/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"deliver", #name, level, meaning, action},
#include "deliver/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"resolver", #name, level, meaning, action},
#include "resolver/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"maps", #name, level, meaning, action},
#include "maps/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"authd", #name, level, meaning, action},
#include "authd/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"keyd", #name, level, meaning, action},
#include "keyd/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"pamd", #name, level, meaning, action},
#include "pamd/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"gssd", #name, level, meaning, action},
#include "gssd/events.def"
#undef EVENT
#define EVENT(name, level, meaning, action) {"sts", #name, level, meaning, action},
#include "sts/events.def"
#undef EVENT
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
