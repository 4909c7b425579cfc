#include "lease/lease.h"
#include "queuefile/queuefile.h"
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct lease_record here = {.node = "a", .boot = "boot1", .token = 7, .count = 1, .held = true};

START_TEST(what_was_written_is_read_and_nothing_else_is)
{
	char text[LEASE_BYTES];
	struct lease_record r;
	lease_put(text, &here);
	ck_assert_int_eq(lease_parse((struct span){text, sizeof text}, &r), 0);
	ck_assert(lease_same(&r, &here));
	for (size_t i = 0; i < LEASE_BYTES; i++) { /* any byte that is another one, but for the last line's end */
		if (i >= LEASE_BYTES - 10 && text[i] == ' ')
			continue;
		text[i] ^= 1;
		bool good = lease_parse((struct span){text, sizeof text}, &r) == 0;
		text[i] ^= 1;
		ck_assert_msg(!good || i == LEASE_BYTES - 1 || i == LEASE_BYTES - 10, "byte %zu", i);
	}
	ck_assert_int_eq(lease_parse((struct span){text, sizeof text - 1}, &r), EBADMSG);
}
END_TEST

/* own: a/boot1.  What is seen first, and after so many ms; the term is 1000. */
#define HELD(node, boot, token, count) {node, boot, token, count, true}
#define NONE {"", "", 0, 0, false}
static const struct { const char *rule; struct lease_record first, then; uint32_t own; bool alone; int after_ms; enum lease_step step; } steps[] = {
	{"given back", {"b", "x", 3, 9, false}, {"b", "x", 3, 9, false}, 0, true, 0, LEASE_TAKE},
	{"another node's, seen once", HELD("b", "x", 3, 9), HELD("b", "x", 3, 9), 0, true, 0, LEASE_WATCH},
	{"silent, not long enough", HELD("b", "x", 3, 9), HELD("b", "x", 3, 9), 0, true, 1999, LEASE_WATCH},
	{"silent for two terms", HELD("b", "x", 3, 9), HELD("b", "x", 3, 9), 0, true, 2000, LEASE_TAKE},
	{"renewed", HELD("b", "x", 3, 9), HELD("b", "x", 3, 10), 0, true, 400, LEASE_ELSEWHERE},
	{"taken by a third node", HELD("b", "x", 3, 9), HELD("c", "x", 4, 9), 0, true, 2400, LEASE_ELSEWHERE},
	{"this node's, whose process has ended", HELD("a", "boot1", 3, 9), HELD("a", "boot1", 3, 9), 0, true, 0, LEASE_TAKE},
	{"this node's, and it still runs", HELD("a", "boot1", 3, 9), HELD("a", "boot1", 3, 10), 0, false, 400, LEASE_ELSEWHERE},
	{"this node's of another boot, silent", HELD("a", "boot0", 3, 9), HELD("a", "boot0", 3, 9), 0, true, 1999, LEASE_WATCH},
	{"under which this node's processes run", HELD("a", "boot1", 3, 9), HELD("a", "boot1", 3, 9), 3, true, 0, LEASE_GO_ON},
	{"of another token than they run under", HELD("a", "boot1", 4, 9), HELD("a", "boot1", 4, 9), 3, false, 1999, LEASE_WATCH},
	{"none, at once", NONE, NONE, 0, true, 0, LEASE_WATCH},
	{"none for two terms", NONE, NONE, 0, true, 2000, LEASE_TAKE},
	{"none, then one", NONE, HELD("b", "x", 1, 1), 0, true, 2000, LEASE_WATCH},
};

static const struct lease_record *present(const struct lease_record *r)
{
	return r->node[0] == '\0' ? NULL : r;
}

START_TEST(each_step)
{
	struct lease_watch w = {.since_ms = 0};
	struct lease_record own = {.node = "a", .boot = "boot1", .token = steps[_i].own};
	enum lease_step step = lease_judge(&w, present(&steps[_i].first), &own, steps[_i].alone, 5000, 1000);
	if (steps[_i].after_ms > 0)
		step = lease_judge(&w, present(&steps[_i].then), &own, steps[_i].alone, 5000 + steps[_i].after_ms, 1000);
	ck_assert_msg(step == steps[_i].step, "%s: %d", steps[_i].rule, step);
}
END_TEST

START_TEST(a_taker_settles_longer_than_another_can_hold)
{
	for (int64_t term = 1000; term <= 600000; term += 1000) {
		ck_assert_int_gt(lease_settle_ms(term), lease_hold_ms(term));
		ck_assert_int_gt(lease_silent_ms(term), lease_hold_ms(term) + lease_renew_ms(term));
		ck_assert_int_ge(lease_hold_ms(term), 2 * lease_renew_ms(term));
	}
}
END_TEST

START_TEST(without_the_lease_nothing_is_written)
{
	struct lease_slot slot = {.until_ms = lease_clock_ms() + 60000};
	struct storage st = storage_leased(&slot);
	char path[] = "/tmp/lease-XXXXXX", byte;
	int fd = mkstemp(path);
	ck_assert_int_eq(st.write(&st, fd, path, SPAN_LIT("a"), 0), 0);
	ck_assert_int_eq(st.sync(&st, fd, path), 0);
	ck_assert_int_eq(storage_check(&st), 0);
	slot.until_ms = lease_clock_ms();
	ck_assert_int_eq(st.write(&st, fd, path, SPAN_LIT("b"), 0), ESTALE);
	ck_assert_int_eq(pread_all(fd, &byte, 1, 0), 0);
	ck_assert_int_eq(byte, 'a');
	ck_assert_int_eq(st.sync(&st, fd, path), ESTALE);
	ck_assert_int_eq(st.rename(&st, AT_FDCWD, path, "/tmp/lease-other"), ESTALE);
	ck_assert_int_eq(st.unlink(&st, AT_FDCWD, path), ESTALE);
	ck_assert_int_eq(st.sync_dir(&st, AT_FDCWD, "/tmp"), ESTALE);
	ck_assert_int_eq(storage_check(&st), ESTALE);
	ck_assert_int_eq(access(path, F_OK), 0);
	(void)unlink(path);
	(void)close(fd);
}
END_TEST

Suite *suite_lease(void)
{
	Suite *s = suite_create("lease");
	TCase *t = tcase_create("lease");
	tcase_add_test(t, what_was_written_is_read_and_nothing_else_is);
	tcase_add_loop_test(t, each_step, 0, (int)COUNT_OF(steps));
	tcase_add_test(t, a_taker_settles_longer_than_another_can_hold);
	tcase_add_test(t, without_the_lease_nothing_is_written);
	suite_add_tcase(s, t);
	return s;
}
