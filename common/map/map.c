#include "map/map.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct map_kind *const kinds[] = {&map_hash, &map_btree, &map_cdb, &map_regexp, &map_pcre, &map_inline, &map_odbc, &map_ldap};

enum { LOOK_EVERY_MS = 1000 };

static const struct map_kind *kind_of(struct span spec, struct span *name)
{
	struct span rest = spec, type = span_until(&rest, ':');
	*name = rest;
	for (size_t i = 0; i < COUNT_OF(kinds); i++)
		if (span_is(type, kinds[i]->name))
			return kinds[i];
	return NULL;
}

bool map_is_remote(struct span spec)
{
	struct span name;
	const struct map_kind *k = kind_of(spec, &name);
	return k != NULL && k->remote;
}

void map_spec_path(struct span spec, char *out, size_t size)
{
	struct span name;
	const struct map_kind *k = kind_of(spec, &name);
	out[0] = '\0';
	if (k != NULL && k->tail != NULL)
		(void)snprintf(out, size, "%.*s%s", SPAN_ARG(name), k->tail);
}

static bool note_file(struct map *m)
{
	struct stat st;
	if (stat(m->path, &st) != 0)
		return false;
	m->device = st.st_dev;
	m->inode = st.st_ino;
	m->changed_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
	return true;
}

static int open_it(struct map *m, struct complaint *why)
{
	/* what the file is first: one that takes its name meanwhile is seen as another at the next look */
	if (m->path != NULL && !note_file(m)) {
		int error = errno;
		complain(why, m->path, 0, "%s", strerror(error));
		return error;
	}
	int error = m->kind->open(m, why);
	m->open = error == 0;
	m->looked_ms = clock_mono_ms();
	return error;
}

int map_open(struct span spec, struct map **out, struct complaint *why)
{
	struct span name;
	char path[4200];
	const struct map_kind *k = kind_of(spec, &name);
	struct map *m = k == NULL ? NULL : calloc(1, sizeof *m);
	if (m == NULL) {
		complain(why, "map", 0, k == NULL ? "%.*s: no such kind of map" : "%.*s: not enough memory", SPAN_ARG(spec));
		return k == NULL ? EINVAL : ENOMEM;
	}
	map_spec_path(spec, path, sizeof path);
	*m = (struct map){.kind = k, .name = span_dup(name), .path = path[0] == '\0' ? NULL : span_dup(span_of(path))};
	int error = m->name == NULL || (path[0] != '\0' && m->path == NULL) ? ENOMEM : open_it(m, why);
	if (error != 0) {
		map_close(m);
		return error;
	}
	*out = m;
	return 0;
}

static void close_it(struct map *m)
{
	if (m->open)
		m->kind->close(m);
	m->open = false;
	m->state = NULL;
}

void map_close(struct map *m)
{
	if (m == NULL)
		return;
	close_it(m);
	free(m->name);
	free(m->path);
	free(m);
}

/* At most once a second: is the file that was opened still the one of that name? */
static void look_again(struct map *m)
{
	struct stat st;
	if (m->path == NULL || !m->open || clock_mono_ms() - m->looked_ms < LOOK_EVERY_MS)
		return;
	m->looked_ms = clock_mono_ms();
	if (stat(m->path, &st) != 0 || st.st_dev != m->device || st.st_ino != m->inode ||
		st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec != m->changed_ns)
		close_it(m);
}

enum map_status map_query(struct map *m, struct span key, struct buffer *value, struct complaint *why)
{
	if (key.n == 0 || key.n > MAP_KEY_MOST)
		return MAP_NONE;
	look_again(m);
	if (!m->open && open_it(m, why) != 0)
		return MAP_FAILED;
	size_t before = value->n;
	enum map_status s = m->kind->query(m, key, value, why);
	if (s == MAP_FOUND && !buffer_ok(value)) {
		complain(why, m->name, 0, "the value of %.*s is too large", SPAN_ARG(key));
		s = MAP_FAILED;
	}
	if (s != MAP_FOUND)
		value->n = before;
	return s;
}

int map_each(struct map *m, bool (*take)(void *context, struct span key, struct span value), void *context, struct complaint *why)
{
	if (m->kind->each == NULL) {
		complain(why, m->name, 0, "a map of this kind has no list of its pairs");
		return ENOTSUP;
	}
	return m->kind->each(m, take, context, why);
}

bool map_takes_parts(const struct map *m)
{
	return m->kind->parts;
}

const char *map_path(const struct map *m)
{
	return m->path;
}

/* ---- texts ---- */

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
