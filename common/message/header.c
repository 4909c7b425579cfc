#include "message/message.h"

#include <string.h>

static const struct { const char *name; unsigned bit; } known[] = {
	{"Date", SEEN_DATE}, {"Message-ID", SEEN_MESSAGE_ID}, {"From", SEEN_FROM}, {"Sender", SEEN_SENDER},
	{"To", SEEN_TO}, {"Cc", SEEN_CC}, {"Bcc", SEEN_BCC}, {"Return-Path", SEEN_RETURN_PATH},
	{"Resent-From", SEEN_RESENT_FROM}, {"Subject", SEEN_SUBJECT},
};

void header_walk_init(struct header_walk *w)
{
	*w = (struct header_walk){0};
}

static bool any_beyond_ascii(struct span s)
{
	size_t i = 0;
	for (; i + 8 <= s.n; i += 8) {
		uint64_t word;
		memcpy(&word, s.at + i, 8);
		if ((word & UINT64_C(0x8080808080808080)) != 0)
			return true;
	}
	for (; i < s.n; i++)
		if ((s.at[i] & 0x80) != 0)
			return true;
	return false;
}

static void note_name(struct header_walk *w, struct span name)
{
	if (span_case_is(name, "Received"))
		w->received++;
	for (size_t i = 0; i < COUNT_OF(known); i++)
		if (span_case_is(name, known[i].name))
			w->seen |= known[i].bit;
}

/* The line so far (its first bytes) is known: name found, end of header, or undecided. */
static void look_at_line(struct header_walk *w, bool complete)
{
	const char *colon = memchr(w->line, ':', w->line_n);
	if (colon != NULL) {
		struct span name = span_trim((struct span){w->line, (size_t)(colon - w->line)}), value = {colon + 1, w->line_n - (size_t)(colon + 1 - w->line)};
		note_name(w, name);
		w->named = true;
		if (!span_case_is(name, "TLS-Required"))
			return;
		w->named = complete || w->line_n == sizeof w->line; /* its value matters */
		w->tls_optional = w->tls_optional || (complete && span_case_is(span_word(&value, " \t\r("), "No"));
		return;
	}
	bool fold = w->line_n > 0 && (w->line[0] == ' ' || w->line[0] == '\t');
	if (complete && !fold)
		w->done = true; /* empty line, or no field at all: the body begins */
	else if (fold || w->line_n == sizeof w->line)
		w->named = true; /* a fold; or a long name, none that we know */
}

void header_walk(struct header_walk *w, struct span piece)
{
	w->eight_bit = w->eight_bit || any_beyond_ascii(piece);
	while (piece.n > 0 && !w->done) {
		const char *lf = memchr(piece.at, '\n', piece.n);
		size_t n = lf == NULL ? piece.n : (size_t)(lf - piece.at);
		if (!w->named) {
			size_t room = sizeof w->line - w->line_n, more = n < room ? n : room;
			memcpy(w->line + w->line_n, piece.at, more);
			w->line_n += more;
			look_at_line(w, lf != NULL);
		}
		if (lf == NULL)
			return;
		w->line_n = 0;
		w->named = false;
		piece.at += n + 1;
		piece.n -= n + 1;
	}
}

static size_t line_length(struct span s)
{
	const char *lf = s.n > 0 ? memchr(s.at, '\n', s.n) : NULL;
	return lf == NULL ? s.n : (size_t)(lf - s.at) + 1;
}

static bool name_is_valid(struct span name)
{
	for (size_t i = 0; i < name.n; i++)
		if (name.at[i] < '!' || name.at[i] > '~')
			return false;
	return name.n > 0;
}

static void advance(struct span *s, size_t n)
{
	s->at += n;
	s->n -= n;
}

bool header_next(struct span *rest, struct header_field *f)
{
	size_t n = line_length(*rest);
	struct span line = {rest->at, n};
	if (n == 0)
		return false;
	if (span_is(line, "\r\n") || span_is(line, "\n")) {
		advance(rest, n);
		return false;
	}
	const char *colon = memchr(line.at, ':', line.n);
	if (colon == NULL)
		return false;
	struct span name = span_trim((struct span){line.at, (size_t)(colon - line.at)});
	if (!name_is_valid(name))
		return false;
	for (;;) { /* folds */
		struct span after = {rest->at + n, rest->n - n};
		if (after.n == 0 || (after.at[0] != ' ' && after.at[0] != '\t'))
			break;
		n += line_length(after);
	}
	*f = (struct header_field){.name = name, .whole = {rest->at, n}};
	f->body = (struct span){colon + 1, n - (size_t)(colon + 1 - rest->at)};
	while (f->body.n > 0 && (f->body.at[f->body.n - 1] == '\n' || f->body.at[f->body.n - 1] == '\r'))
		f->body.n--;
	f->body = span_trim(f->body);
	advance(rest, n);
	return true;
}

bool header_has_delivered_to(struct span content, struct span recipient)
{
	struct header_field f;
	while (header_next(&content, &f))
		if (span_case_is(f.name, "Delivered-To") && span_case_eq(span_trim(f.body), recipient))
			return true;
	return false;
}
