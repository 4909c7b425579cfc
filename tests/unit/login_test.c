#include "login/login.h"
#include "unit.h"

#include <string.h>

static const unsigned char key[LOGIN_KEY] = "0123456789abcdef0123456789abcde";

/* A proof holds for one worker, one server, one name and one key. */
static const struct { const char *rule; uint32_t worker; const char *server, *name; bool other_key, good; } claims[] = {
	{"the same", 7, "default", "alice", false, true},
	{"another worker", 8, "default", "alice", false, false},
	{"another server", 7, "partners", "alice", false, false},
	{"another name", 7, "default", "alicf", false, false},
	{"a longer name", 7, "default", "alice2", false, false},
	{"bytes moved from the server to the name", 7, "defaul", "talice", false, false},
	{"no name", 7, "default", "", false, false},
	{"another start of the service", 7, "default", "alice", true, false},
};

START_TEST(a_proof_holds_for_what_it_was_made_for_alone)
{
	unsigned char proof[LOGIN_PROOF], other[LOGIN_KEY] = "another";
	ck_assert(login_prove(key, 7, "default", SPAN_LIT("alice"), proof));
	bool good = login_is_proved(claims[_i].other_key ? other : key, claims[_i].worker, claims[_i].server, span_of(claims[_i].name), (struct span){(char *)proof, sizeof proof});
	ck_assert_msg(good == claims[_i].good, "%s", claims[_i].rule);
}
END_TEST

START_TEST(what_is_no_proof_is_refused)
{
	unsigned char proof[LOGIN_PROOF];
	char longest[LOGIN_NAME_MOST + 1];
	memset(longest, 'a', sizeof longest);
	ck_assert(login_prove(key, 7, "default", SPAN_LIT("alice"), proof));
	ck_assert(!login_is_proved(key, 7, "default", SPAN_LIT("alice"), SPAN_LIT("")));
	ck_assert(!login_is_proved(key, 7, "default", SPAN_LIT("alice"), (struct span){(char *)proof, sizeof proof - 1}));
	proof[31] ^= 1;
	ck_assert(!login_is_proved(key, 7, "default", SPAN_LIT("alice"), (struct span){(char *)proof, sizeof proof}));
	ck_assert(login_prove(key, 7, "default", (struct span){longest, LOGIN_NAME_MOST}, proof));
	ck_assert(!login_prove(key, 7, "default", (struct span){longest, sizeof longest}, proof));
}
END_TEST

Suite *suite_login(void)
{
	Suite *s = suite_create("login");
	TCase *c = tcase_create("login");
	tcase_add_loop_test(c, a_proof_holds_for_what_it_was_made_for_alone, 0, (int)COUNT_OF(claims));
	tcase_add_test(c, what_is_no_proof_is_refused);
	suite_add_tcase(s, c);
	return s;
}
