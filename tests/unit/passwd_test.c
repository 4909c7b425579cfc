#include "passwd/passwd.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

static void add(struct buffer *b, const char *name, const char *word)
{
	ck_assert_int_eq(passwd_put_row(b, span_of(name), span_of(word), false), 0);
}

START_TEST(a_written_row_is_read_and_lets_its_password_in_alone)
{
	struct buffer b;
	struct passwd_file f;
	unsigned line;
	buffer_init(&b, 1 << 16);
	ck_assert_int_eq(passwd_put_head(&b), 0);
	add(&b, "carol", "tr\xc3\xa9s secret");
	add(&b, "alice@x.example", "one");
	ck_assert_int_eq(passwd_parse(buffer_span(&b), &f, &line), 0);
	ck_assert_uint_eq(f.n, 2);
	ck_assert(memmem(b.at, b.n, "secret", 6) == NULL);
	const struct passwd_row *carol = passwd_find(&f, SPAN_LIT("carol")), *alice = passwd_find(&f, SPAN_LIT("alice@x.example"));
	ck_assert(carol != NULL && alice != NULL && passwd_find(&f, SPAN_LIT("carol2")) == NULL && passwd_find(&f, SPAN_LIT("caro")) == NULL);
	ck_assert(passwd_verify(carol, SPAN_LIT("tr\xc3\xa9s secret")));
	ck_assert(passwd_verify(carol, SPAN_LIT("tre\xcc\x81s secret"))); /* RFC 4013 2.2: the same, decomposed */
	ck_assert(passwd_verify(alice, SPAN_LIT("one")));
	ck_assert(!passwd_verify(carol, SPAN_LIT("one")) && !passwd_verify(alice, SPAN_LIT("onE")) && !passwd_verify(alice, SPAN_LIT("")) && !passwd_verify(NULL, SPAN_LIT("one")));
	passwd_free(&f);
	buffer_free(&b);
}
END_TEST

START_TEST(one_password_is_never_written_the_same_way_twice)
{
	struct buffer b;
	buffer_init(&b, 1 << 16);
	add(&b, "a", "secret");
	size_t n = b.n;
	add(&b, "a", "secret");
	ck_assert_uint_eq(b.n, 2 * n);
	ck_assert(memcmp(b.at, b.at + n, n) != 0);
	for (size_t field = 0, i = 0; i < n && field < 3; i++) /* neither the hash nor the key of SCRAM */
		if (b.at[i] == ':' || b.at[i] == '\n')
			ck_assert(field++ == 0 || memcmp(b.at + i - 20, b.at + n + i - 20, 20) != 0);
	buffer_free(&b);
}
END_TEST

/* What nobody may have as a password: nothing, too much, what RFC 4013 2.3 prohibits. */
static const struct { const char *rule; struct span word; } bad_words[] = {
	{"empty", {"", 0}}, {"a NUL", {"a\0b", 3}}, {"a control character", {"a\x07", 2}}, {"not UTF-8", {"a\xff", 2}},
};

START_TEST(a_password_that_cannot_be_used_is_refused)
{
	struct buffer b;
	buffer_init(&b, 1 << 16);
	ck_assert_msg(passwd_put_row(&b, SPAN_LIT("a"), bad_words[_i].word, false) == EINVAL, "%s", bad_words[_i].rule);
	buffer_free(&b);
}
END_TEST

START_TEST(a_password_may_have_255_bytes)
{
	struct buffer b;
	char word[PASSWD_WORD_MOST + 1];
	memset(word, 'x', sizeof word);
	buffer_init(&b, 1 << 16);
	ck_assert_int_eq(passwd_put_row(&b, SPAN_LIT("a"), (struct span){word, PASSWD_WORD_MOST}, false), 0);
	ck_assert_int_eq(passwd_put_row(&b, SPAN_LIT("a"), (struct span){word, sizeof word}, false), EINVAL);
	buffer_free(&b);
}
END_TEST

#define HASH "$y$j9T$x$y"
#define KEYS "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
static const struct { const char *rule, *text; unsigned line; } bad_files[] = {
	{"no hash", "a\n", 1},
	{"an old hash", "# c\na:abcdefghijklm:{SCRAM-SHA-256}1,QUE=," KEYS "," KEYS "\n", 2},
	{"no keys", "a:" HASH "\n", 1},
	{"another scheme", "a:" HASH ":{SCRAM-SHA-1}1,QUE=," KEYS "," KEYS "\n", 1},
	{"no iterations", "a:" HASH ":{SCRAM-SHA-256}0,QUE=," KEYS "," KEYS "\n", 1},
	{"no salt", "a:" HASH ":{SCRAM-SHA-256}1,," KEYS "," KEYS "\n", 1},
	{"a short key", "a:" HASH ":{SCRAM-SHA-256}1,QUE=,QUE=," KEYS "\n", 1},
	{"a key too few", "a:" HASH ":{SCRAM-SHA-256}1,QUE=," KEYS "\n", 1},
	{"no name", ":" HASH ":{SCRAM-SHA-256}1,QUE=," KEYS "," KEYS "\n", 1},
	{"a name with a blank", "a b:" HASH ":{SCRAM-SHA-256}1,QUE=," KEYS "," KEYS "\n", 1},
	{"CRAM-MD5 cut", "a:" HASH ":{SCRAM-SHA-256}1,QUE=," KEYS "," KEYS ":{CRAM-MD5}00\n", 1},
	{"another scheme behind", "a:" HASH ":{SCRAM-SHA-256}1,QUE=," KEYS "," KEYS ":{DIGEST-MD5}00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n", 1},
	{"CRAM-MD5 not in hexadecimal", "a:" HASH ":{SCRAM-SHA-256}1,QUE=," KEYS "," KEYS ":{CRAM-MD5}00112233445566778899aabbccddeeff00112233445566778899aabbccddeefG\n", 1},
	{"a name twice", "a:" HASH ":{SCRAM-SHA-256}1,QUE=," KEYS "," KEYS "\na:" HASH ":{SCRAM-SHA-256}1,QUE=," KEYS "," KEYS "\n", 3},
};

START_TEST(a_bad_file_is_refused_with_its_line)
{
	struct passwd_file f = {.n = 77};
	unsigned line;
	ck_assert_msg(passwd_parse(span_of(bad_files[_i].text), &f, &line) == EINVAL && line == bad_files[_i].line, "%s: line %u", bad_files[_i].rule, line);
	ck_assert_uint_eq(f.n, 77);
}
END_TEST

/* The example of RFC 2195 2, and a key that is longer than a block (RFC 2104 2). */
static const struct { const char *word, *challenge, *digest; bool good; } crams[] = {
	{"tanstaaftanstaaf", "<1896.697170952@postoffice.reston.mci.net>", "b913a602c7eda7a495b4e6e7334d3890", true},
	{"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", "<1@x>", "ef11048453b3e504588860b5ef2ef010", true},
	{"tanstaaftanstaaf", "<1896.697170953@postoffice.reston.mci.net>", "b913a602c7eda7a495b4e6e7334d3890", false},
	{"tanstaaftanstaaF", "<1896.697170952@postoffice.reston.mci.net>", "b913a602c7eda7a495b4e6e7334d3890", false},
	{"tanstaaftanstaaf", "<1896.697170952@postoffice.reston.mci.net>", "b913a602c7eda7a495b4e6e7334d389", false},
	{"tanstaaftanstaaf", "<1896.697170952@postoffice.reston.mci.net>", "b913a602c7eda7a495b4e6e7334d389g", false},
	{"tanstaaftanstaaf", "<1896.697170952@postoffice.reston.mci.net>", "", false},
};

START_TEST(cram_md5_by_the_states_alone)
{
	struct buffer states;
	buffer_init(&states, 100);
	cram_put_states(&states, crams[_i].word);
	ck_assert(cram_is_states(buffer_span(&states)));
	ck_assert_int_eq(cram_verify(buffer_span(&states), span_of(crams[_i].challenge), span_of(crams[_i].digest)), crams[_i].good);
	ck_assert(!cram_verify((struct span){"", 0}, span_of(crams[_i].challenge), span_of(crams[_i].digest)));
	buffer_free(&states);
}
END_TEST

Suite *suite_passwd(void)
{
	Suite *s = suite_create("passwd");
	TCase *c = tcase_create("passwd");
	tcase_set_timeout(c, 60);
	tcase_add_test(c, a_written_row_is_read_and_lets_its_password_in_alone);
	tcase_add_test(c, one_password_is_never_written_the_same_way_twice);
	tcase_add_loop_test(c, a_password_that_cannot_be_used_is_refused, 0, (int)COUNT_OF(bad_words));
	tcase_add_test(c, a_password_may_have_255_bytes);
	tcase_add_loop_test(c, a_bad_file_is_refused_with_its_line, 0, (int)COUNT_OF(bad_files));
	tcase_add_loop_test(c, cram_md5_by_the_states_alone, 0, (int)COUNT_OF(crams));
	suite_add_tcase(s, c);
	return s;
}
