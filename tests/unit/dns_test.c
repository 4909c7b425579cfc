#include "dns/dns.h"
#include "unit.h"

#include <string.h>

/* An answer: header, one question "a.b" of MX, one MX record 10 with a pointer to "b". */
static const char answer[] =
	"\x00\x01\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" "\x01" "a" "\x01" "b" "\x00" "\x00\x0f\x00\x01"
	"\xc0\x0c" "\x00\x0f\x00\x01" "\x00\x00\x00\x3c" "\x00\x06" "\x00\x0a" "\x01" "m" "\xc0\x0e";

START_TEST(an_mx_answer_is_read_through_its_pointers)
{
	struct buffer b;
	size_t n;
	unsigned rcode;
	struct dns_mx mx;
	buffer_init(&b, 1000);
	ck_assert_int_eq(dns_parse_answer((struct span){answer, sizeof answer - 1}, DNS_MX, &b, &n, &rcode, NULL), 0);
	struct span rest = buffer_span(&b);
	ck_assert_uint_eq(n, 1);
	ck_assert(dns_take_mx(&rest, &mx) && mx.preference == 10 && span_is(mx.host, "m.b"));
	buffer_free(&b);
}
END_TEST

START_TEST(a_cut_or_looping_answer_is_refused)
{
	struct buffer b;
	size_t n;
	unsigned rcode;
	char loop[sizeof answer];
	buffer_init(&b, 1000);
	for (size_t cut = 0; cut + 1 < sizeof answer; cut++)
		ck_assert_int_eq(dns_parse_answer((struct span){answer, cut}, DNS_MX, &b, &n, &rcode, NULL), EBADMSG);
	memcpy(loop, answer, sizeof answer);
	loop[sizeof answer - 2] = (char)(sizeof answer - 3); /* the pointer points at itself */
	ck_assert_int_eq(dns_parse_answer((struct span){loop, sizeof answer - 1}, DNS_MX, &b, &n, &rcode, NULL), EBADMSG);
	buffer_free(&b);
}
END_TEST

/* RFC 1035 3.3.14: the strings of a TXT record mean one text. */
START_TEST(a_text_is_its_strings_joined)
{
	static const char text[] = "\0\1\x81\x80\0\1\0\1\0\0\0\0\1a\1b\0\0\x10\0\1\xc0\x0c\0\x10\0\1\0\0\0\x3c\0\6\2v=\2ST";
	struct buffer b;
	struct span rest, value;
	size_t n;
	unsigned rcode;
	buffer_init(&b, 1000);
	ck_assert_int_eq(dns_parse_answer((struct span){text, sizeof text - 1}, DNS_TXT, &b, &n, &rcode, NULL), 0);
	rest = buffer_span(&b);
	ck_assert(take_lspan(&rest, &value) && span_is(value, "v=ST") && rest.n == 0);
	char over[sizeof text];
	memcpy(over, text, sizeof text);
	over[sizeof text - 4] = 3; /* a string that is longer than the record */
	ck_assert_int_eq(dns_parse_answer((struct span){over, sizeof text - 1}, DNS_TXT, &b, &n, &rcode, NULL), EBADMSG);
	buffer_free(&b);
}
END_TEST

/* RFC 2782 */
START_TEST(an_srv_answer_is_read)
{
	static const char text[] = "\0\1\x81\x80\0\1\0\1\0\0\0\0\1a\1b\0\0\x21\0\1\xc0\x0c\0\x21\0\1\0\0\0\x3c\0\x0a\0\1\0\2\1\xf4\1m\xc0\x0e";
	struct buffer b;
	struct dns_srv srv;
	size_t n;
	unsigned rcode;
	buffer_init(&b, 1000);
	ck_assert_int_eq(dns_parse_answer((struct span){text, sizeof text - 1}, DNS_SRV, &b, &n, &rcode, NULL), 0);
	struct span rest = buffer_span(&b);
	ck_assert(dns_take_srv(&rest, &srv) && srv.priority == 1 && srv.weight == 2 && srv.port == 500 && span_is(srv.host, "m.b") && rest.n == 0);
	char brief[sizeof text];
	memcpy(brief, text, sizeof text);
	brief[sizeof text - 12] = 6; /* no room for a host */
	ck_assert_int_eq(dns_parse_answer((struct span){brief, sizeof text - 5}, DNS_SRV, &b, &n, &rcode, NULL), EBADMSG);
	buffer_free(&b);
}
END_TEST

/* As the name servers of an address give it. */
START_TEST(a_ptr_answer_is_a_name)
{
	struct buffer b;
	struct span name;
	size_t n;
	unsigned rcode;
	static const char ptr[] =
		"\x00\x01\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" "\x01" "a" "\x01" "b" "\x00" "\x00\x0c\x00\x01"
		"\xc0\x0c" "\x00\x0c\x00\x01" "\x00\x00\x00\x3c" "\x00\x04" "\x01" "m" "\xc0\x0e";
	buffer_init(&b, 1000);
	ck_assert_int_eq(dns_parse_answer((struct span){ptr, sizeof ptr - 1}, DNS_PTR, &b, &n, &rcode, NULL), 0);
	struct span rest = buffer_span(&b);
	ck_assert(take_lspan(&rest, &name) && span_is(name, "m.b") && rest.n == 0);
	/* one that would not be a name in a header or a log line is none; the answer stays an answer */
	char odd[sizeof ptr];
	memcpy(odd, ptr, sizeof ptr);
	odd[sizeof ptr - 4] = '\n';
	buffer_clear(&b);
	ck_assert_int_eq(dns_parse_answer((struct span){odd, sizeof ptr - 1}, DNS_PTR, &b, &n, &rcode, NULL), 0);
	ck_assert_uint_eq(b.n, 0);
	ck_assert_uint_eq(n, 1);
	buffer_free(&b);
}
END_TEST

Suite *suite_dns(void)
{
	Suite *s = suite_create("dns");
	TCase *t = tcase_create("dns");
	tcase_add_test(t, an_mx_answer_is_read_through_its_pointers);
	tcase_add_test(t, a_cut_or_looping_answer_is_refused);
	tcase_add_test(t, a_text_is_its_strings_joined);
	tcase_add_test(t, an_srv_answer_is_read);
	tcase_add_test(t, a_ptr_answer_is_a_name);
	suite_add_tcase(s, t);
	return s;
}
