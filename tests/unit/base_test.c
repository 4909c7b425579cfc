#include "base/base.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

START_TEST(a_number_must_be_the_whole_text)
{
	uint64_t v = 7;
	ck_assert_int_eq(parse_u64(span_of("42"), 100, &v), 0);
	ck_assert_uint_eq(v, 42);
	ck_assert_int_eq(parse_u64(span_of("42x"), 100, &v), EINVAL);
	ck_assert_int_eq(parse_u64(span_of(""), 100, &v), EINVAL);
	ck_assert_int_eq(parse_u64(span_of("101"), 100, &v), ERANGE);
	ck_assert_int_eq(parse_u64(span_of("99999999999999999999999"), UINT64_MAX, &v), ERANGE);
	ck_assert_uint_eq(v, 42);
}
END_TEST

START_TEST(times_and_sizes_need_units)
{
	int64_t v = 0;
	ck_assert_int_eq(parse_duration(span_of("1h30m"), &v), 0);
	ck_assert_int_eq(v, 5400);
	ck_assert_int_eq(parse_duration(span_of("15"), &v), EINVAL);
	ck_assert_int_eq(parse_bytes(span_of("2048K"), &v), 0);
	ck_assert_int_eq(v, 2097152);
	ck_assert_int_eq(parse_bytes(span_of("1k"), &v), EINVAL);
	ck_assert_int_eq(parse_duration(span_of("99999999999999999w"), &v), ERANGE);
}
END_TEST

START_TEST(a_buffer_never_grows_past_its_limit_and_keeps_what_it_has)
{
	struct buffer b;
	buffer_init(&b, 10);
	buffer_puts(&b, "12345678");
	buffer_puts(&b, "9012");
	ck_assert(!buffer_ok(&b));
	ck_assert(span_is(buffer_span(&b), "12345678"));
	buffer_free(&b);
}
END_TEST

START_TEST(crc32c_is_the_one_of_rfc_3720)
{
	char zeros[32] = {0};
	ck_assert_uint_eq(crc32c(0, zeros, 32), 0x8a9136aa); /* RFC 3720 B.4 */
	ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283);
	ck_assert_uint_eq(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
}
END_TEST

START_TEST(the_nearest_word_is_found_only_when_near)
{
	static const char *const words[] = {"recipient_limit", "connection_limit"};
	ck_assert_str_eq(nearest_word(span_of("recipent_limit"), words, 2), "recipient_limit");
	ck_assert_ptr_null(nearest_word(span_of("zebra"), words, 2));
}
END_TEST

START_TEST(escaping_leaves_no_control_character)
{
	struct buffer b;
	buffer_init(&b, 100);
	buffer_put_escaped(&b, span_of("a\r\n\"b\\"), 100);
	ck_assert(span_is(buffer_span(&b), "a\\x0d\\x0a\\\"b\\\\"));
	buffer_free(&b);
}
END_TEST

START_TEST(rfc3339_goes_both_ways)
{
	struct buffer b;
	int64_t v = 0;
	buffer_init(&b, 100);
	format_rfc3339(&b, 1764093600);
	ck_assert_int_eq(parse_rfc3339(buffer_span(&b), &v), 0);
	ck_assert_int_eq(v, 1764093600);
	buffer_free(&b);
}
END_TEST

START_TEST(json_text_is_utf8_whatever_a_peer_said)
{
	struct buffer b;
	buffer_init(&b, 200);
	buffer_put_json(&b, span_of("a\"\n\xc3\xa4\xff\xc0\xaf\xe2\x82"));
	ck_assert(span_is(buffer_span(&b), "\"a\\\"\\u000a\xc3\xa4\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\""));
	buffer_free(&b);
}
END_TEST

/* Whoever has a /32 of IPv6 to choose from finds addresses that CRC puts into one bucket, whatever it begins with. */
START_TEST(addresses_that_were_chosen_to_collide_do_not)
{
	enum { BUCKETS = 16384, CHOSEN = 200 };
	struct hash_secret secret;
	unsigned *load = calloc(BUCKETS, sizeof *load);
	unsigned chosen = 0, most = 0;
	ck_assert_ptr_nonnull(load);
	ck_assert_int_eq(fill_random(&secret, sizeof secret), 0);
	for (uint32_t i = 0; chosen < CHOSEN; i++) {
		uint32_t words[5] = {0, 0xb80d0120, i, 0, 0};
		if (crc32c(7, words, sizeof words) % BUCKETS != 1)
			continue;
		unsigned *n = &load[keyed_hash(&secret, words, 5) % BUCKETS];
		chosen++;
		most = ++*n > most ? *n : most;
	}
	ck_assert_uint_le(most, 8);
	free(load);
}
END_TEST

Suite *suite_base(void)
{
	Suite *s = suite_create("base");
	TCase *t = tcase_create("base");
	tcase_add_test(t, a_number_must_be_the_whole_text);
	tcase_add_test(t, times_and_sizes_need_units);
	tcase_add_test(t, a_buffer_never_grows_past_its_limit_and_keeps_what_it_has);
	tcase_add_test(t, crc32c_is_the_one_of_rfc_3720);
	tcase_add_test(t, the_nearest_word_is_found_only_when_near);
	tcase_add_test(t, escaping_leaves_no_control_character);
	tcase_add_test(t, rfc3339_goes_both_ways);
	tcase_add_test(t, json_text_is_utf8_whatever_a_peer_said);
	tcase_add_test(t, addresses_that_were_chosen_to_collide_do_not);
	suite_add_tcase(s, t);
	return s;
}
