/* What tables say of a file's message: canonical maps, then header checks; one question at a time. */
#include "pickup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool set(const char *text)
{
	return text[0] != '\0';
}

bool screen_is_needed(const struct server *s)
{
	return set(s->p.canonical_maps) || set(s->p.sender_canonical_maps) || set(s->p.recipient_canonical_maps) || set(s->p.header_checks);
}

int screen_begin(struct submission *s, const struct draft *d, const char *file)
{
	struct screening *g = calloc(1, sizeof *g);
	if (g == NULL)
		return ENOMEM;
	s->screening = g;
	(void)snprintf(g->file, sizeof g->file, "%s", file);
	g->header_at = d->header_at;
	g->header_n = d->header_n;
	g->was = s->envelope;
	buffer_init(&s->envelope, g->was.limit);
	return envelope_parse(buffer_span(&g->was), &g->arena, &g->e);
}

void screen_free(struct submission *s)
{
	if (s->screening == NULL)
		return;
	buffer_free(&s->screening->was);
	arena_free(&s->screening->arena);
	free(s->screening);
	s->screening = NULL;
}

static enum map_question question_of(const struct screening *g)
{
	return g->at == 0 ? ASK_SENDER_NAME : g->at <= g->e.rcpts_n ? ASK_RECIPIENT_NAME : ASK_HEADER;
}

static void take_name(struct screening *g, struct span name)
{
	struct address a;
	struct span *place = g->at == 0 ? &g->e.sender : &g->e.rcpts[g->at - 1].address;
	if (name.n > 0 && address_parse(name, ADDRESS_UTF8, &a) == 0) {
		*place = arena_span(&g->arena, name);
		g->e.flags |= a.utf8 ? ENV_UTF8 : 0u;
	}
	g->at++;
}

/* Two names of one mailbox may have become the same. */
static void drop_twins(struct envelope *e)
{
	size_t n = 0;
	for (size_t i = 0; i < e->rcpts_n; i++) {
		bool twin = false;
		for (size_t j = 0; j < n && !twin; j++)
			twin = span_case_eq(e->rcpts[j].address, e->rcpts[i].address);
		if (!twin)
			e->rcpts[n++] = e->rcpts[i];
	}
	e->rcpts_n = n;
}

static void finish(struct pickup *p, struct submission *s, struct span header)
{
	struct screening *g = s->screening;
	struct draft d = {.envelope = s->envelope, .content = s->content, .header_at = g->header_at, .header_n = g->header_n};
	drop_twins(&g->e);
	int error = draft_screened(p->server, &g->arena, &g->e, header, &d);
	s->envelope = d.envelope;
	s->content = d.content;
	if (error != 0) {
		submit_refuse(p, s, "too large with what tables add");
		return;
	}
	screen_free(s);
	submit_screened(p, s);
}

/* Again, where it was asked already: maps may be another process now. */
void screen_ask(struct pickup *p, struct submission *s)
{
	struct screening *g = s->screening;
	enum map_question q = question_of(g);
	if (p->maps == NULL)
		return;
	if (q == ASK_HEADER && g->header_n > IPC_INLINE) {
		submit_refuse(p, s, "its header is too long to be checked");
		return;
	}
	struct span about = q == ASK_SENDER_NAME ? g->e.sender : q == ASK_HEADER ? (struct span){s->content.at + g->header_at, g->header_n} : g->e.rcpts[g->at - 1].address;
	g->serial = ++p->questions;
	send_map_query(p->maps, (struct msg_map_query){.serial = g->serial, .server = (uint32_t)(p->server - p->proc.config.servers), .question = q, .address = about}, -1);
}

/* "ACTION text": maps has made one of all that was found. */
static void take_header(struct pickup *p, struct submission *s, struct span value, struct span header)
{
	struct span rest = value, word = span_word(&rest, " ");
	char reason[500];
	rest = span_trim(rest);
	if (span_is(word, "REJECT")) {
		(void)snprintf(reason, sizeof reason, "refused by header_checks%s%.*s", rest.n > 0 ? ": " : "", rest.n > 400 ? 400 : (int)rest.n, rest.at);
		submit_refuse(p, s, reason);
	} else if (span_is(word, "DEFER")) {
		submit_leave(p, s, "header_checks says not now");
	} else if (span_is(word, "DISCARD")) {
		submit_drop(p, s);
	} else {
		s->screening->e.flags |= span_is(word, "HOLD") ? ENV_HELD : 0u;
		finish(p, s, header);
	}
}

int screen_on_answer(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, map_answer, answer);
	struct pickup *p = ch->program;
	struct submission *s = p->submissions;
	while (s != NULL && (s->screening == NULL || s->screening->serial != answer.serial))
		s = s->next;
	if (s == NULL)
		return 0;
	if (answer.status == ANSWER_FAILED) {
		submit_later(p, s, "a table cannot be read");
	} else if (question_of(s->screening) == ASK_HEADER) {
		take_header(p, s, answer.value, answer.address);
	} else {
		take_name(s->screening, answer.address);
		screen_ask(p, s);
	}
	return 0;
}
