/* map: look-up tables of the administrator's: a key, a value.  What reads them holds no other's mail. */
#ifndef MAP_MAP_H
#define MAP_MAP_H

#include "base/base.h"
#include "params/params.h"

enum map_status { MAP_FOUND, MAP_NONE, MAP_FAILED };
enum { MAP_KEY_MOST = 8000, MAP_VALUE_MOST = 200 * 1024, MAP_FILE_MOST = 64 * 1024 * 1024 };

struct map;
/* One "TYPE:NAME" of a MAPS text.  0, or errno with *why: the caller may try again later. */
MUST_CHECK int map_open(struct span spec, struct map **out, struct complaint *why);
void map_close(struct map *m); /* NULL: nothing */
/* The key as it is to be found: folded to lower case by the caller where that is wanted.  FAILED: *why says what; a map that
 * can't be read says nothing about a key.  The file is opened anew when another has taken its name. */
enum map_status map_query(struct map *m, struct span key, struct buffer *value, struct complaint *why);
/* Each pair, until take says false.  ENOTSUP: this kind can't tell. */
MUST_CHECK int map_each(struct map *m, bool (*take)(void *context, struct span key, struct span value), void *context, struct complaint *why);
bool map_takes_parts(const struct map *m); /* false: patterns get whole addresses only */
void map_prepare(struct span spec);          /* before a user is changed or a way is closed: loads what such a map needs */
bool map_is_remote(struct span spec);      /* it asks a server: it may block */
const char *map_path(const struct map *m); /* the file that is read; NULL: none */
/* FILE's text becomes FILE.db or FILE.cdb: whole or not at all.  aliases: "name: value" lines, else "key value". */
MUST_CHECK int map_build(struct span spec, bool aliases, size_t *n, struct complaint *why);
/* The next pair of such a text.  1: there is one, 0: no more, -1: a bad line, *why has its number. */
int map_text_next(struct span *rest, unsigned *line, bool aliases, struct buffer *key, struct buffer *value, struct complaint *why);

/* ---- kinds: one row each in map.c ---- */
struct map_kind {
	const char *name;
	bool parts, remote;
	int (*open)(struct map *m, struct complaint *why);
	void (*close)(struct map *m);
	enum map_status (*query)(struct map *m, struct span key, struct buffer *value, struct complaint *why);
	int (*each)(struct map *m, bool (*take)(void *context, struct span key, struct span value), void *context, struct complaint *why);
};
struct map {
	const struct map_kind *kind;
	char *name;  /* FILE, or the text of an inline map */
	char *path;
	void *state; /* the kind's */
	bool open;
	dev_t device;
	ino_t inode;
	int64_t changed_ns, looked_ms;
};
extern const struct map_kind map_hash, map_btree, map_cdb, map_regexp, map_pcre, map_inline, map_odbc, map_ldap;
/* The file of a map that asks a server: "name = value" lines, each name once at most; values are the caller's to free.  It may
 * hold a password: no copy of its text stays. */
struct map_setting {
	const char *name;
	bool needed;
	char **value;
};
MUST_CHECK int map_read_settings(const char *path, const struct map_setting *known, size_t n, struct complaint *why);
/* Berkeley DB and cdb files are made by these: pairs arrive through put.  path is the file to be made. */
struct map_maker {
	void *state;
	int (*put)(struct map_maker *k, struct span key, struct span value); /* EEXIST: a key twice */
	int (*end)(struct map_maker *k, bool keep);
};
int map_db_make(struct map_maker *k, const char *path, bool btree);
int map_cdb_make(struct map_maker *k, const char *path);

/* ---- the right side of an alias, of a .forward, an :include: file (aliases(5)) ---- */
enum alias_kind { ALIAS_ADDRESS, ALIAS_SELF /* \user */, ALIAS_PIPE, ALIAS_FILE, ALIAS_INCLUDE };
struct alias_item {
	enum alias_kind kind;
	struct span text; /* without |, quotes and :include: */
};
/* Items are separated by commas and line ends; # begins a comment at the start of a line.  1, 0: no more, -1: malformed
 * (an open quote, an empty command).  Quoted texts are unquoted into scratch. */
int alias_next(struct span *rest, struct alias_item *out, struct arena *scratch);

/* The keys under which an address is looked for, in this order; false: no more.  The address is one of the server's own. */
enum map_key_style { KEYS_ADDRESS /* local+ext@domain, local@domain, @domain */, KEYS_ALIAS /* local+ext, local */ };
bool map_key(enum map_key_style style, struct span local, struct span domain, const char *delimiter, size_t nth, struct buffer *key);

#endif
