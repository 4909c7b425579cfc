/* expand: the commands, files and lists that an alias leads to.
 * User: alias_user.
 * May: read the alias maps and the lists that they name; run their commands, write their files.
 * Never: get new privileges; outlive deliver; take a command or file from a map that somebody beside root may write. */
#include "child/child.h"
#include "map/map.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool owned_alone(const struct stat *st, uint64_t owner)
{
	return (st->st_uid == 0 || st->st_uid == owner) && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Nobody else can put another file in its place. */
static bool in_safe_place(const char *path, uint64_t owner)
{
	struct stat st;
	char *copy = span_dup(span_of(path));
	bool safe = copy != NULL && stat(dirname(copy), &st) == 0 && owned_alone(&st, owner);
	free(copy);
	return safe;
}

/* Root's, or the owner's of a private instance; nobody else may write it. */
static bool may_run(const struct child_task *t, const struct map *m)
{
	struct stat st;
	uint64_t owner = 0;
	const char *path = map_path(m);
	if (path == NULL)
		return true; /* it stands in the configuration */
	if (parse_u64(t->owner, UINT32_MAX, &owner) != 0 || stat(path, &st) != 0)
		return false;
	return owned_alone(&st, owner) && st.st_ino == m->inode && in_safe_place(path, owner);
}

static enum map_status ask(const struct child_task *t, struct span spec, struct span key, struct buffer *value, bool *runs)
{
	struct map *m;
	struct complaint why = {.file = ""};
	bool remote = map_is_remote(spec);
	if (map_open(spec, &m, &why) != 0)
		child_end(451, "4.3.5", "alias_maps: %s: %s", why.file, why.reason);
	enum map_status s = map_query(m, key, value, &why);
	*runs = !remote && may_run(t, m);
	map_close(m);
	if (s == MAP_FAILED)
		child_end(451, "4.3.5", "alias_maps: %s: %s", why.file, why.reason);
	return s;
}

/* As maps looks: each key in all maps before the next one. */
static bool look_up(const struct child_task *t, struct buffer *value, bool *runs)
{
	struct buffer key;
	char *delimiter = span_dup(t->delimiter);
	buffer_init(&key, MAP_KEY_MOST);
	for (size_t nth = 0; delimiter != NULL && map_key(KEYS_ALIAS, t->local, t->domain, delimiter, nth, &key); nth++) {
		struct span rest = t->maps, spec;
		bool bad;
		while (map_spec_next(&rest, &spec, &bad)) {
			struct span name = spec, type = span_until(&name, ':');
			bool whole = span_is(type, "regexp") || span_is(type, "pcre");
			if ((nth == 0 || !whole) && ask(t, spec, buffer_span(&key), value, runs) == MAP_FOUND)
				return true;
		}
	}
	buffer_free(&key);
	free(delimiter);
	return false;
}

int main(void)
{
	struct child_task t = {.action = {"", 0}};
	struct buffer value;
	bool runs = false;
	child_begin(&t);
	buffer_init(&value, MAP_VALUE_MOST);
	if (!look_up(&t, &value, &runs))
		child_end(451, "4.3.5", "the alias has just gone");
	struct items it = {.task = &t, .includes = true, .runs = runs};
	buffer_init(&it.addresses, 1024 * 1024);
	items_do(&it, buffer_span(&value), runs ? "alias_maps" : "alias_maps (not root's alone to write)");
	items_end(&it, &t);
}
