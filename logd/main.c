/* logd: the only process that writes the log.
 * User: posthorn-log.
 * May: append to the log file or send to syslog's socket, both opened before.
 * Never: open anything, use the network, see mail. */
#include "logd.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct logd logd = {.fd = -1};
static const struct confinement rights = {.user_suffix = "log", .calls = CALLS_SOCKET};

static int on_line(struct channel *c, struct message *m)
{
	HANDLE(c, m, log_line, line);
	if (line.level > LOG_LEVEL_DEBUG)
		return EBADMSG;
	logd_line(c->program, c, (enum log_level)line.level, line.event, line.id, line.fields);
	return 0;
}

static int on_lost(struct channel *c, struct message *m)
{
	HANDLE(c, m, log_lost, lost);
	struct buffer fields, n;
	buffer_init(&fields, 100);
	buffer_init(&n, 32);
	buffer_printf(&n, "%u", lost.n);
	buffer_put_lspan(&fields, SPAN_LIT("n"));
	buffer_put_lspan(&fields, buffer_span(&n));
	logd_line(c->program, c, LOG_LEVEL_WARNING, span_of(log_events[EV_lines_lost].name), NO_ID, buffer_span(&fields));
	buffer_free(&n);
	buffer_free(&fields);
	return 0;
}

static const struct channel_owner owner = {.handlers = {[MSG_log_line] = on_line, [MSG_log_lost] = on_lost}};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct channel *c = channel_make(p->base, fd, R_LOGD, role, &owner, p->program);
	if (c == NULL)
		return;
	c->instance = instance;
	c->server = server;
	c->pid = pid;
}

static void on_flush(int fd, short what, void *context)
{
	struct logd *l = context;
	(void)fd;
	(void)what;
	l->flush_due = false;
	logd_flush(l);
}

static void stop(struct process *p, uint32_t grace_ms)
{
	(void)grace_ms;
	logd_flush(p->program);
	proc_done(p);
}

static int open_syslog(struct logd *l, struct complaint *why)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	bool required = strcmp(l->proc.config.service.log_target, "auto") != 0;
	l->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (l->fd >= 0 && connect(l->fd, (struct sockaddr *)&sa, sizeof sa) == 0) {
		l->datagrams = true;
		return 0;
	}
	if (!required) { /* a machine without syslog: the messages go where the service's errors go */
		l->fd = 2;
		return 0;
	}
	complain(why, "log_target", 0, "cannot reach /dev/log: %s", strerror(errno));
	return EX_UNAVAILABLE;
}

static int open_target(struct logd *l, struct complaint *why)
{
	const char *target = l->proc.config.service.log_target;
	l->json = l->proc.config.service.log_format == 1;
	l->fd = proc_fd(&l->proc, "logfile");
	if (l->fd >= 0)
		return 0;
	if (strcmp(target, "stderr") == 0 || strcmp(target, "journal") == 0) {
		l->fd = 2;
		return 0;
	}
	if (strcmp(target, "syslog") == 0 || strcmp(target, "auto") == 0)
		return open_syslog(l, why);
	complain(why, "log_target", 0, "'%s' is not one of auto, syslog, journal, stderr, file:PATH", target);
	return EX_CONFIG;
}

int main(void)
{
	struct complaint why;
	struct logd *l = &logd;
	if (proc_begin(&l->proc, R_LOGD, &why) != 0)
		return proc_fail(&l->proc, EX_CONFIG, &why);
	l->proc.program = l;
	l->proc.linked = linked;
	l->proc.stop = stop;
	buffer_init(&l->lines, 256 * 1024);
	(void)gethostname(l->host, sizeof l->host - 1);
	if (strchr(l->host, '.') != NULL)
		*strchr(l->host, '.') = '\0';
	tzset();
	l->flush = event_new(l->proc.base, -1, 0, on_flush, l);
	int status = l->flush == NULL ? EX_OSERR : open_target(l, &why);
	if (status != 0)
		return proc_fail(&l->proc, status, &why);
	if (proc_confine(&l->proc, &rights, NULL, 0, NULL, &why) != 0)
		return proc_fail(&l->proc, EX_OSERR, &why);
	return proc_run(&l->proc);
}
