/* log: events of a program on their way to logd. */
#ifndef LOG_LOG_H
#define LOG_LOG_H

#include "base/base.h"
#include "ipc/ipc.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* A row of a program's events.def. */
struct log_event {
	const char *name;
	enum log_level level;
	const char *meaning, *action;
};

struct log_field {
	const char *key;
	struct span value;
};

struct log {
	struct channel *channel; /* to logd; NULL: it is away, lines are counted as lost */
	uint32_t lost;
	bool to_stderr;          /* before there is a logd */
};

enum { LOG_BACKLOG = 1024 * 1024 }; /* bytes that may wait for a slow logd */

/* id may be empty.  Never blocks, never fails: what finds no room is counted and told later. */
void log_write(struct log *l, const struct log_event *e, struct span id, const struct log_field *fields, size_t n);

#define F(key, span) {key, span}
#define LOG(log, event, id, ...) \
	log_write((log), &log_events[EV_##event], (id), (const struct log_field[]){__VA_ARGS__}, \
		COUNT_OF(((const struct log_field[]){__VA_ARGS__})))
#define NO_ID ((struct span){"", 0})

#endif
