/* bounce: makes the reports that qmgr owes to senders, hands them to cleanup.
 * User: posthorn-ctl.
 * May: talk to qmgr, cleanup, mover, logd.
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

/* The copy of a report goes to ndr_copy_to, which may have left the configuration meanwhile. */
static struct span addressee(const struct server_params *p, const struct envelope *e, uint32_t kind, struct arena *arena)
{
	if (kind != REPORT_COPY)
		return e->sender;
	return p->ndr_copy_to[0] != '\0' ? span_of(p->ndr_copy_to) : span_of(arena_printf(arena, "postmaster@%s", p->default_domain));
}

static int on_report(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, report, asked);
	struct bounce *b = ch->program;
	struct arena arena = {0};
	struct envelope e;
	struct gathering *g = submit_gathered(b, ch->server, asked.delivery);
	struct report r = {.kind = (enum fate_report)asked.kind, .e = &e, .results = asked.results, .content = asked.content,
		.original = (enum report_original)asked.original, .p = &b->proc.config.servers[ch->server].p, .wall_s = clock_wall_us() / 1000000};
	int error = asked.kind < REPORT_FAILURE || asked.kind > REPORT_EXPANSION || asked.original > ORIGINAL_FILE ? EBADMSG : qid_parse(asked.id, &r.id);
	if (error == 0)
		error = qid_parse(asked.parent, &r.parent);
	if (error == 0)
		error = envelope_parse(asked.envelope, &arena, &e);
	if (g != NULL) {
		buffer_put_span(&g->content, asked.content);
		r.content = buffer_span(&g->content);
	}
	if (error == 0) {
		r.to = addressee(r.p, &e, asked.kind, &arena);
		submit_report(b, ch->server, &r, asked.size);
	}
	submit_free_gathering(g);
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

/* A report is bounded: it is sent without waiting. */
static int ignore_credit(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, body_credit, credit);
	(void)ch;
	(void)credit;
	return 0;
}

static void peer_gone(struct channel *ch, int reason)
{
	struct bounce *b = ch->program;
	struct bounce_server *s = &b->servers[ch->server];
	(void)reason;
	if (s->cleanup == ch)
		s->cleanup = NULL;
	if (s->qmgr == ch) {
		s->qmgr = NULL;
		submit_qmgr_gone(b, ch->server);
	}
	if (s->mover == ch) {
		s->mover = NULL;
		submit_mover_gone(b, ch->server);
	}
}

static const struct channel_owner owner = {.handlers = {[MSG_report] = on_report, [MSG_damage] = on_damage, [MSG_submitted] = on_submitted,
	[MSG_content_part] = submit_on_part, [MSG_body_done] = submit_on_body_done, [MSG_body_credit] = ignore_credit}, .gone = peer_gone};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct bounce *b = p->program;
	struct channel *ch = server >= p->config.servers_n ? NULL : channel_make(p->base, fd, R_BOUNCE, role, &owner, b);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	struct bounce_server *s = &b->servers[server];
	struct channel **place = role == R_CLEANUP ? &s->cleanup : role == R_MOVER ? &s->mover : &s->qmgr;
	struct channel *old = *place;
	if (old != NULL) /* its successor came before the word that it is gone */
		peer_gone(old, 0);
	channel_close(old);
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
	b->servers = calloc(SERVERS_MOST, sizeof *b->servers);
	if (b->servers == NULL)
		return proc_fail(&b->proc, EX_OSERR, &why);
	tzset();
	if (proc_confine(&b->proc, &rights, NULL, 0, NULL, &why) != 0)
		return proc_fail(&b->proc, EX_OSERR, &why);
	return proc_run(&b->proc);
}
