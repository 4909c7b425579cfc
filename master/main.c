/* posthorn's master.
 * User: root (or the user of a private instance).
 * May: bind ports, make directories, fork, exec, make channels, end its processes.
 * Never: read a byte from the network or of a message; the configuration is parsed by config. */
#include "master.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct master master = {.dir_fd = -1, .lock_fd = -1, .notify_fd = -1, .control_fd = -1, .config_fd = -1, .state_fd = -1};

static void on_term(int sig, short what, void *context)
{
	(void)sig;
	(void)what;
	master_stop(context);
}

static void on_hup(int sig, short what, void *context)
{
	struct buffer text;
	uint32_t status;
	bool begun[SERVERS_MOST];
	(void)sig;
	(void)what;
	buffer_init(&text, 4096);
	master_reload(context, &text, &status, begun);
	buffer_free(&text);
}

static void on_child(int sig, short what, void *context)
{
	int status;
	pid_t pid;
	(void)sig;
	(void)what;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		master_child_ended(context, pid, status);
}

void master_announce(struct master *m, int status, const char *text)
{
	if (m->announced)
		return;
	m->announced = true;
	if (status == 0)
		master_notify(m, "READY=1");
	if (m->notify_fd >= 0) {
		char line[800];
		int n = snprintf(line, sizeof line, "%d %s\n", status, text);
		(void)!write_all(m->notify_fd, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
		(void)close(m->notify_fd);
		m->notify_fd = -1;
	} else if (status != 0) {
		(void)fprintf(stderr, "posthorn: %s\n", text);
	}
}

static void on_upgrade(int sig, short what, void *context)
{
	(void)sig;
	(void)what;
	master_upgrade(context);
}

int master_set_up_loop(struct master *m)
{
	m->base = event_base_new();
	if (m->base == NULL)
		return EX_OSERR;
	m->signals[0] = evsignal_new(m->base, SIGTERM, on_term, m);
	m->signals[1] = evsignal_new(m->base, SIGINT, on_term, m);
	m->signals[2] = evsignal_new(m->base, SIGHUP, on_hup, m);
	m->signals[3] = evsignal_new(m->base, SIGCHLD, on_child, m);
	m->signals[4] = evsignal_new(m->base, SIGUSR2, on_upgrade, m);
	for (size_t i = 0; i < COUNT_OF(m->signals); i++)
		if (m->signals[i] == NULL || event_add(m->signals[i], NULL) != 0)
			return EX_OSERR;
	struct timeval second = {.tv_sec = 1};
	m->beat = event_new(m->base, -1, EV_PERSIST, master_beat, m);
	return m->beat != NULL && event_add(m->beat, &second) == 0 ? 0 : EX_OSERR;
}

/* Started by the posthorn command: -c DIR -l LIBEXEC [-n NOTIFY_FD] [-s SERVERS] [-F]; by the master of another build: -U STATE_FD; -V: the build. */
static int parse_options(struct master *m, int argc, char **argv)
{
	int option;
	uint64_t fd;
	while ((option = getopt(argc, argv, "c:l:n:s:U:F")) != -1) {
		switch (option) {
		case 'c': m->dir = optarg; break;
		case 's': m->to_start = optarg; break;
		case 'l': m->libexec = optarg; break;
		case 'F': m->foreground = true; break;
		case 'U':
			if (parse_u64(span_of(optarg), 65536, &fd) != 0)
				return EX_USAGE;
			m->state_fd = (int)fd;
			break;
		case 'n':
			if (parse_u64(span_of(optarg), 1024, &fd) != 0)
				return EX_USAGE;
			m->notify_fd = (int)fd;
			(void)fcntl(m->notify_fd, F_SETFD, FD_CLOEXEC);
			break;
		default: return EX_USAGE;
		}
	}
	return m->dir == NULL || m->libexec == NULL ? EX_USAGE : 0;
}

int main(int argc, char **argv)
{
	struct complaint why = {0};
	struct master *m = &master;
	if (argc == 2 && strcmp(argv[1], "-V") == 0)
		return master_print_build();
	if (parse_options(m, argc, argv) != 0) {
		(void)fprintf(stderr, "posthorn-master is started by posthorn start\n");
		return EX_USAGE;
	}
	(void)umask(022);
	(void)signal(SIGPIPE, SIG_IGN);
	m->root = geteuid() == 0;
#ifdef POSTHORN_SANITIZED
	m->sanitized = true;
	(void)setenv("POSTHORN_SANITIZED", "1", 1);
#endif
	m->log.to_stderr = m->foreground;
	master_notify_begin(m);
	int status = m->state_fd >= 0 ? master_resume(m, m->state_fd, &why) : master_prepare(m, &why);
	if (status == 0 && m->state_fd < 0)
		status = master_set_up_loop(m);
	if (status == 0 && m->state_fd < 0)
		status = master_spawn_all(m, &why);
	if (status != 0) {
		char text[800];
		if (why.line > 0)
			(void)snprintf(text, sizeof text, "%s:%u: %s", why.file, why.line, why.reason);
		else
			(void)snprintf(text, sizeof text, "%s%s%s", why.file, why.file[0] == '\0' ? "" : ": ", why.reason);
		master_announce(m, status, text);
		return status;
	}
	if (m->state_fd >= 0) /* who ended while the one became the other */
		on_child(SIGCHLD, 0, m);
	(void)event_base_loop(m->base, EVLOOP_NO_EXIT_ON_EMPTY);
	return EX_OK;
}
