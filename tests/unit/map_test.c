#include "map/map.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/posthorn-map-XXXXXX";

static void make_dir(void)
{
	memcpy(dir, "/tmp/posthorn-map-XXXXXX", sizeof dir);
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void remove_dir(void)
{
	char command[100];
	(void)snprintf(command, sizeof command, "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static void write_file(const char *name, const char *text)
{
	char path[200];
	(void)snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert(fputs(text, f) >= 0);
	ck_assert_int_eq(fclose(f), 0);
}

static char spec_text[300];
static struct buffer value;

static struct span spec(const char *type, const char *name)
{
	(void)snprintf(spec_text, sizeof spec_text, "%s:%s/%s", type, dir, name);
	return span_of(spec_text);
}

static const char *ask(struct map *m, const char *key)
{
	struct complaint why;
	buffer_free(&value);
	buffer_init(&value, MAP_VALUE_MOST);
	enum map_status s = map_query(m, span_of(key), &value, &why);
	return s == MAP_FOUND ? buffer_cstr(&value) : s == MAP_NONE ? "-" : "!";
}

/* hash, btree, cdb: what is built is found, all of it is listed; a new file under the name is taken up, a bad text leaves the old one */
START_TEST(built)
{
	static const char *const types[] = {"hash", "btree", "cdb"};
	struct complaint why = {.file = ""};
	struct map *m;
	size_t n;
	write_file("t", "# c\nKey value of it\n  goes on\nother\tx\n\n\"two words\" y\n");
	ck_assert_int_eq(map_build(spec(types[_i], "t"), false, &n, &why), 0);
	ck_assert_uint_eq(n, 3);
	ck_assert_int_eq(map_open(spec(types[_i], "t"), &m, &why), 0);
	ck_assert_str_eq(ask(m, "key"), "value of it goes on");
	ck_assert_str_eq(ask(m, "two words"), "y");
	ck_assert_str_eq(ask(m, "Key"), "-");
	write_file("t", "key\n");
	ck_assert_int_eq(map_build(spec(types[_i], "t"), false, &n, &why), EINVAL);
	ck_assert_uint_eq(why.line, 1);
	write_file("t", "a 1\na 2\n");
	ck_assert_int_eq(map_build(spec(types[_i], "t"), false, &n, &why), EEXIST);
	ck_assert_uint_eq(why.line, 2);
	ck_assert_str_eq(ask(m, "key"), "value of it goes on");
	write_file("t", "key new\n");
	ck_assert_int_eq(map_build(spec(types[_i], "t"), false, &n, &why), 0);
	m->looked_ms -= 1001;
	ck_assert_str_eq(ask(m, "key"), "new");
	map_close(m);
}
END_TEST

static const struct { const char *text; unsigned line; const char *reason; } bad_aliases[] = {
	{"a b\n", 1, "no colon"}, {"\n: b\n", 2, "no name"}, {"a:\n", 1, "nothing behind"}, {"a: b\n c\nd:  \n", 3, "nothing behind"},
};
START_TEST(bad_alias_text)
{
	struct complaint why = {.file = ""};
	size_t n;
	write_file("a", bad_aliases[_i].text);
	ck_assert_int_eq(map_build(spec("hash", "a"), true, &n, &why), EINVAL);
	ck_assert_uint_eq(why.line, bad_aliases[_i].line);
	ck_assert_ptr_nonnull(strstr(why.reason, bad_aliases[_i].reason));
	ck_assert_ptr_nonnull(strstr(why.file, dir));
}
END_TEST

/* "/pattern/flags value": the first that fits; key and value, or "-" none, "!" failed */
static const struct { const char *type, *text, *key, *value; } patterns[] = {
	{"regexp", "/^a(.)c/ <$1>\n", "ABc", "<B>"}, {"regexp", "/^abc/i x\n", "ABC", "-"}, {"regexp", "!/@/ local\n", "joe", "local"}, {"regexp", "!/@/ local\n", "j@x", "-"},
	{"regexp", "if /x/\n/a/ 1\nendif\n/a/ 2\n", "a", "2"}, {"regexp", "if /x/\n/a/ 1\nendif\n/a/ 2\n", "xa", "1"},
	{"regexp", "if /x/\nif /y/\n/a/ 1\nendif\n/a/ 3\nendif\n/a/ 2\n", "a", "2"}, {"regexp", "if /x/\nif /y/\n/a/ 1\nendif\n/a/ 3\nendif\n/a/ 2\n", "xa", "3"},
	{"pcre", "/^(?<n>\\w+)-(\\d+)$/ ${2}$$$(1)\n", "ab-12", "12$ab"}, {"pcre", "/a.b/ x\n", "a\nb", "x"}, {"pcre", "/a.b/s x\n", "a\nb", "-"},
	{"pcre", "/(x+x+)+y$/ z\n", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx!y", "!"}, {"pcre", "/b/ two\n  lines\n# c\n/c/ x\n", "b", "two lines"},
	{"regexp", "#/a/ x\n|/b|  y\n", "/b", "y"},
};
START_TEST(pattern)
{
	struct complaint why;
	struct map *m;
	write_file("p", patterns[_i].text);
	ck_assert_int_eq(map_open(spec(patterns[_i].type, "p"), &m, &why), 0);
	ck_assert_str_eq(ask(m, patterns[_i].key), patterns[_i].value);
	map_close(m);
}
END_TEST

/* Patterns, and what a database or directory is asked with: file, line, words. */
static const struct { const char *type, *text; unsigned line; const char *reason; } bad_files[] = {
	{"regexp", "/a x\n", 1, ""}, {"regexp", "/a/ x\n/(/ y\n", 2, ""}, {"pcre", "/a/q x\n", 1, ""}, {"regexp", "/a/\n", 1, ""}, {"pcre", "if /a/\n/b/ x\n", 2, ""}, {"pcre", "endif\n", 1, ""}, {"regexp", "a\n", 1, ""},
	{"odbc", "connection = x\n", 0, "query is missing"}, {"odbc", "connection = x\nquery = SELECT 1\n", 0, "no ? for the key"}, {"odbc", "# c\n\nquerry = x\n", 3, "connection or query"},
	{"odbc", "connection = x\nconnection = y\n", 2, "each name once"}, {"odbc", "query =\n", 1, "name = value"}, {"ldap", "server = ldap://x\nbase = dc=x\nattribute = a\n", 0, "filter is missing"},
	{"ldap", "server = ldap://x\nbase = dc=x\nattribute = a\nfilter = (a=b)\n", 0, "no %s"},
	{"ldap", "server = ldap://x\nbase = dc=x\nattribute = a\nfilter = (a=%s)\nstarttls = maybe\n", 0, "yes or no"},
};
START_TEST(bad_file)
{
	struct complaint why = {.file = ""};
	struct map *m;
	write_file("s", bad_files[_i].text);
	ck_assert_int_ne(map_open(spec(bad_files[_i].type, "s"), &m, &why), 0);
	ck_assert_uint_eq(why.line, bad_files[_i].line);
	ck_assert_msg(strstr(why.reason, bad_files[_i].reason) != NULL, "%s", why.reason);
}
END_TEST

START_TEST(inline_map)
{
	struct complaint why = {.file = ""};
	struct map *m;
	struct span rest = SPAN_LIT("hash:/x, inline:{ a = 1, b = x y } cdb:/y"), one;
	bool bad;
	ck_assert(map_spec_next(&rest, &one, &bad) && span_is(one, "hash:/x"));
	ck_assert(map_spec_next(&rest, &one, &bad) && span_is(one, "inline:{ a = 1, b = x y }"));
	ck_assert_int_eq(map_open(one, &m, &why), 0);
	ck_assert_str_eq(ask(m, "b"), "x y");
	ck_assert_str_eq(ask(m, "c"), "-");
	map_close(m);
	ck_assert(map_spec_next(&rest, &one, &bad) && span_is(one, "cdb:/y"));
	ck_assert(!map_spec_next(&rest, &one, &bad) && !bad);
	ck_assert_int_eq(map_open(SPAN_LIT("inline:{ a }"), &m, &why), EINVAL);
}
END_TEST

static const char *const bad_specs[] = {"hash:relative", "hash", "what:/x", "inline:x", "inline:{ a = 1", "hash:/a,odbc"};
START_TEST(bad_spec)
{
	struct span rest = span_of(bad_specs[_i]), one;
	bool bad;
	while (map_spec_next(&rest, &one, &bad))
		;
	ck_assert(bad);
}
END_TEST

/* aliases(5): items as "kind text", | between them; "!" malformed */
static const struct { const char *text, *items; } rights[] = {
	{"a, b@c\n", "0a|0b@c"}, {"\\bob", "1bob"}, {"|/bin/x", "2/bin/x"}, {"\"|/bin/x -a \\\"q\\\", y\", z", "2/bin/x -a \"q\", y|0z"}, {"|\"cmd a, b\"", "2cmd a, b"},
	{"/var/f", "3/var/f"}, {"\"/var/a b\"", "3/var/a b"}, {":include:/l/x", "4/l/x"}, {"\":include:/l x\"", "4/l x"}, {"# c\n a\n#d\nb # no comment\n", "0a|0b # no comment"},
	{"\"q x\"@d", "0\"q x\"@d"}, {"\"open", "!"}, {"|", "!"}, {":include:", "!"}, {",,\n ,", ""},
};
START_TEST(right_side)
{
	struct span rest = span_of(rights[_i].text);
	struct arena arena = {0};
	struct alias_item item;
	struct buffer b;
	int more;
	buffer_init(&b, 1000);
	while ((more = alias_next(&rest, &item, &arena)) > 0)
		buffer_printf(&b, "%s%d%.*s", b.n > 0 ? "|" : "", (int)item.kind, SPAN_ARG(item.text));
	if (more < 0)
		buffer_puts(&b, "!");
	ck_assert_str_eq(buffer_cstr(&b), rights[_i].items);
	buffer_free(&b);
	arena_free(&arena);
}
END_TEST

static const struct { enum map_key_style style; const char *local, *keys; } keys[] = {
	{KEYS_ADDRESS, "Joe+X", "joe+x@d.example joe@d.example @d.example "}, {KEYS_ADDRESS, "joe", "joe@d.example @d.example "}, {KEYS_ALIAS, "JOE+x", "joe+x joe "},
	{KEYS_ALIAS, "+x", "+x "},
};
START_TEST(key_order)
{
	struct buffer key, all;
	buffer_init(&key, 1000);
	buffer_init(&all, 1000);
	for (size_t i = 0; map_key(keys[_i].style, span_of(keys[_i].local), SPAN_LIT("D.example"), "+", i, &key); i++)
		buffer_printf(&all, "%.*s ", (int)key.n, key.at);
	ck_assert_str_eq(buffer_cstr(&all), keys[_i].keys);
	buffer_free(&key);
	buffer_free(&all);
}
END_TEST

Suite *suite_map(void)
{
	Suite *s = suite_create("map");
	TCase *c = tcase_create("map");
	tcase_add_checked_fixture(c, make_dir, remove_dir);
	tcase_add_loop_test(c, built, 0, 3);
	tcase_add_loop_test(c, bad_alias_text, 0, COUNT_OF(bad_aliases));
	tcase_add_loop_test(c, pattern, 0, COUNT_OF(patterns));
	tcase_add_loop_test(c, bad_file, 0, COUNT_OF(bad_files));
	tcase_add_test(c, inline_map);
	tcase_add_loop_test(c, bad_spec, 0, COUNT_OF(bad_specs));
	tcase_add_loop_test(c, right_side, 0, COUNT_OF(rights));
	tcase_add_loop_test(c, key_order, 0, COUNT_OF(keys));
	suite_add_tcase(s, c);
	return s;
}
