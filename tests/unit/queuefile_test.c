#include "queuefile/queuefile.h"
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int make_dir(char dir[64])
{
	(void)snprintf(dir, 64, "/tmp/queuefile-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	return open(dir, O_RDONLY | O_DIRECTORY);
}

static void remove_dir(int fd, const char *dir, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)unlinkat(fd, names[i], 0);
	(void)close(fd);
	(void)rmdir(dir);
}

START_TEST(ids_sort_by_time_and_differ_by_origin)
{
	struct qid_maker a = {.last_us = 0}, b = {.last_us = 0};
	qid_suffix(1, 2, 3, a.suffix);
	qid_suffix(1, 2, 4, b.suffix);
	struct qid x = qid_make(&a, 1764093600000000), y = qid_make(&a, 1764093600000000), z = qid_make(&b, 1764093600000000);
	ck_assert_str_lt(x.text, y.text); /* the clock stands still, the id does not */
	ck_assert_str_ne(x.text, z.text);
	ck_assert_int_eq(qid_wall_us(&x), 1764093600000000);
	struct qid parsed;
	ck_assert_int_eq(qid_parse(qid_span(&x), &parsed), 0);
	ck_assert_int_eq(qid_parse(span_of("../../etc/passwd"), &parsed), EINVAL);
	ck_assert_int_eq(qid_parse(span_of("../../etc/passw"), &parsed), EINVAL);
}
END_TEST

START_TEST(an_envelope_comes_back_and_a_cut_one_is_refused)
{
	struct buffer b;
	struct arena arena = {0};
	struct envelope_rcpt rcpts[2] = {{.address = span_of("a@x"), .notify = 6, .orcpt = span_of("rfc822;a")}, {.address = span_of("b@y")}};
	struct envelope e = {.sender = span_of("s@z"), .arrived_us = 77, .flags = ENV_8BIT, .hops = 3, .ret = RET_HDRS, .size = 99, .envid = span_of("id"),
		.client = span_of("192.0.2.1"), .helo = span_of("h"), .rcpts = rcpts, .rcpts_n = 2}, back;
	buffer_init(&b, 10000);
	envelope_put(&b, &e);
	ck_assert_int_eq(envelope_parse(buffer_span(&b), &arena, &back), 0);
	ck_assert(span_is(back.sender, "s@z") && back.arrived_us == 77 && back.flags == ENV_8BIT && back.hops == 3 && back.size == 99);
	ck_assert(back.rcpts_n == 2 && span_is(back.rcpts[0].orcpt, "rfc822;a") && back.rcpts[0].notify == 6 && span_is(back.rcpts[1].address, "b@y"));
	for (size_t cut = 0; cut < b.n; cut++) { /* a cut never gives more than was there */
		struct envelope part;
		if (envelope_parse((struct span){b.at, cut}, &arena, &part) == 0)
			ck_assert_uint_le(part.rcpts_n, 2);
	}
	arena_free(&arena);
	buffer_free(&b);
}
END_TEST

static void put(struct batch *b, struct segment_writer *w, struct qid_maker *m, const char *content)
{
	struct qid id = qid_make(m, 1764093600000000);
	struct span piece = span_of(content);
	(void)batch_add(b, w, &id, span_of("\x01\0\0\0\0"), &piece, 1);
}

static struct segment_writer open_writer(int fd, uint64_t seq)
{
	struct segment_writer w = {.offset = SEGMENT_BLOCK, .synced_to = SEGMENT_BLOCK};
	ck_assert_int_eq(segment_create(&storage_real, fd, seq, 1, SEGMENT_MIN), 0);
	ck_assert_int_eq(segment_open(fd, seq, true, &w.segment), 0);
	return w;
}

static unsigned count_up_to(int fd, uint64_t seq, uint64_t end, unsigned *damaged)
{
	struct segment_reader r;
	struct record rec;
	unsigned n = 0;
	int error;
	*damaged = 0;
	ck_assert_int_eq(segment_reader_open(fd, seq, &r), 0);
	while ((error = segment_reader_next(&r, end, &rec)) != ENOENT) {
		ck_assert(error == 0 || error == EBADMSG);
		n += error == 0;
		*damaged += error == EBADMSG;
	}
	segment_reader_close(&r);
	return n;
}

static unsigned count_records(int fd, uint64_t seq, unsigned *damaged)
{
	return count_up_to(fd, seq, UINT64_MAX, damaged);
}

START_TEST(records_come_back_and_a_damaged_one_costs_only_its_batch)
{
	char dir[64];
	int fd = make_dir(dir);
	struct qid_maker m = {.suffix = "000000"};
	struct batch b = {0};
	struct segment_writer w = open_writer(fd, 1);
	unsigned damaged;
	for (int i = 0; i < 3; i++) {
		batch_begin(&b);
		put(&b, &w, &m, "one");
		put(&b, &w, &m, "two");
		ck_assert_int_eq(batch_commit(&storage_real, &w, &b), 0);
	}
	ck_assert_uint_eq(count_records(fd, 1, &damaged), 6);
	ck_assert_int_eq(pwrite(w.segment.fd, "X", 1, SEGMENT_BLOCK * 2 + 72 + RECORD_HEADER + 1), 1);
	ck_assert_uint_eq(count_records(fd, 1, &damaged), 4);
	ck_assert_uint_eq(damaged, 1);
	ck_assert_int_eq(pwrite(w.segment.fd, "X", 1, SEGMENT_BLOCK * 1), 1); /* the first batch's head */
	ck_assert_uint_eq(count_records(fd, 1, &damaged), 2);
	ck_assert_uint_eq(damaged, 2);
	ck_assert_int_eq(pwrite(w.segment.fd, "X", 1, SEGMENT_BLOCK * 3), 1); /* the last one's: missed only where the end is known */
	ck_assert_uint_eq(count_records(fd, 1, &damaged), 0);
	ck_assert_uint_eq(damaged, 2);
	ck_assert_uint_eq(count_up_to(fd, 1, w.synced_to, &damaged), 0);
	ck_assert_uint_eq(damaged, 3);
	segment_close(&w.segment);
	buffer_free(&b.bytes);
	remove_dir(fd, dir, (const char *const[]){"0000000000000001.seg"}, 1);
}
END_TEST

START_TEST(a_recycled_segment_holds_nothing_of_its_past)
{
	char dir[64];
	int fd = make_dir(dir);
	struct qid_maker m = {.suffix = "000000"};
	struct batch b = {0};
	struct segment_writer w = open_writer(fd, 1);
	unsigned damaged;
	batch_begin(&b);
	put(&b, &w, &m, "old");
	ck_assert_int_eq(batch_commit(&storage_real, &w, &b), 0);
	segment_close(&w.segment);
	ck_assert_int_eq(segment_recycle(&storage_real, fd, 1, 2, 1), 0);
	ck_assert_uint_eq(count_records(fd, 2, &damaged), 0);
	buffer_free(&b.bytes);
	remove_dir(fd, dir, (const char *const[]){"0000000000000002.seg"}, 1);
}
END_TEST

START_TEST(a_body_cannot_forge_a_record)
{
	char dir[64];
	int fd = make_dir(dir);
	struct qid_maker m = {.suffix = "000000"};
	struct batch b = {0}, forged = {0};
	struct segment_writer w = open_writer(fd, 1), other = w;
	unsigned damaged;
	memset(other.segment.random, 0, SEGMENT_RANDOM); /* what an outsider can't know */
	batch_begin(&forged);
	put(&forged, &other, &m, "forged");
	ck_assert_int_eq(buffer_reserve(&forged.bytes, 8192), 0);
	memmove(forged.bytes.at + 8192 - 72, forged.bytes.at, forged.bytes.n); /* laid where a batch would begin */
	forged.bytes.at[forged.bytes.n] = '\0';
	batch_begin(&b);
	struct qid id = qid_make(&m, 1);
	struct span piece = {forged.bytes.at, 8192};
	(void)batch_add(&b, &w, &id, span_of("\x01\0\0\0\0"), &piece, 1);
	ck_assert_int_eq(batch_commit(&storage_real, &w, &b), 0);
	ck_assert_uint_eq(count_records(fd, 1, &damaged), 1);
	segment_close(&w.segment);
	buffer_free(&b.bytes);
	buffer_free(&forged.bytes);
	remove_dir(fd, dir, (const char *const[]){"0000000000000001.seg"}, 1);
}
END_TEST

START_TEST(fates_come_back_past_a_damaged_line)
{
	struct buffer lines, results;
	struct qid_maker m = {.suffix = "000000"};
	struct fate f = {.kind = FATE_CLOSED, .id = qid_make(&m, 1)}, back;
	struct result r = {.index = 2, .outcome = OUTCOME_SENT, .code = 250, .text = span_of("ok")}, got;
	buffer_init(&lines, 10000);
	buffer_init(&results, 1000);
	result_put(&results, &r);
	f.results = buffer_span(&results);
	for (int i = 0; i < 3; i++)
		fate_put(&lines, &f);
	lines.at[lines.n / 2] ^= 1;
	struct span rest = buffer_span(&lines);
	int n = 0;
	while (fate_next(&rest, &back)) {
		struct span list = back.results;
		ck_assert(result_take(&list, &got) && got.index == 2 && got.code == 250 && span_is(got.text, "ok"));
		n++;
	}
	ck_assert_int_eq(n, 2);
	buffer_free(&lines);
	buffer_free(&results);
}
END_TEST

START_TEST(a_full_fates_file_says_so_and_takes_nothing)
{
	char dir[64];
	int fd = make_dir(dir);
	struct fates_file f;
	char line[3000] = {0};
	ck_assert_int_eq(fates_create(&storage_real, fd, 1, 4096, &f), 0);
	ck_assert_int_eq(fates_append(&storage_real, &f, (struct span){line, sizeof line}), 0);
	ck_assert_int_eq(fates_append(&storage_real, &f, (struct span){line, sizeof line}), ENOSPC);
	(void)close(f.fd);
	remove_dir(fd, dir, (const char *const[]){"0000000000000001.log"}, 1);
}
END_TEST

Suite *suite_queuefile(void)
{
	Suite *s = suite_create("queuefile");
	TCase *t = tcase_create("queuefile");
	tcase_add_test(t, ids_sort_by_time_and_differ_by_origin);
	tcase_add_test(t, an_envelope_comes_back_and_a_cut_one_is_refused);
	tcase_add_test(t, records_come_back_and_a_damaged_one_costs_only_its_batch);
	tcase_add_test(t, a_recycled_segment_holds_nothing_of_its_past);
	tcase_add_test(t, a_body_cannot_forge_a_record);
	tcase_add_test(t, fates_come_back_past_a_damaged_line);
	tcase_add_test(t, a_full_fates_file_says_so_and_takes_nothing);
	suite_add_tcase(s, t);
	return s;
}
