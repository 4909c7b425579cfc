#include "gss/gss.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

/* What gss-ntlmssp sends: the target VM, a list of computer VM, domain WORKSTATION, host vm, flags, time ([MS-NLMP] 2.2.1.2). */
enum { NAME_N_AT = 12, NAME_PLACE_AT = 16, FLAGS_AT = 22, LIST_N_AT = 40, LIST_PLACE_AT = 44, LIST_AT = 60, AV_FLAGS_N_AT = 0x68, WHOLE = 126 };
static const char challenge[] =
	"NTLMSSP\0" "\2\0\0\0" "\4\0\4\0\x38\0\0\0" "\5\x82\x8a\xa2" "12345678" "\0\0\0\0\0\0\0\0" "\x42\0\x42\0\x3c\0\0\0" "\6\2\0\0\0\0\0\x0f"
	"V\0M\0" "\1\0\4\0V\0M\0" "\2\0\x16\0W\0O\0R\0K\0S\0T\0A\0T\0I\0O\0N\0" "\3\0\4\0v\0m\0" "\6\0\4\0\0\0\0\0" "\7\0\x08\0\xb4\xaf\x09\x33\x5c\x7e\xdd\1" "\0\0\0\0";

START_TEST(a_whole_challenge_is_sound)
{
	ck_assert_uint_eq(sizeof challenge - 1, WHOLE);
	ck_assert(gss_ntlm_challenge_is_sound((struct span){challenge, WHOLE}));
}
END_TEST

START_TEST(a_cut_challenge_is_not)
{
	for (size_t n = 0; n < WHOLE; n++) {
		char *copy = malloc(n + 1);
		memcpy(copy, challenge, n);
		ck_assert(!gss_ntlm_challenge_is_sound((struct span){copy, n}));
		free(copy);
	}
}
END_TEST

/* Each of these ended a process by gss-ntlmssp 1.2.0, or is no message of the second kind. */
START_TEST(a_damaged_challenge_is_not)
{
	static const struct { size_t at; char byte; } damages[] = {
		{0, 'X'}, {8, 3}, {NAME_N_AT, 0} /* a target without a name */, {NAME_N_AT, 3} /* half a letter */, {NAME_PLACE_AT, 8} /* within the head */,
		{NAME_PLACE_AT + 3, 1} /* far beyond */, {FLAGS_AT, 0} /* says that there is no list */, {LIST_N_AT, 0}, {LIST_N_AT, 0x3e} /* its end is behind it */,
		{LIST_N_AT, 0x43} /* longer than the message */, {LIST_PLACE_AT, 0x3d}, {LIST_AT + 2, 5} /* half a letter */, {LIST_AT + 3, 1} /* longer than the list */,
		{AV_FLAGS_N_AT, 3}, {WHOLE - 2, 4} /* an end with a value */};
	for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
		char copy[WHOLE];
		memcpy(copy, challenge, WHOLE);
		copy[damages[i].at] = damages[i].byte;
		ck_assert_msg(!gss_ntlm_challenge_is_sound((struct span){copy, WHOLE}), "damage %zu", i);
	}
}
END_TEST

Suite *suite_gss(void)
{
	Suite *s = suite_create("gss");
	TCase *t = tcase_create("challenge");
	tcase_add_test(t, a_whole_challenge_is_sound);
	tcase_add_test(t, a_cut_challenge_is_not);
	tcase_add_test(t, a_damaged_challenge_is_not);
	suite_add_tcase(s, t);
	return s;
}
