/* What access maps, canonical maps and header checks found, as one answer. */
#include "maps.h"
#include "message/message.h"

#include <stdio.h>
#include <string.h>

/* The words of a value, strongest last: of several in one header the strongest decides. */
static const char *const actions[] = {"OK", "DUNNO", "WARN", "IGNORE", "PREPEND", "REPLACE", "HOLD", "DISCARD", "DEFER", "REJECT"};
enum { ACTION_WARN = 2, ACTION_IGNORE = 3, ACTION_PREPEND = 4, ACTION_REPLACE = 5, ACTION_HOLD = 6, ACTION_DEFER = 8, ACTION_REJECT = 9 };

/* "Name: text" on one line (RFC 5322 2.2): anything else put into a header would end it. */
static bool is_field(struct span text)
{
	size_t n = 0;
	for (size_t i = 0; i < text.n; i++)
		if (((unsigned char)text.at[i] < ' ' && text.at[i] != '\t') || text.at[i] == 0x7f)
			return false;
	while (n < text.n && text.at[n] > ' ' && text.at[n] < 0x7f && text.at[n] != ':')
		n++;
	return n > 0 && n < text.n && text.at[n] == ':';
}

/* "REJECT text", "550 5.7.1 text", "450 text".  A value that says nothing known here defers: nothing is let through by a slip. */
static size_t read_action(struct span value, bool header, struct span *text)
{
	struct span rest = value, word = span_word(&rest, " \t");
	uint64_t code;
	*text = span_trim(rest);
	for (size_t i = 0; i < COUNT_OF(actions); i++) {
		bool puts = i == ACTION_PREPEND || i == ACTION_REPLACE;
		if (span_case_is(word, actions[i]) && (header || (i != ACTION_IGNORE && !puts)) && (!puts || is_field(*text)))
			return i;
	}
	if (word.n == 3 && parse_u64(word, 599, &code) == 0 && code >= 400) {
		struct span after = *text, status = span_word(&after, " \t");
		if (status.n >= 5 && status.at[1] == '.' && status.at[0] == word.at[0]) /* the enhanced status is ours */
			*text = span_trim(after);
		return code < 500 ? ACTION_DEFER : ACTION_REJECT;
	}
	*text = SPAN_LIT("the table has no known action");
	return ACTION_DEFER;
}

static void take_stronger(const struct finding *g, bool header, size_t *best, struct span *text)
{
	struct span said;
	size_t action = read_action(g->value, header, &said);
	if (action < ACTION_HOLD || action <= *best)
		return;
	*best = action;
	*text = said;
}

static void warn(const struct query *q, const struct finding *g, struct span text)
{
	char line[200];
	struct span one = g->asked;
	(void)snprintf(line, sizeof line, "%.*s", one.n > 150 ? 150 : (int)one.n, one.at);
	LOG(&((struct maps *)q->channel->program)->proc.log, check_warned, NO_ID, F("found", span_of(line)), F("text", text));
}

/* The address as the map has it; "@domain" keeps the local part. */
static void put_canonical(struct buffer *b, const struct finding *g)
{
	struct address a;
	if (g->value.n > 0 && g->value.at[0] == '@' && address_parse(g->asked, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) == 0)
		buffer_put_span(b, a.local);
	buffer_put_span(b, g->value);
}

/* What comes of a database or a directory may be anybody's: it goes into an envelope only as an address. */
static bool is_name(const struct query *q, const struct finding *g)
{
	struct buffer b;
	struct address a;
	buffer_init(&b, MAP_KEY_MOST);
	put_canonical(&b, g);
	bool good = buffer_ok(&b) && address_parse(buffer_span(&b), ADDRESS_UTF8, &a) == 0;
	buffer_free(&b);
	if (!good && q->channel != NULL)
		LOG(&((struct maps *)q->channel->program)->proc.log, not_an_address, NO_ID, F("found", g->asked), F("text", g->value));
	return good;
}

struct header_state {
	const struct query *q;
	struct arena *arena;
	size_t first, end; /* groups of the present field */
	bool changed;
};

static struct span replace(void *context, struct span address)
{
	struct header_state *h = context;
	struct buffer b;
	struct address a;
	struct span text = {"", 0};
	buffer_init(&b, 1000);
	for (size_t i = h->first; i < h->end && text.n == 0; i++) {
		const struct finding *g = &h->q->groups[i];
		if (!g->canonical || !g->found || !span_eq(g->asked, address))
			continue;
		put_canonical(&b, g);
		if (address_parse(buffer_span(&b), ADDRESS_UTF8, &a) == 0)
			text = arena_span(h->arena, buffer_span(&b));
		h->changed = h->changed || text.n > 0;
	}
	buffer_free(&b);
	return text;
}

/* What a check says of the field: false: it is left out. */
static bool put_checked(struct buffer *out, const struct finding *g, struct header_state *h)
{
	struct span text;
	size_t action = g->found ? read_action(g->value, true, &text) : 0;
	if (action == ACTION_WARN)
		warn(h->q, g, text);
	if (action == ACTION_PREPEND || action == ACTION_REPLACE) {
		buffer_put_span(out, text);
		buffer_puts(out, "\r\n");
	}
	h->changed = h->changed || action == ACTION_PREPEND || action == ACTION_REPLACE || action == ACTION_IGNORE;
	return action != ACTION_REPLACE && action != ACTION_IGNORE;
}

static void answer_header(struct query *q, struct buffer *changed)
{
	struct header_field f;
	struct span rest = q->asked;
	struct header_state h = {.q = q, .arena = &q->arena};
	struct rewrite r = {.default_domain = "", .masquerade = "", .replace = replace, .replace_context = &h};
	size_t at = 0;
	while (header_next(&rest, &f)) {
		bool keep = true;
		if (at < q->groups_n && !q->groups[at].canonical && q->groups[at].asked.at == f.whole.at)
			keep = put_checked(changed, &q->groups[at++], &h);
		h.first = at;
		while (at < q->groups_n && q->groups[at].canonical && q->groups[at].field == f.whole.at)
			at++;
		h.end = at;
		if (keep)
			rewrite_field(changed, &f, &r);
	}
	if (!h.changed)
		buffer_clear(changed);
}

bool screen_answer(struct query *q, struct buffer *action, struct buffer *changed)
{
	size_t best = 0;
	struct span text = {"", 0};
	for (size_t i = 0; i < q->groups_n; i++)
		if (q->groups[i].found && q->groups[i].canonical && !is_name(q, &q->groups[i]))
			return false;
	for (size_t i = 0; i < q->groups_n; i++)
		if (q->groups[i].found && !q->groups[i].canonical)
			take_stronger(&q->groups[i], q->question == ASK_HEADER, &best, &text);
	if (best > 0)
		buffer_printf(action, "%s %.*s", actions[best], text.n > 400 ? 400 : (int)text.n, text.at);
	if (q->question == ASK_HEADER) {
		answer_header(q, changed);
		return true;
	}
	for (size_t i = 0; i < q->groups_n; i++) {
		struct span said;
		const struct finding *g = &q->groups[i];
		if (g->found && g->canonical)
			put_canonical(changed, g);
		else if (g->found && read_action(g->value, false, &said) == ACTION_WARN && q->channel != NULL)
			warn(q, g, said);
	}
	return true;
}
