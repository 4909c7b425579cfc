/* hash and btree: Berkeley DB files as postmap makes them: keys and values end with a NUL; files without it are read too. */
#include "map/map.h"

#include <db.h>
#include <stdlib.h>
#include <string.h>

static int db_error(int error)
{
	return error == 0 ? 0 : error > 0 ? error : error == DB_KEYEXIST ? EEXIST : EIO;
}

static void quiet(const DB_ENV *env, const char *prefix, const char *text)
{
	(void)env;
	(void)prefix;
	(void)text;
}

static int open_db(struct map *m, DBTYPE type, struct complaint *why)
{
	DB *db;
	int error = db_create(&db, NULL, 0);
	if (error == 0) {
		db->set_errcall(db, quiet);
		error = db->open(db, NULL, m->path, NULL, type, DB_RDONLY, 0);
		if (error != 0)
			(void)db->close(db, DB_NOSYNC);
	}
	if (error != 0) {
		complain(why, m->path, 0, "no %s file: %s", type == DB_HASH ? "hash" : "btree", db_strerror(error));
		return db_error(error);
	}
	m->state = db;
	return 0;
}

static int open_hash(struct map *m, struct complaint *why)
{
	return open_db(m, DB_HASH, why);
}

static int open_btree(struct map *m, struct complaint *why)
{
	return open_db(m, DB_BTREE, why);
}

static void close_db(struct map *m)
{
	DB *db = m->state;
	(void)db->close(db, DB_NOSYNC);
}

static struct span without_nul(const DBT *t)
{
	const char *at = t->data;
	size_t n = t->size;
	return (struct span){at, n > 0 && at[n - 1] == '\0' ? n - 1 : n};
}

static enum map_status query_db(struct map *m, struct span key, struct buffer *value, struct complaint *why)
{
	DB *db = m->state;
	char name[MAP_KEY_MOST + 1];
	DBT k = {.data = name, .size = (u_int32_t)key.n + 1}, v = {.data = NULL};
	memcpy(name, key.at, key.n);
	name[key.n] = '\0';
	int error = db->get(db, NULL, &k, &v, 0);
	if (error == DB_NOTFOUND) {
		k.size = (u_int32_t)key.n;
		error = db->get(db, NULL, &k, &v, 0);
	}
	if (error == DB_NOTFOUND)
		return MAP_NONE;
	if (error != 0) {
		complain(why, m->path, 0, "%s", db_strerror(error));
		return MAP_FAILED;
	}
	buffer_put_span(value, without_nul(&v));
	return MAP_FOUND;
}

static int each_db(struct map *m, bool (*take)(void *context, struct span key, struct span value), void *context, struct complaint *why)
{
	DB *db = m->state;
	DBC *cursor;
	DBT k = {.data = NULL}, v = {.data = NULL};
	int error = db->cursor(db, NULL, &cursor, 0);
	bool more = error == 0;
	while (more && (error = cursor->get(cursor, &k, &v, DB_NEXT)) == 0)
		more = take(context, without_nul(&k), without_nul(&v));
	if (error != 0 && error != DB_NOTFOUND)
		complain(why, m->path, 0, "%s", db_strerror(error));
	if (cursor != NULL)
		(void)cursor->close(cursor);
	return error == DB_NOTFOUND ? 0 : db_error(error);
}

static int put_pair(struct map_maker *k, struct span key, struct span value)
{
	DB *db = k->state;
	char *name = span_dup(key), *text = span_dup(value);
	int error = name == NULL || text == NULL ? ENOMEM : 0;
	if (error == 0) {
		DBT a = {.data = name, .size = (u_int32_t)key.n + 1}, b = {.data = text, .size = (u_int32_t)value.n + 1};
		error = db_error(db->put(db, NULL, &a, &b, DB_NOOVERWRITE));
	}
	free(name);
	free(text);
	return error;
}

static int end_db(struct map_maker *k, bool keep)
{
	DB *db = k->state;
	return db_error(db->close(db, keep ? 0 : DB_NOSYNC));
}

int map_db_make(struct map_maker *k, const char *path, bool btree)
{
	DB *db;
	int error = db_create(&db, NULL, 0);
	if (error != 0)
		return db_error(error);
	db->set_errcall(db, quiet);
	error = db->open(db, NULL, path, NULL, btree ? DB_BTREE : DB_HASH, DB_CREATE | DB_EXCL, 0644);
	if (error != 0) {
		(void)db->close(db, DB_NOSYNC);
		return db_error(error);
	}
	*k = (struct map_maker){.state = db, .put = put_pair, .end = end_db};
	return 0;
}

const struct map_kind map_hash = {"hash", true, false, open_hash, close_db, query_db, each_db};
const struct map_kind map_btree = {"btree", true, false, open_btree, close_db, query_db, each_db};
