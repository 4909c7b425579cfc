/* cdb: constant databases, read and written by tinycdb. */
#include "map/map.h"

#include <cdb.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_cdb(struct map *m, struct complaint *why)
{
	struct cdb *c = calloc(1, sizeof *c);
	int fd = c == NULL ? -1 : open(m->path, O_RDONLY | O_CLOEXEC);
	int error = c == NULL ? ENOMEM : fd < 0 ? errno : 0;
	if (error == 0 && cdb_init(c, fd) != 0) {
		error = errno == 0 ? EPROTO : errno;
		(void)close(fd);
	}
	if (error != 0) {
		complain(why, m->path, 0, "no constant database: %s", strerror(error));
		free(c);
		return error;
	}
	m->state = c;
	return 0;
}

static void close_cdb(struct map *m)
{
	struct cdb *c = m->state;
	int fd = cdb_fileno(c);
	cdb_free(c);
	(void)close(fd);
	free(c);
}

static enum map_status query_cdb(struct map *m, struct span key, struct buffer *value, struct complaint *why)
{
	struct cdb *c = m->state;
	char name[MAP_KEY_MOST + 1];
	memcpy(name, key.at, key.n);
	name[key.n] = '\0';
	int found = cdb_find(c, name, (unsigned)key.n);
	if (found == 0) /* as some makers write them */
		found = cdb_find(c, name, (unsigned)key.n + 1);
	if (found == 0)
		return MAP_NONE;
	const char *at = found < 0 ? NULL : cdb_getdata(c);
	if (at == NULL) {
		complain(why, m->path, 0, "damaged: %s", strerror(errno));
		return MAP_FAILED;
	}
	size_t n = cdb_datalen(c);
	buffer_put(value, at, n > 0 && at[n - 1] == '\0' ? n - 1 : n);
	return MAP_FOUND;
}

static int each_cdb(struct map *m, bool (*take)(void *context, struct span key, struct span value), void *context, struct complaint *why)
{
	struct cdb *c = m->state;
	unsigned at;
	int more = 1;
	cdb_seqinit(&at, c);
	while (more > 0 && (more = cdb_seqnext(&at, c)) > 0) {
		struct span key = {cdb_getkey(c), cdb_keylen(c)}, value = {cdb_getdata(c), cdb_datalen(c)};
		if (!take(context, key, value))
			break;
	}
	if (more < 0)
		complain(why, m->path, 0, "damaged");
	return more < 0 ? EBADMSG : 0;
}

static int put_pair(struct map_maker *k, struct span key, struct span value)
{
	int r = cdb_make_put(k->state, key.at, (unsigned)key.n, value.at, (unsigned)value.n, CDB_PUT_INSERT);
	return r < 0 ? errno : r > 0 ? EEXIST : 0;
}

static int end_cdb(struct map_maker *k, bool keep)
{
	struct cdb_make *c = k->state;
	int fd = c->cdb_fd;
	int error = cdb_make_finish(c) != 0 ? errno : keep && fsync(fd) != 0 ? errno : 0;
	(void)close(fd);
	free(c);
	return error;
}

int map_cdb_make(struct map_maker *k, const char *path)
{
	struct cdb_make *c = calloc(1, sizeof *c);
	int fd = c == NULL ? -1 : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	int error = c == NULL ? ENOMEM : fd < 0 || cdb_make_start(c, fd) != 0 ? errno : 0;
	if (error != 0) {
		if (fd >= 0)
			(void)close(fd);
		free(c);
		return error;
	}
	*k = (struct map_maker){.state = c, .put = put_pair, .end = end_cdb};
	return 0;
}

const struct map_kind map_cdb = {"cdb", true, false, open_cdb, close_cdb, query_cdb, each_cdb};
