/* bounce: makes the reports that qmgr owes to senders, hands them to cleanup.
 * User: posthorn-ctl.
 * May: talk to qmgr, cleanup, logd.
 * Never: open a file, use the network. */
#include "bounce.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct bounce bounce;
static const struct confinement rights = {.user_suffix = "ctl", .calls = 0};

static void submit(struct channel *cleanup, const struct report *r, struct span indexes)
{
	struct buffer text, envelope;
	struct envelope_rcpt to = {.address = r->e->sender, .notify = NOTIFY_NEVER};
	buffer_init(&text, 1024 * 1024);
	buffer_init(&envelope, 1024 * 1024);
	report_compose(&text, r);
	struct envelope e = {.sender = {"", 0}, .arrived_us = r->wall_s * 1000000, .flags = ENV_REPORT | (r->e->flags & (ENV_8BIT | ENV_UTF8)), .size = text.n,
		.origin = SPAN_LIT("report"), .closes = r->parent, .closes_kind = r->kind, .closes_rcpts = indexes, .rcpts = &to, .rcpts_n = 1};
	envelope_put(&envelope, &e);
	struct span content = buffer_span(&text);
	while (content.n > IPC_INLINE) {
		send_submit_part(cleanup, (struct msg_submit_part){.id = qid_span(&r->id), .content = {content.at, IPC_INLINE}}, -1);
		content.at += IPC_INLINE;
		content.n -= IPC_INLINE;
	}
	send_submit(cleanup, (struct msg_submit){.id = qid_span(&r->id), .envelope = buffer_span(&envelope), .content = content}, -1);
	buffer_free(&text);
	buffer_free(&envelope);
}

static int on_report(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, report, asked);
	struct bounce *b = ch->program;
	struct bounce_server *s = &b->servers[ch->server];
	struct arena arena = {0};
	struct envelope e;
	struct result x;
	struct buffer indexes;
	struct span rest = asked.results;
	struct report r = {.kind = (enum fate_report)asked.kind, .e = &e, .results = asked.results, .content = asked.content, .truncated = asked.truncated != 0,
		.p = &b->proc.config.servers[ch->server].p, .wall_s = clock_wall_us() / 1000000};
	int error = asked.kind < REPORT_FAILURE || asked.kind > REPORT_SUCCESS ? EBADMSG : qid_parse(asked.id, &r.id);
	if (error == 0)
		error = qid_parse(asked.parent, &r.parent);
	if (error == 0)
		error = envelope_parse(asked.envelope, &arena, &e);
	if (error == 0 && s->cleanup == NULL) {
		send_report_failed(ch, (struct msg_report_failed){.id = asked.id, .status = EAGAIN}, -1);
	} else if (error == 0) {
		buffer_init(&indexes, 4 * 1024 * 1024);
		while (result_take(&rest, &x))
			buffer_put_u32(&indexes, x.index);
		submit(s->cleanup, &r, buffer_span(&indexes));
		buffer_free(&indexes);
	}
	arena_free(&arena);
	return error;
}

/* Mail for postmaster about files that failed their check. */
static int on_damage(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, damage, damage);
	struct bounce *b = ch->program;
	const struct server_params *p = &b->proc.config.servers[ch->server].p;
	struct channel *cleanup = b->servers[ch->server].cleanup;
	struct qid id;
	if (qid_parse(damage.id, &id) != 0)
		return EBADMSG;
	if (cleanup == NULL)
		return 0; /* the log has the lines */
	struct buffer text, envelope, address;
	int64_t wall_us = clock_wall_us();
	buffer_init(&text, 1024 * 1024);
	buffer_init(&envelope, 65536);
	buffer_init(&address, 1024);
	buffer_printf(&address, "postmaster@%s", p->default_domain);
	struct envelope_rcpt to = {.address = buffer_span(&address), .notify = NOTIFY_NEVER};
	damage_compose(&text, &id, p, damage.text, wall_us / 1000000);
	struct envelope e = {.arrived_us = wall_us, .flags = ENV_REPORT, .size = text.n, .origin = SPAN_LIT("report"), .rcpts = &to, .rcpts_n = 1};
	envelope_put(&envelope, &e);
	send_submit(cleanup, (struct msg_submit){.id = damage.id, .envelope = buffer_span(&envelope), .content = buffer_span(&text)}, -1);
	buffer_free(&text);
	buffer_free(&envelope);
	buffer_free(&address);
	return 0;
}

static int on_submitted(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, submitted, done);
	struct bounce *b = ch->program;
	struct channel *qmgr = b->servers[ch->server].qmgr;
	if (done.status == 0)
		return 0; /* qmgr reads it in the journal: that is the proof */
	LOG(&b->proc.log, report_refused, done.id, F("reason", span_of(strerror((int)done.status))));
	if (qmgr != NULL)
		send_report_failed(qmgr, (struct msg_report_failed){.id = done.id, .status = done.status}, -1);
	return 0;
}

static void peer_gone(struct channel *ch, int reason)
{
	struct bounce *b = ch->program;
	struct bounce_server *s = &b->servers[ch->server];
	(void)reason;
	if (s->cleanup == ch)
		s->cleanup = NULL;
	if (s->qmgr == ch)
		s->qmgr = NULL;
}

static const struct channel_owner owner = {.handlers = {[MSG_report] = on_report, [MSG_damage] = on_damage, [MSG_submitted] = on_submitted}, .gone = peer_gone};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct bounce *b = p->program;
	struct channel *ch = server >= p->config.servers_n ? NULL : channel_make(p->base, fd, R_BOUNCE, role, &owner, b);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	struct channel **place = role == R_CLEANUP ? &b->servers[server].cleanup : &b->servers[server].qmgr;
	channel_close(*place);
	*place = ch;
}

int main(void)
{
	struct complaint why;
	struct bounce *b = &bounce;
	if (proc_begin(&b->proc, R_BOUNCE, &why) != 0)
		return proc_fail(&b->proc, EX_CONFIG, &why);
	b->proc.program = b;
	b->proc.linked = linked;
	b->servers = calloc(b->proc.config.servers_n, sizeof *b->servers);
	if (b->servers == NULL)
		return proc_fail(&b->proc, EX_OSERR, &why);
	tzset();
	if (proc_confine(&b->proc, &rights, NULL, 0, NULL, &why) != 0)
		return proc_fail(&b->proc, EX_OSERR, &why);
	return proc_run(&b->proc);
}
