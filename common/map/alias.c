/* The right side of aliases(5). */
#include "map/map.h"

#include <string.h>

static void skip(struct span *s, size_t n)
{
	s->at += n;
	s->n -= n;
}

/* Blanks, commas, line ends; comments at the start of a line. */
static void skip_between(struct span *rest, bool at_line)
{
	while (rest->n > 0) {
		char c = rest->at[0];
		if (at_line && c == '#')
			(void)span_until(rest, '\n');
		else if (c == ' ' || c == '\t' || c == '\r' || c == ',' || c == '\n')
			skip(rest, 1);
		else
			return;
		at_line = c == '\n' || c == '#' || (at_line && (c == ' ' || c == '\t'));
	}
}

/* To the end of the item; quotes are taken off, \ before a quote or \ too.  False: a quote stays open. */
static bool take_item(struct span *rest, struct buffer *out, bool *quoted)
{
	bool in = false;
	*quoted = rest->at[0] == '"';
	while (rest->n > 0) {
		char c = rest->at[0];
		if (!in && (c == ',' || c == '\n'))
			break;
		skip(rest, 1);
		if (c == '"') {
			in = !in;
			continue;
		}
		if (in && c == '\\' && rest->n > 0 && (rest->at[0] == '"' || rest->at[0] == '\\')) {
			c = rest->at[0];
			skip(rest, 1);
		}
		if (c != '\r')
			buffer_putc(out, c);
	}
	return !in;
}

int alias_next(struct span *rest, struct alias_item *out, struct arena *scratch)
{
	static const struct { const char *lead; enum alias_kind kind; } leads[] = {
		{":include:", ALIAS_INCLUDE}, {"|", ALIAS_PIPE}, {"/", ALIAS_FILE}, {"\\", ALIAS_SELF}};
	struct buffer item;
	bool quoted, at_line = true;
	skip_between(rest, at_line);
	if (rest->n == 0)
		return 0;
	buffer_init(&item, MAP_VALUE_MOST);
	/* an address with a quoted local part keeps its quotes; commands and files lose theirs */
	struct span raw = *rest;
	bool closed = take_item(rest, &item, &quoted);
	struct span text = span_trim(buffer_span(&item));
	*out = (struct alias_item){.kind = ALIAS_ADDRESS, .text = span_trim((struct span){raw.at, raw.n - rest->n})};
	for (size_t i = 0; i < COUNT_OF(leads); i++) {
		size_t n = strlen(leads[i].lead);
		if (text.n < n || !span_case_eq((struct span){text.at, n}, span_of(leads[i].lead)))
			continue;
		*out = (struct alias_item){.kind = leads[i].kind, .text = span_trim((struct span){text.at + n, text.n - n})};
		if (leads[i].kind == ALIAS_FILE)
			out->text = text;
		break;
	}
	bool good = closed && buffer_ok(&item) && out->text.n > 0;
	out->text = arena_span(scratch, out->text);
	buffer_free(&item);
	return good && !scratch->failed ? 1 : -1;
}
