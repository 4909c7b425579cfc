#include "map/map.h"

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
