/* posthorn upgrade (MISSION H): the master becomes that of another build in place.  It has the same number, its listeners, its processes and
 * the channels to them; the other build replaces the processes one after the other.  What is handed over: resume.c reads it. */
#include "master.h"
#include "ipc/ipc.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

enum { FLUSH_WAIT_MS = 5000, WHY = 6000 };
static const char request[] = "state/upgrade";

static void say(struct master *m, const char *text)
{
	struct buffer b;
	int fd = openat(m->dir_fd, "state", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	buffer_init(&b, 4096);
	buffer_printf(&b, "refused %s\n", text);
	if (fd < 0 || replace_file_at(fd, "upgrade", buffer_span(&b), 0600) != 0)
		LOG(&m->log, states_unwritten, NO_ID, F("reason", span_of(strerror(errno))));
	if (fd >= 0)
		(void)close(fd);
	buffer_free(&b);
	LOG(&m->log, upgrade_refused, NO_ID, F("reason", span_of(text)));
	free(m->upgrade_to);
	m->upgrade_to = NULL;
}

/* Where the other build is: written by who may, and nobody else. */
static char *read_request(const struct master *m)
{
	struct buffer text;
	struct stat st;
	char *path = NULL;
	int fd = openat(m->dir_fd, request, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	bool good = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 022) == 0;
	if (fd >= 0)
		(void)close(fd);
	buffer_init(&text, 4200);
	if (good && read_file_at(m->dir_fd, request, 4200, &text) == 0) {
		struct span rest = buffer_span(&text), line = span_until(&rest, '\n');
		if (span_is(span_word(&line, " "), "libexec") && line.n > 1 && span_trim(line).at[0] == '/')
			path = span_dup(span_trim(line));
	}
	buffer_free(&text);
	return path;
}

/* What a program of the other build says. */
static int run(const char *program, const char *word, int dir_fd, struct buffer *out)
{
	int ends[2], status = 0;
	char block[16384];
	ssize_t n;
	if (pipe2(ends, O_CLOEXEC) != 0)
		return errno;
	pid_t pid = fork();
	if (pid == 0) {
		if (dup2(ends[1], 1) >= 0 && dup2(dir_fd, 3) >= 0)
			(void)execl(program, "posthorn", word, (char *)NULL);
		_exit(127);
	}
	(void)close(ends[1]);
	while (pid > 0 && ((n = read(ends[0], block, sizeof block)) > 0 || (n < 0 && errno == EINTR)))
		if (n > 0)
			buffer_put(out, block, (size_t)n);
	(void)close(ends[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 && buffer_ok(out) ? 0 : ENOEXEC;
}

/* Processes of both builds will talk to each other: a message that both know has to be the same.  NULL: so it is. */
static const char *other_message(struct span build)
{
	struct span head = span_until(&build, '\n');
	if (!span_is(head, HANDOVER))
		return "what is handed over";
	while (build.n > 0) {
		struct span line = span_until(&build, '\n'), name = span_word(&line, " ");
		uint64_t number = 0, version = 0;
		if (parse_u64(span_word(&line, " "), UINT32_MAX, &number) != 0 || parse_u64(span_word(&line, " "), UINT32_MAX, &version) != 0)
			return "its list of messages";
		if (number < MSG_COUNT && (!span_is(name, msg_name((enum msg_type)number)) || version != msg_version((enum msg_type)number)))
			return msg_name((enum msg_type)number);
	}
	return NULL;
}

/* Nothing has changed while this may still say no. */
static bool check_build(struct master *m, char why[WHY])
{
	char program[4300];
	struct buffer out;
	buffer_init(&out, 64 * 1024 * 1024);
	(void)snprintf(program, sizeof program, "%s/master", m->upgrade_to);
	int error = run(program, "-V", m->dir_fd, &out);
	const char *other = error != 0 ? NULL : other_message(buffer_span(&out));
	if (error != 0)
		(void)snprintf(why, WHY, "%s does not run", program);
	else if (other != NULL)
		(void)snprintf(why, WHY, "the builds do not understand each other (%s): posthorn stop, then start the other one", other);
	buffer_clear(&out);
	(void)snprintf(program, sizeof program, "%s/config", m->upgrade_to);
	if (error == 0 && other == NULL) {
		struct complaint said = {0};
		(void)!run(program, "--snapshot", m->dir_fd, &out);
		struct span rest = buffer_span(&out);
		if (master_config_said(&rest, &said) != 0)
			(void)snprintf(why, WHY, "the other build does not take the configuration: %s: %s", said.file, said.reason);
	}
	buffer_free(&out);
	return why[0] == '\0';
}

static void keep_open(int fd, bool open)
{
	if (fd >= 0)
		(void)fcntl(fd, F_SETFD, open ? 0 : FD_CLOEXEC);
}

static void keep_all_open(struct master *m, bool open)
{
	int fixed[] = {m->leases_fd, m->config_fd, m->auth_key_fd, m->control_fd, m->lock_fd};
	for (size_t i = 0; i < COUNT_OF(fixed); i++)
		keep_open(fixed[i], open);
	for (size_t i = 0; i < m->listeners_n; i++)
		keep_open(m->listeners[i].fd, open);
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->channel != NULL)
			keep_open(c->channel->fd, open);
}

static void put_state(struct buffer *b, const struct master *m)
{
	buffer_printf(b, "%s\nmaster %u %u %u %u %u %u %d %d %d %d %d %d\n", HANDOVER, m->generation, m->epoch, m->node, m->instances, m->listeners_made, m->paused ? 1 : 0,
		m->config_fd, m->auth_key_fd, m->control_fd, m->lock_fd, m->foreground ? 1 : 0, m->leases_fd);
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		const struct server_run *r = &m->runs[i];
		buffer_printf(b, "server %u %u %u %u %u %u %u %llu %llu %u\n", i, r->state, r->paused, r->wanted, r->known, r->stage, r->serial,
			(unsigned long long)r->sessions, (unsigned long long)r->queued, r->leased);
	}
	for (size_t i = 0; i < m->listeners_n; i++) {
		const struct listener *l = &m->listeners[i];
		buffer_printf(b, "listener %d %u %u %u %d ", l->fd, l->number, l->server, l->kind, l->any ? 1 : 0);
		endpoint_format(b, &l->endpoint);
		buffer_putc(b, '\n');
	}
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->pid > 0)
			buffer_printf(b, "child %u %u %u %d %d %u %lld %d\n", (unsigned)c->role, c->instance, c->server, (int)c->pid, c->channel == NULL ? -1 : c->channel->fd, c->landlock,
				(long long)c->started_wall_s, c->retiring ? 1 : 0);
}

static int become(struct master *m)
{
	struct buffer b;
	char program[4300], number[16];
	int fd = -1;
	buffer_init(&b, 16 * 1024 * 1024);
	put_state(&b, m);
	int error = buffer_ok(&b) ? sealed_file("posthorn-handover", buffer_span(&b), &fd) : ENOMEM;
	buffer_free(&b);
	if (error != 0)
		return error;
	(void)snprintf(program, sizeof program, "%s/master", m->upgrade_to);
	(void)snprintf(number, sizeof number, "%d", fd);
	if (m->log.channel != NULL)
		channel_flush(m->log.channel);
	master_notify_hand_over(m);
	keep_open(fd, true);
	keep_all_open(m, true);
	if (m->foreground)
		(void)execl(program, "posthorn: master", "-F", "-c", m->dir, "-l", m->upgrade_to, "-U", number, (char *)NULL);
	else
		(void)execl(program, "posthorn: master", "-c", m->dir, "-l", m->upgrade_to, "-U", number, (char *)NULL);
	error = errno;
	keep_all_open(m, false);
	(void)close(fd);
	return error;
}

static bool is_busy(const struct master *m)
{
	bool busy = m->pendings != NULL;
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		busy = busy || m->runs[i].state == RUN_STARTING || m->runs[i].state == RUN_STOPPING;
	for (const struct child *c = m->children; c != NULL; c = c->next) {
		if (c->channel != NULL)
			channel_flush(c->channel);
		busy = busy || (c->pid > 0 && (c->state != CHILD_READY || (c->channel != NULL && channel_backlog(c->channel) > 0)));
	}
	return busy;
}

static void on_later(int fd, short what, void *context)
{
	struct master *m = context;
	struct timeval tv = {.tv_usec = 20000};
	(void)fd;
	(void)what;
	if (m->stopping || m->upgrade_to == NULL)
		return;
	if (is_busy(m) && clock_mono_ms() < m->upgrade_until_ms) {
		(void)event_add(m->upgrade_later, &tv);
		return;
	}
	int error = is_busy(m) ? EBUSY : become(m);
	say(m, error == EBUSY ? "a server or process is starting or stopping: try again" : strerror(error));
}

void master_upgrade(struct master *m)
{
	char why[WHY] = "";
	struct timeval now = {0};
	if (m->stopping || !m->announced || m->upgrade_to != NULL)
		return;
	m->upgrade_to = read_request(m);
	if (m->upgrade_to == NULL)
		say(m, "state/upgrade does not say where the other build is, or others may write it");
	else if (m->upgrading)
		say(m, "an upgrade is under way");
	else if (!check_build(m, why))
		say(m, why);
	if (m->upgrade_to == NULL)
		return;
	m->upgrade_until_ms = clock_mono_ms() + FLUSH_WAIT_MS;
	if (m->upgrade_later == NULL)
		m->upgrade_later = event_new(m->base, -1, 0, on_later, m);
	if (m->upgrade_later == NULL || event_add(m->upgrade_later, &now) != 0)
		say(m, "not enough memory");
}
