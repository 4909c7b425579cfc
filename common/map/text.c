/* The texts that tables are made of, and the keys that are looked for. */
#include "map/map.h"

#include <ctype.h>
#include <string.h>

/* A logical line: what begins with a blank goes on with the line before; comments and empty lines fall away. */
static bool take_logical(struct span *rest, unsigned *line, struct buffer *out)
{
	bool some = false;
	buffer_clear(out);
	while (rest->n > 0) {
		struct span ahead = *rest, one = span_until(&ahead, '\n');
		bool goes_on = one.n > 0 && (one.at[0] == ' ' || one.at[0] == '\t');
		struct span text = span_trim(one);
		if (text.n > 0 && text.at[text.n - 1] == '\r')
			text = span_trim((struct span){text.at, text.n - 1});
		bool empty = text.n == 0 || text.at[0] == '#';
		if (some && !empty && !goes_on)
			return true;
		*rest = ahead;
		(*line)++;
		if (empty)
			continue;
		if (some)
			buffer_putc(out, ' ');
		buffer_put_span(out, text);
		some = true;
	}
	return some;
}

/* A name that may be in quotes, in front of ":" (aliases) or blanks. */
static struct span take_key(struct span *text, bool aliases)
{
	struct span key;
	if (text->n > 0 && text->at[0] == '"') {
		text->at++;
		text->n--;
		return span_until(text, '"');
	}
	if (aliases)
		return span_trim(span_until(text, ':'));
	key = span_word(text, " \t");
	return key;
}

int map_text_next(struct span *rest, unsigned *line, bool aliases, struct buffer *key, struct buffer *value, struct complaint *why)
{
	struct buffer text;
	buffer_init(&text, MAP_FILE_MOST);
	buffer_clear(key);
	buffer_clear(value);
	if (!take_logical(rest, line, &text)) {
		buffer_free(&text);
		return 0;
	}
	struct span body = buffer_span(&text);
	bool quoted = body.at[0] == '"', colon = memchr(body.at, ':', body.n) != NULL;
	struct span name = take_key(&body, aliases);
	if (aliases && quoted)
		(void)span_until(&body, ':');
	body = span_trim(body);
	for (size_t i = 0; i < name.n; i++)
		buffer_putc(key, (char)tolower((unsigned char)name.at[i]));
	buffer_put_span(value, body);
	const char *missing = name.n == 0 ? "no name" : aliases && !colon ? "no colon behind the name" : body.n == 0 ? "nothing behind the name" : NULL;
	bool good = missing == NULL && buffer_ok(&text) && buffer_ok(key) && buffer_ok(value);
	if (!good)
		complain(why, why->file, *line, "%s: write %s", missing == NULL ? "too long" : missing, aliases ? "name: address, ..." : "key value");
	buffer_free(&text);
	return good ? 1 : -1;
}

bool map_key(enum map_key_style style, struct span local, struct span domain, const char *delimiter, size_t nth, struct buffer *key)
{
	size_t cut = 1;
	while (cut < local.n && (delimiter[0] == '\0' || local.at[cut] != delimiter[0]))
		cut++;
	bool extended = cut < local.n;
	size_t plain = extended ? 1 : 0; /* which of the forms is without the extension */
	buffer_clear(key);
	if (nth > plain + (style == KEYS_ADDRESS ? 1 : 0))
		return false;
	struct span part = nth > plain ? (struct span){"", 0} : nth == plain && extended ? (struct span){local.at, cut} : local;
	for (size_t i = 0; i < part.n; i++)
		buffer_putc(key, (char)tolower((unsigned char)part.at[i]));
	if (style == KEYS_ADDRESS)
		buffer_putc(key, '@');
	for (size_t i = 0; style == KEYS_ADDRESS && i < domain.n; i++)
		buffer_putc(key, (char)tolower((unsigned char)domain.at[i]));
	return buffer_ok(key);
}
