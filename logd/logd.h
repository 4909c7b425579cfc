/* logd: writes the mail log. */
#ifndef LOGD_LOGD_H
#define LOGD_LOGD_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"

#define EVENTS_FILE "logd/events.def"
#include "log/events.h"

struct logd {
	struct process proc;
	int fd;              /* file, syslog's socket or standard error */
	bool datagrams;      /* one line each: syslog */
	bool json;
	char host[256];
	struct buffer lines; /* of this turn */
	struct event *flush;
	bool flush_due;
	uint64_t lost;
	time_t stamp_s;      /* the second that stamp was made for */
	char stamp[64];
};

void logd_line(struct logd *l, const struct channel *from, enum log_level level, struct span event, struct span id, struct span fields);
void logd_flush(struct logd *l);

#endif
