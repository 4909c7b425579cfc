/* From a text to a database: made aside, renamed when it is whole and on the disk. */
#include "map/map.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int put_all(struct map_maker *k, struct span text, bool aliases, size_t *n, struct complaint *why)
{
	struct buffer key, value;
	unsigned line = 0;
	int more, error = 0;
	buffer_init(&key, MAP_KEY_MOST);
	buffer_init(&value, MAP_VALUE_MOST);
	while (error == 0 && (more = map_text_next(&text, &line, aliases, &key, &value, why)) != 0) {
		error = more < 0 ? EINVAL : k->put(k, buffer_span(&key), buffer_span(&value));
		if (error == EEXIST)
			complain(why, why->file, line, "%.*s is there twice", (int)key.n, key.at);
		*n += error == 0;
	}
	buffer_free(&key);
	buffer_free(&value);
	return error;
}

/* The new file is on the disk before it has its name, its name before anybody is told. */
static int give_name(const char *aside, const char *path)
{
	char *copy = span_dup(span_of(path));
	int fd = open(aside, O_RDONLY | O_CLOEXEC), dir = -1;
	int error = fd < 0 || fsync(fd) != 0 || rename(aside, path) != 0 ? errno : 0;
	if (error == 0 && copy != NULL)
		dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0 && fsync(dir) != 0)
		error = errno;
	if (dir >= 0)
		(void)close(dir);
	if (fd >= 0)
		(void)close(fd);
	free(copy);
	return error;
}

static int make(const char *path, const char *aside, struct span spec, struct span text, bool aliases, size_t *n, struct complaint *why)
{
	struct map_maker k;
	struct span rest = spec, type = span_until(&rest, ':');
	int error = span_is(type, "cdb") ? map_cdb_make(&k, aside) : map_db_make(&k, aside, span_is(type, "btree"));
	if (error == 0) {
		error = put_all(&k, text, aliases, n, why);
		int ended = k.end(&k, error == 0);
		error = error != 0 ? error : ended;
	}
	if (error == 0)
		error = give_name(aside, path);
	if (error != 0)
		(void)unlink(aside);
	if (error != 0 && why->reason[0] == '\0')
		complain(why, path, 0, "%s", strerror(error));
	return error;
}

int map_build(struct span spec, bool aliases, size_t *n, struct complaint *why)
{
	struct buffer text;
	char path[4200], aside[4300];
	struct stat st;
	struct span source = spec, type = span_until(&source, ':');
	*n = 0;
	why->reason[0] = '\0';
	if (!span_is(type, "hash") && !span_is(type, "btree") && !span_is(type, "cdb")) {
		complain(why, "hornmap", 0, "%.*s: only hash, btree and cdb are built from a text", SPAN_ARG(spec));
		return EINVAL;
	}
	map_spec_path(spec, path, sizeof path);
	(void)snprintf(aside, sizeof aside, "%s.%ld.new", path, (long)getpid());
	(void)snprintf(why->file, sizeof why->file, "%.*s", SPAN_ARG(source));
	buffer_init(&text, MAP_FILE_MOST);
	int error = read_file_at(AT_FDCWD, why->file, MAP_FILE_MOST - 1, &text);
	if (error != 0)
		complain(why, why->file, 0, "%s", strerror(error));
	else
		error = make(path, aside, spec, buffer_span(&text), aliases, n, why);
	/* who may not read the text may not read the database */
	if (error == 0 && stat(why->file, &st) == 0 && chmod(path, st.st_mode & 0777) != 0)
		error = errno;
	buffer_free(&text);
	return error;
}
