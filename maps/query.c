#include "maps.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void answer_screened(struct query *q)
{
	struct buffer action, changed;
	buffer_init(&action, 4096);
	buffer_init(&changed, IPC_PACKET_MAX / 2);
	if (q->answer != ANSWER_FAILED && !screen_answer(q, &action, &changed))
		q->answer = ANSWER_FAILED;
	if (!buffer_ok(&action) || !buffer_ok(&changed))
		q->answer = ANSWER_FAILED;
	send_map_answer(q->channel, (struct msg_map_answer){.serial = q->serial, .status = q->answer, .value = buffer_span(&action), .rule = span_of(q->rule),
		.address = buffer_span(&changed)}, -1);
	buffer_free(&action);
	buffer_free(&changed);
}

static void finish(struct maps *m, struct query *q)
{
	struct query **p = &m->queries;
	while (*p != q)
		p = &(*p)->next_all;
	*p = q->next_all;
	if (q->channel != NULL && q->question >= ASK_CLIENT) {
		answer_screened(q);
	} else if (q->channel != NULL) {
		struct span value = q->answer == ANSWER_ADDRESSES || q->answer == ANSWER_ALIAS ? buffer_span(&q->value) : (struct span){"", 0};
		send_map_answer(q->channel, (struct msg_map_answer){.serial = q->serial, .status = q->answer, .list = q->list ? 1 : 0, .value = value,
			.rule = span_of(q->rule)}, -1);
	}
	buffer_free(&q->value);
	arena_free(&q->arena);
	free(q->steps);
	free(q->groups);
	free(q);
}

/* Once a minute for each map: who reads the log sees it, mail that waits does not fill it. */
static void complain_of(struct maps *m, struct source *s, const struct complaint *why)
{
	char text[700];
	int64_t now = clock_mono_ms();
	if (s->complained_ms != 0 && now - s->complained_ms < COMPLAIN_AGAIN_MS)
		return;
	s->complained_ms = now;
	if (why->line > 0)
		(void)snprintf(text, sizeof text, "%s:%u: %s", why->file, why->line, why->reason);
	else
		(void)snprintf(text, sizeof text, "%s: %s", why->file, why->reason);
	LOG(&m->proc.log, map_failed, NO_ID, F("map", span_of(s->spec)), F("reason", span_of(text)));
}

void query_take(struct maps *m, struct query *q, enum map_status s, struct complaint *why)
{
	struct step *step = &q->steps[q->at];
	if (s == MAP_NONE) {
		q->at++;
		return;
	}
	if (s == MAP_FAILED) {
		if (step->source != NULL)
			complain_of(m, step->source, why);
		q->answer = ANSWER_FAILED;
		(void)snprintf(q->rule, sizeof q->rule, "%s: %s cannot be read", step->param == NULL ? "users" : step->param, step->source == NULL ? "the user table" : step->source->spec);
		q->at = q->n;
		q->list = false;
		return;
	}
	if (q->question >= ASK_CLIENT) {
		struct finding *g = &q->groups[step->group];
		g->found = true;
		g->value = arena_span(&q->arena, buffer_span(&q->value));
		buffer_clear(&q->value);
		while (q->at < q->n && q->steps[q->at].group == step->group)
			q->at++;
		return;
	}
	if (q->asking_owner) {
		q->list = true;
		q->at = q->n;
		return;
	}
	q->answer = step->answer;
	if (step->kind == STEP_MAP)
		(void)snprintf(q->rule, sizeof q->rule, "%s: %s has %.*s", step->param, step->source->spec, SPAN_ARG(step->key));
	else
		(void)snprintf(q->rule, sizeof q->rule, "%s%.*s", step->kind == STEP_USER ? "a user of this machine: " : step->param, SPAN_ARG(step->key));
	if (step->answer == ANSWER_ALIAS) {
		struct step found = *step;
		plan_owner(m, q, &found);
	} else {
		q->at = q->n;
	}
}

static enum map_status ask_user(struct span name, struct complaint *why)
{
	char text[33], block[16384];
	struct passwd pw, *found = NULL;
	if (name.n == 0 || name.n >= sizeof text || memchr(name.at, '\0', name.n) != NULL)
		return MAP_NONE;
	memcpy(text, name.at, name.n);
	text[name.n] = '\0';
	int error = getpwnam_r(text, &pw, block, sizeof block, &found);
	if (found != NULL)
		return MAP_FOUND;
	if (error == 0 || error == ENOENT || error == ESRCH)
		return MAP_NONE;
	complain(why, "users", 0, "%s", strerror(error));
	return MAP_FAILED;
}

static enum map_status ask_map(struct source *s, struct query *q, struct span key, struct complaint *why)
{
	struct buffer ignored;
	buffer_init(&ignored, MAP_VALUE_MOST);
	enum map_status status = s->map == NULL && map_open(span_of(s->spec), &s->map, why) != 0 ? MAP_FAILED :
		map_query(s->map, key, q->asking_owner ? &ignored : &q->value, why);
	buffer_free(&ignored);
	return status;
}

void query_run(struct maps *m, struct query *q)
{
	while (q->at < q->n) {
		struct complaint why = {.file = ""};
		const struct step *s = &q->steps[q->at];
		if (s->kind == STEP_MAP && s->source->helper_fd >= 0) {
			helper_ask(m, s->source, q);
			return;
		}
		enum map_status status = MAP_FOUND;
		int64_t began = clock_mono_ms();
		if (q->spent_ms > ASK_MOST_MS) { /* whoever sends what takes so long waits alone */
			complain(&why, "maps", 0, "one question takes longer than %d ms", ASK_MOST_MS);
			status = MAP_FAILED;
		} else if (s->kind == STEP_MAP)
			status = ask_map(s->source, q, s->key, &why);
		else if (s->kind == STEP_USER)
			status = ask_user(s->key, &why);
		else
			buffer_put_span(&q->value, s->text);
		q->spent_ms += clock_mono_ms() - began;
		query_take(m, q, status, &why);
	}
	finish(m, q);
}

static void plan(struct maps *m, struct query *q, struct span asked)
{
	struct address a;
	bool known = q->question < ASK_CLIENT && address_parse(asked, ADDRESS_UTF8, &a) == 0;
	const struct domain *d = known ? route_section(q->server, a.domain) : NULL;
	q->asked = arena_span(&q->arena, asked);
	switch (q->question) {
	case ASK_EXPANSION:
		if (known)
			plan_expansion(m, q, &a, d);
		break;
	case ASK_RECIPIENT:
		if (known)
			plan_recipient(m, q, &a, d);
		break;
	case ASK_RELAY:
		if (known)
			plan_relay(m, q, &a, d);
		break;
	case ASK_LOGINS:
		if (known)
			plan_logins(m, q, &a, d);
		break;
	case ASK_SECRET:
		plan_secret(m, q, q->asked);
		break;
	case ASK_CLIENT:
		plan_client(m, q, q->asked);
		break;
	case ASK_SENDER:
		plan_sender(m, q, q->asked);
		break;
	case ASK_RECIPIENT_ACCESS:
		plan_recipient_access(m, q, q->asked);
		break;
	case ASK_HEADER:
		plan_header(m, q, q->asked);
		break;
	case ASK_SENDER_NAME:
		plan_sender_name(m, q, q->asked);
		break;
	case ASK_RECIPIENT_NAME:
		plan_recipient_name(m, q, q->asked);
		break;
	case ASK_OPERATOR: case ASK_COUNT:
		break;
	}
}

int query_on_query(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, map_query, asked);
	struct maps *m = ch->program;
	if (asked.question == ASK_OPERATOR)
		return operator_on_query(ch, &asked);
	bool may = (asked.question == ASK_SECRET) == (ch->peer == R_AUTHD); /* what passwords are compared with is for authd alone, and it needs nothing else */
	struct query *q = may && asked.server < m->proc.config.servers_n && asked.question < ASK_COUNT ? calloc(1, sizeof *q) : NULL;
	if (q == NULL)
		return EBADMSG;
	*q = (struct query){.channel = ch, .serial = asked.serial,
		.question = (enum map_question)asked.question, .server = &m->proc.config.servers[asked.server], .next_all = m->queries};
	m->queries = q;
	buffer_init(&q->value, MAP_VALUE_MOST);
	plan(m, q, asked.address);
	if (q->arena.failed) {
		q->n = 0;
		q->answer = ANSWER_FAILED;
		(void)snprintf(q->rule, sizeof q->rule, "too much to look for, or maps that this process does not know yet");
	}
	query_run(m, q);
	return 0;
}

void query_forget(struct maps *m, const struct channel *ch)
{
	for (struct query *q = m->queries; q != NULL; q = q->next_all)
		if (q->channel == ch)
			q->channel = NULL;
}
