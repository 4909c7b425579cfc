/* The other end of upgrade.c: takes the service over and replaces its processes one after the other, so that there is always one to do the
 * work, or a short wait for its successor. */
#include "master.h"
#include "ipc/ipc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

int master_print_build(void)
{
	(void)printf("%s\n", HANDOVER);
	for (unsigned i = 0; i < MSG_COUNT; i++)
		(void)printf("%s %u %u\n", msg_name((enum msg_type)i), i, msg_version((enum msg_type)i));
	return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

enum { NUMBERS = 12 };
/* The numbers of a line, -1 among them; false: it is none of ours. */
static bool numbers(struct span *line, int64_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct span word = span_word(line, " ");
		uint64_t v;
		bool minus = word.n > 0 && word.at[0] == '-';
		if (parse_u64(minus ? (struct span){word.at + 1, word.n - 1} : word, INT64_MAX, &v) != 0)
			return false;
		out[i] = minus ? -(int64_t)v : (int64_t)v;
	}
	return true;
}

static int take_fd(int64_t fd)
{
	if (fd >= 0)
		(void)fcntl((int)fd, F_SETFD, FD_CLOEXEC);
	return (int)fd;
}

static int take_master(struct master *m, struct span line)
{
	int64_t v[12];
	if (!numbers(&line, v, COUNT_OF(v)))
		return EBADMSG;
	m->generation = (uint32_t)v[0];
	m->epoch = (uint32_t)v[1];
	m->node = (uint32_t)v[2];
	m->instances = (uint32_t)v[3];
	m->listeners_made = (uint32_t)v[4];
	m->paused = v[5] != 0;
	m->config_fd = take_fd(v[6]);
	m->auth_key_fd = take_fd(v[7]);
	m->control_fd = take_fd(v[8]);
	m->lock_fd = take_fd(v[9]);
	m->leases_fd = take_fd(v[11]);
	return master_make_leases(m);
}

static int take_server(struct master *m, struct span line)
{
	int64_t v[10];
	if (!numbers(&line, v, COUNT_OF(v)) || v[0] < 0 || v[0] >= SERVERS_MOST || v[1] > RUN_STOPPING)
		return EBADMSG;
	m->runs[v[0]] = (struct server_run){.state = (enum run_state)v[1], .paused = v[2] != 0, .wanted = v[3] != 0, .known = v[4] != 0, .stage = (unsigned)v[5],
		.serial = (uint32_t)v[6], .sessions = (uint64_t)v[7], .queued = (uint64_t)v[8], .leased = v[9] != 0};
	return 0;
}

static int take_listener(struct master *m, struct span line)
{
	int64_t v[5];
	struct listener *more = realloc(m->listeners, (m->listeners_n + 1) * sizeof *more);
	struct endpoint e;
	bool bad;
	if (more == NULL)
		return ENOMEM;
	m->listeners = more;
	if (!numbers(&line, v, COUNT_OF(v)) || v[3] >= LISTEN_KINDS || !listen_next(&line, &e, &bad))
		return EBADMSG;
	more[m->listeners_n++] = (struct listener){.fd = take_fd(v[0]), .number = (uint32_t)v[1], .server = (uint32_t)v[2], .kind = (enum listen_kind)v[3], .endpoint = e, .any = v[4] != 0, .kept = true};
	return 0;
}

static int take_child(struct master *m, struct span line)
{
	int64_t v[8];
	if (!numbers(&line, v, COUNT_OF(v)))
		return EBADMSG;
	struct child *c = master_new_child(m, (enum role)v[0], (uint32_t)v[2]);
	if (c == NULL || c->respawn == NULL)
		return ENOMEM;
	c->instance = (uint32_t)v[1];
	c->pid = (pid_t)v[3];
	c->state = CHILD_READY;
	c->landlock = (uint32_t)v[5];
	c->started_wall_s = v[6];
	c->started_ms = c->pong_ms = clock_mono_ms();
	c->retiring = v[7] != 0;
	c->old = true;
	if (v[4] < 0)
		return 0;
	c->channel = channel_make(m->base, take_fd(v[4]), R_MASTER, c->role, &master_child_owner, m);
	if (c->channel == NULL)
		return ENOMEM;
	c->channel->peer_state = c;
	return 0;
}

static int take_state(struct master *m, struct span text)
{
	static const struct { const char *word; int (*take)(struct master *, struct span); } kinds[] = {
		{"master", take_master}, {"server", take_server}, {"listener", take_listener}, {"child", take_child}};
	struct span head = span_until(&text, '\n');
	int error = span_is(head, HANDOVER) ? 0 : EBADMSG;
	while (text.n > 0 && error == 0) {
		struct span line = span_until(&text, '\n'), word = span_word(&line, " ");
		error = EBADMSG;
		for (size_t i = 0; i < COUNT_OF(kinds); i++)
			if (span_is(word, kinds[i].word))
				error = kinds[i].take(m, line);
	}
	return error;
}

static int read_sealed(int fd, struct buffer *out)
{
	off_t size = lseek(fd, 0, SEEK_END);
	int error = size < 0 ? errno : buffer_reserve(out, (size_t)size + 1);
	if (error == 0)
		error = pread_all(fd, out->at, (size_t)size, 0);
	out->n = error == 0 ? (size_t)size : 0;
	return error;
}

static int read_old_config(struct master *m, struct complaint *why)
{
	struct buffer text;
	buffer_init(&text, 64 * 1024 * 1024);
	int error = read_sealed(m->config_fd, &text);
	if (error == 0)
		error = config_parse_snapshot(buffer_span(&text), &m->config, why);
	buffer_free(&text);
	return error;
}

/* The new build's own reading; it was tried before, so that this goes well. */
static void read_new_config(struct master *m)
{
	struct complaint why = {0};
	struct config fresh;
	int fd;
	if (master_read_config(m, &fresh, &fd, &why) != 0) {
		LOG(&m->log, reload_refused, NO_ID, F("reason", span_of(why.reason)));
		return;
	}
	if (fresh.servers_n != m->config.servers_n) { /* a reload is due for that */
		config_free(&fresh);
		(void)close(fd);
		return;
	}
	config_free(&m->config);
	(void)close(m->config_fd);
	m->config = fresh;
	m->config_fd = fd;
}

int master_resume(struct master *m, int state_fd, struct complaint *why)
{
	struct buffer text;
	m->announced = m->upgrading = true;
	m->dir_fd = open(m->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int high = m->dir_fd < 0 ? -1 : fcntl(m->dir_fd, F_DUPFD_CLOEXEC, 200); /* out of the way of what children get as 1 and 3 */
	m->runs = calloc(SERVERS_MOST, sizeof *m->runs);
	if (high < 0 || m->runs == NULL || master_set_up_loop(m) != 0)
		return EX_OSERR;
	(void)close(m->dir_fd);
	m->dir_fd = high;
	buffer_init(&text, 16 * 1024 * 1024);
	int error = read_sealed(state_fd, &text);
	(void)close(state_fd);
	if (error == 0)
		error = take_state(m, buffer_span(&text));
	if (error == 0)
		error = read_old_config(m, why);
	buffer_free(&text);
	if (error != 0) {
		complain(why, "upgrade", 0, "what the other build handed over cannot be read: %s", strerror(error));
		return EX_SOFTWARE;
	}
	master_link_own_log(m);
	LOG(&m->log, upgrading, NO_ID, F("version", SPAN_LIT(POSTHORN_VERSION)));
	read_new_config(m);
	master_replace_next(m);
	return 0;
}

/* Those whom others need first; agents while their qmgr still takes their verdicts; of a queue the mover
 * first, as at its start; then the front; the workers last. */
static const enum role order[] = {R_LOGD, R_RESOLVER, R_KEYD, R_STS, R_MAPS, R_GSSD, R_GSSC, R_PAMD, R_AUTHD, R_BOUNCE, R_CONTROL, R_DELIVER, R_LOCAL, R_SMTP, R_PICKUP, R_DROP, R_LEASE, R_MOVER,
	R_CLEANUP, R_QMGR, R_FRONT};
enum { REPLACE_GRACE_MS = 10000 };

static bool all_are_ready(const struct master *m)
{
	bool all = true;
	for (const struct child *c = m->children; c != NULL; c = c->next) {
		bool down = c->server != NO_SERVER && m->runs[c->server].state != RUN_RUNNING;
		all = all && (c->retiring || down || c->state == CHILD_READY);
	}
	return all;
}

static struct child *next_old(const struct master *m, enum role role)
{
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->role == role && c->old && !c->retiring && c->pid > 0)
			return c;
	return NULL;
}

/* Their successors are there before they go. */
static bool retire_workers(struct master *m)
{
	struct complaint why = {0};
	size_t fresh = 0, old = 0;
	for (const struct child *c = m->children; c != NULL; c = c->next) {
		fresh += c->role == R_SMTPD && !c->old;
		old += c->role == R_SMTPD && c->old && !c->retiring;
	}
	if (old == 0)
		return true;
	if (fresh < old) {
		if (master_add_child(m, R_SMTPD, NO_SERVER, &why) != 0)
			LOG(&m->log, process_ended, NO_ID, F("process", SPAN_LIT("smtpd")), F("reason", span_of(why.reason)));
		return false;
	}
	for (struct child *c = next_old(m, R_SMTPD); c != NULL; c = next_old(m, R_SMTPD)) {
		c->retiring = true;
		for (const struct child *front = m->children; front != NULL; front = front->next)
			if (front->role == R_FRONT && front->channel != NULL)
				send_retire(front->channel, (struct msg_retire){.instance = c->instance, .limit_ms = (uint32_t)(m->config.service.upgrade_drain * 1000)}, -1);
	}
	return true;
}

void master_replace_next(struct master *m)
{
	if (!m->upgrading || m->stopping || !all_are_ready(m))
		return;
	for (size_t i = 0; i < COUNT_OF(order); i++) {
		struct child *c = next_old(m, order[i]);
		if (c == NULL)
			continue;
		c->asked = true;
		c->state = CHILD_STARTING; /* one at a time */
		if (c->channel != NULL)
			send_stop(c->channel, (struct msg_stop){.grace_ms = c->role == R_QMGR || c->role == R_LEASE ? 0 : REPLACE_GRACE_MS}, -1);
		return;
	}
	if (!retire_workers(m))
		return;
	m->upgrading = false;
	(void)unlinkat(m->dir_fd, "state/upgrade", 0);
	LOG(&m->log, upgraded, NO_ID, F("version", SPAN_LIT(POSTHORN_VERSION)));
}

void master_end_of_old(struct master *m, struct child *c)
{
	struct child **p = &m->children;
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	if (c->respawn != NULL)
		event_free(c->respawn);
	free(c);
}
