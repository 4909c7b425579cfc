#include "index.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CACHE_BYTES = 16 * 1024 * 1024, CHECKPOINT_KB = 32 * 1024, LOG_FILE_BYTES = 8 * 1024 * 1024, TIME_KEY = 8 + QID_N };

void row_put(struct buffer *b, const struct row *r)
{
	buffer_put_u64(b, (uint64_t)r->next_s);
	buffer_put_u64(b, (uint64_t)r->next_attempt_s);
	buffer_put_u64(b, (uint64_t)r->last_attempt_s);
	buffer_put_u64(b, (uint64_t)r->arrived_us);
	buffer_put_u32(b, r->attempts);
	buffer_put_u32(b, r->flags);
	buffer_put_u64(b, r->size);
	buffer_put_lspan(b, r->sender);
	buffer_put_lspan(b, r->dest);
	buffer_put_lspan(b, r->rcpts);
}

int row_parse(struct span s, struct row *out)
{
	struct row r;
	uint64_t next, attempt, last, arrived;
	if (!take_u64(&s, &next) || !take_u64(&s, &attempt) || !take_u64(&s, &last) || !take_u64(&s, &arrived) ||
		!take_u32(&s, &r.attempts) || !take_u32(&s, &r.flags) || !take_u64(&s, &r.size) || !take_lspan(&s, &r.sender) ||
		!take_lspan(&s, &r.dest) || !take_lspan(&s, &r.rcpts) || s.n != 0)
		return EBADMSG;
	r.next_s = (int64_t)next;
	r.next_attempt_s = (int64_t)attempt;
	r.last_attempt_s = (int64_t)last;
	r.arrived_us = (int64_t)arrived;
	*out = r;
	return 0;
}

static DBT dbt(const void *bytes, size_t n)
{
	DBT d;
	memset(&d, 0, sizeof d);
	d.data = (void *)(uintptr_t)bytes;
	d.size = (u_int32_t)n;
	return d;
}

/* Errors of the library are told by return values; it has no standard error to write to. */
static void be_quiet(const DB_ENV *env, const char *prefix, const char *text)
{
	(void)env;
	(void)prefix;
	(void)text;
}

static int open_db(struct index *x, DB **out, const char *name)
{
	int error = db_create(out, x->env, 0);
	if (error != 0)
		return error;
	error = (*out)->set_flags(*out, DB_CHKSUM);
	if (error == 0)
		error = (*out)->open(*out, NULL, name, NULL, DB_BTREE, DB_CREATE | DB_AUTO_COMMIT, 0600);
	return error;
}

int index_open(struct index *x, bool recover)
{
	u_int32_t flags = DB_CREATE | DB_PRIVATE | DB_INIT_MPOOL | DB_INIT_TXN | DB_INIT_LOG | (recover ? DB_RECOVER : 0u);
	*x = (struct index){.env = NULL};
	int error = db_env_create(&x->env, 0);
	if (error != 0)
		return error;
	x->env->set_errcall(x->env, be_quiet);
	error = x->env->set_cachesize(x->env, 0, CACHE_BYTES, 1);
	if (error == 0)
		error = x->env->set_lg_max(x->env, LOG_FILE_BYTES);
	if (error == 0)
		error = x->env->log_set_config(x->env, DB_LOG_AUTO_REMOVE, 1);
	if (error == 0) /* with DB_TXN_NOSYNC a kill loses committed rows */
		error = x->env->set_flags(x->env, DB_TXN_WRITE_NOSYNC, 1);
	if (error == 0)
		error = x->env->open(x->env, ".", flags, 0600);
	if (error == 0)
		error = open_db(x, &x->rows, "rows.db");
	if (error == 0)
		error = open_db(x, &x->by_time, "time.db");
	if (error == 0)
		error = open_db(x, &x->by_dest, "dest.db");
	if (error == 0)
		error = open_db(x, &x->by_sender, "sender.db");
	if (error != 0)
		index_close(x);
	return error;
}

void index_close(struct index *x)
{
	DB *dbs[] = {x->rows, x->by_time, x->by_dest, x->by_sender};
	if (x->txn != NULL)
		(void)x->txn->abort(x->txn);
	for (size_t i = 0; i < COUNT_OF(dbs); i++)
		if (dbs[i] != NULL)
			(void)dbs[i]->close(dbs[i], 0);
	if (x->env != NULL)
		(void)x->env->close(x->env, 0);
	*x = (struct index){.env = NULL};
}

int index_wipe(void)
{
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL)
		return errno;
	for (const struct dirent *d; (d = readdir(dir)) != NULL;)
		if (d->d_name[0] != '.')
			(void)unlinkat(fd, d->d_name, 0);
	(void)closedir(dir);
	return 0;
}

static int begin(struct index *x)
{
	return x->txn != NULL ? 0 : x->env->txn_begin(x->env, NULL, &x->txn, 0);
}

/* Big-endian, so that keys sort as numbers. */
static void time_key(char out[TIME_KEY], int64_t t, const struct qid *id)
{
	for (int i = 0; i < 8; i++)
		out[i] = (char)((uint64_t)t >> (56 - 8 * i));
	memcpy(out + 8, id->text, QID_N);
}

static int text_key(struct buffer *b, struct span text, const struct qid *id)
{
	buffer_clear(b);
	buffer_put_span(b, text.n > 200 ? (struct span){text.at, 200} : text);
	buffer_putc(b, '\0');
	buffer_put(b, id->text, QID_N);
	return buffer_ok(b) ? 0 : ENOMEM;
}

enum change { ADD, REMOVE };

static int change_one(struct index *x, DB *db, const void *key, size_t n, enum change what)
{
	DBT k = dbt(key, n), v = dbt("", 0);
	int error = what == ADD ? db->put(db, x->txn, &k, &v, 0) : db->del(db, x->txn, &k, 0);
	return error == DB_NOTFOUND ? 0 : error;
}

static int change_orderings(struct index *x, const struct qid *id, const struct row *row, enum change what)
{
	char key[TIME_KEY];
	struct buffer b;
	time_key(key, row->next_s, id);
	int error = change_one(x, x->by_time, key, sizeof key, what);
	buffer_init(&b, 1024);
	if (error == 0)
		error = text_key(&b, row->dest, id);
	if (error == 0)
		error = change_one(x, x->by_dest, b.at, b.n, what);
	if (error == 0)
		error = text_key(&b, row->sender, id);
	if (error == 0)
		error = change_one(x, x->by_sender, b.at, b.n, what);
	buffer_free(&b);
	return error;
}

static int get(struct index *x, DB *db, DBT *key, struct buffer *bytes, u_int32_t flags)
{
	DBT v;
	memset(&v, 0, sizeof v);
	int error = db->get(db, x->txn, key, &v, flags);
	if (error != 0)
		return error == DB_NOTFOUND ? ENOENT : error;
	buffer_clear(bytes);
	buffer_put(bytes, v.data, v.size);
	return buffer_ok(bytes) ? 0 : ENOMEM;
}

int index_get(struct index *x, const struct qid *id, struct buffer *bytes, struct row *out)
{
	DBT k = dbt(id->text, QID_N);
	int error = x->rows == NULL ? EIO : get(x, x->rows, &k, bytes, 0);
	return error == 0 ? row_parse(buffer_span(bytes), out) : error;
}

int index_delete(struct index *x, const struct qid *id)
{
	struct buffer bytes;
	struct row old;
	DBT k = dbt(id->text, QID_N);
	if (x->env == NULL)
		return EIO;
	int error = begin(x);
	buffer_init(&bytes, 16 * 1024 * 1024);
	if (error == 0)
		error = index_get(x, id, &bytes, &old);
	if (error == 0)
		error = change_orderings(x, id, &old, REMOVE);
	if (error == 0)
		error = x->rows->del(x->rows, x->txn, &k, 0);
	buffer_free(&bytes);
	return error;
}

int index_put(struct index *x, const struct qid *id, const struct row *row)
{
	struct buffer b;
	int error = index_delete(x, id);
	if (error != 0 && error != ENOENT)
		return error;
	buffer_init(&b, 16 * 1024 * 1024);
	row_put(&b, row);
	DBT k = dbt(id->text, QID_N), v = dbt(b.at, b.n);
	error = buffer_ok(&b) ? x->rows->put(x->rows, x->txn, &k, &v, 0) : ENOMEM;
	if (error == 0)
		error = change_orderings(x, id, row, ADD);
	buffer_free(&b);
	x->changes++;
	return error;
}

int index_due(struct index *x, int64_t from_s, int64_t now_s, struct qid *out, size_t size, size_t *n, int64_t *next_s)
{
	DBC *cursor = NULL;
	char start[TIME_KEY];
	struct qid none = {{0}};
	*n = 0;
	*next_s = INT64_MAX;
	int error = x->env == NULL ? EIO : x->by_time->cursor(x->by_time, x->txn, &cursor, 0);
	if (error != 0)
		return error;
	time_key(start, from_s, &none);
	DBT k = dbt(start, sizeof start), v = dbt("", 0);
	for (error = cursor->get(cursor, &k, &v, DB_SET_RANGE); error == 0; error = cursor->get(cursor, &k, &v, DB_NEXT)) {
		uint64_t t = 0;
		if (k.size != TIME_KEY) {
			error = EBADMSG;
			break;
		}
		for (int i = 0; i < 8; i++)
			t = t << 8 | (unsigned char)((const char *)k.data)[i];
		if ((int64_t)t > now_s || *n == size) {
			*next_s = (int64_t)t;
			break;
		}
		error = qid_parse((struct span){(const char *)k.data + 8, QID_N}, &out[(*n)++]);
		if (error != 0)
			break;
	}
	(void)cursor->close(cursor);
	return error == DB_NOTFOUND ? 0 : error;
}

int index_next(struct index *x, struct qid *id, struct buffer *bytes, struct row *out)
{
	DBC *cursor = NULL;
	int error = x->env == NULL ? EIO : x->rows->cursor(x->rows, x->txn, &cursor, 0);
	if (error != 0)
		return error;
	char from[QID_N + 1];
	size_t n = strlen(id->text);
	memcpy(from, id->text, n);
	from[n] = '\0'; /* just after the id */
	DBT k = dbt(from, n == 0 ? 0 : n + 1), v = dbt("", 0);
	error = cursor->get(cursor, &k, &v, n == 0 ? DB_FIRST : DB_SET_RANGE);
	if (error == 0)
		error = qid_parse((struct span){k.data, k.size}, id);
	if (error == 0) {
		buffer_clear(bytes);
		buffer_put(bytes, v.data, v.size);
		error = buffer_ok(bytes) ? row_parse(buffer_span(bytes), out) : ENOMEM;
	}
	(void)cursor->close(cursor);
	return error == DB_NOTFOUND ? ENOENT : error;
}

int index_count(struct index *x, uint64_t *n)
{
	DB_BTREE_STAT *stat = NULL;
	int error = x->env == NULL ? EIO : x->rows->stat(x->rows, x->txn, &stat, 0);
	if (error == 0)
		*n = stat->bt_ndata;
	free(stat);
	return error;
}

int index_commit(struct index *x)
{
	if (x->txn == NULL)
		return 0;
	int error = x->txn->commit(x->txn, 0);
	x->txn = NULL;
	if (error == 0 && x->changes > 256) {
		x->changes = 0;
		error = x->env->txn_checkpoint(x->env, CHECKPOINT_KB, 0, 0);
	}
	return error;
}
