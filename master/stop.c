#include "master.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Who ends when: what brings mail in first, the log last. */
static const unsigned stages[] = {R_FRONT, R_SMTPD | R_PICKUP, R_SMTP | R_DROP | R_LOCAL | R_BOUNCE, R_QMGR | R_CLEANUP | R_CONTROL | R_RESOLVER | R_STS | R_DELIVER | R_MAPS | R_AUTHD | R_KEYD | R_PAMD | R_GSSD | R_GSSC, R_MOVER, R_LEASE, R_LOGD};
enum { BEAT_PERIOD_MS = 5000, BEAT_LIMIT_MS = 20000, STAGE_EXTRA_S = 5 };

static uint32_t grace_ms(const struct master *m)
{
	int64_t grace = 1;
	for (size_t i = 0; i < m->config.servers_n; i++)
		if (m->config.servers[i].p.stop_grace > grace)
			grace = m->config.servers[i].p.stop_grace;
	return (uint32_t)(grace * 1000);
}

static void kill_stage(int fd, short what, void *context)
{
	struct master *m = context;
	(void)fd;
	(void)what;
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->pid > 0 && (stages[m->stop_stage] & (unsigned)c->role) != 0)
			(void)kill(c->pid, SIGKILL);
}

static void begin_stage(struct master *m)
{
	uint32_t grace = grace_ms(m);
	struct timeval tv = {.tv_sec = grace / 1000 + STAGE_EXTRA_S};
	for (struct child *c = m->children; c != NULL; c = c->next) {
		if (c->pid <= 0 || (stages[m->stop_stage] & (unsigned)c->role) == 0)
			continue;
		master_stop_child(c, grace);
	}
	if (m->stage_timer == NULL)
		m->stage_timer = event_new(m->base, -1, 0, kill_stage, m);
	if (m->stage_timer != NULL)
		(void)event_add(m->stage_timer, &tv);
}

void master_stop_step(struct master *m)
{
	while (m->stop_stage < COUNT_OF(stages)) {
		for (const struct child *c = m->children; c != NULL; c = c->next)
			if (c->pid > 0 && (stages[m->stop_stage] & (unsigned)c->role) != 0)
				return;
		if (++m->stop_stage == COUNT_OF(stages))
			break;
		begin_stage(m);
	}
	char path[1200];
	(void)snprintf(path, sizeof path, "%s/control", m->config.service.run_directory);
	(void)unlink(path);
	(void)snprintf(path, sizeof path, "%s/master.pid", m->config.service.run_directory);
	(void)unlink(path);
	(void)event_base_loopexit(m->base, NULL);
}

void master_stop(struct master *m)
{
	if (m->stopping)
		return;
	m->stopping = true;
	master_notify(m, "STOPPING=1");
	m->stop_stage = 0;
	LOG(&m->log, stopping, NO_ID, F("how", SPAN_LIT("orderly")));
	begin_stage(m);
	master_stop_step(m);
}

/* In uninterruptible sleep: a disk that does not answer.  Killing would not help. */
static bool waits_for_disk(pid_t pid)
{
	char path[64], text[512];
	(void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return false;
	size_t n = fread(text, 1, sizeof text - 1, f);
	(void)fclose(f);
	text[n] = '\0';
	const char *state = strrchr(text, ')');
	return state != NULL && state[1] == ' ' && state[2] == 'D';
}

static void beat_child(struct master *m, struct child *c, int64_t now)
{
	if (c->channel == NULL || c->state != CHILD_READY)
		return;
	if (now - c->ping_sent_ms >= BEAT_PERIOD_MS) {
		if (c->ping_sent_ms == 0)
			c->pong_ms = now;
		c->ping_sent_ms = now;
		send_ping(c->channel, (struct msg_ping){.serial = ++m->ping_serial}, -1);
	}
	if (now - c->pong_ms < BEAT_LIMIT_MS)
		return;
	bool disk = waits_for_disk(c->pid);
	LOG(&m->log, process_stuck, NO_ID, F("process", span_of(role_name(c->role))), F("waits_for", span_of(disk ? "disk" : "nothing known")));
	c->pong_ms = now;
	if (!disk)
		(void)kill(c->pid, SIGKILL);
}

void master_beat(int fd, short what, void *context)
{
	struct master *m = context;
	int64_t now = clock_mono_ms();
	bool stood_still = m->beat_ms != 0 && now - m->beat_ms > BEAT_PERIOD_MS; /* the others too, perhaps: their time begins anew */
	m->beat_ms = now;
	for (struct child *c = m->children; stood_still && c != NULL; c = c->next)
		c->pong_ms = now;
	master_notify_alive(m, now);
	if (!m->stopping)
		master_check_leases(m);
	(void)fd;
	(void)what;
	if (!m->stopping)
		for (struct child *c = m->children; c != NULL; c = c->next)
			beat_child(m, c, now);
}
