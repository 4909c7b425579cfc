#include "sts/sts.h"
#include "sts/tlsrpt.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>

#define V "version: STSv1\n"
#define TEN "mx: 1.example\nmx: 2.example\nmx: 3.example\nmx: 4.example\nmx: 5.example\nmx: 6.example\nmx: 7.example\nmx: 8.example\nmx: 9.example\nmx: 0.example\n"
/* RFC 8461 3.2.  outcome: "MODE AGE: hosts", or why it is of no use. */
static const struct { const char *rule, *text, *outcome; } policies[] = {
	{"the example", V "mode: enforce\nmx: mail.example.com\nmx: *.example.net\nmx: backupmx.example.com\nmax_age: 604800\n", "enforce 604800: mail.example.com *.example.net backupmx.example.com"},
	{"CRLF, blanks around the colon, no end of the last line", "version : STSv1\r\nmode:testing\r\nmx:\ta.example \r\nmax_age: 1", "testing 1: a.example"},
	{"none needs no host", V "mode: none\nmax_age: 9\n", "none 9:"},
	{"other fields do not matter", V "mode: none\nfuture: x\nmax_age: 9\n", "none 9:"},
	{"of a field that comes twice the first counts", V "mode: enforce\nmode: none\nmax_age: 5\nmax_age: 6\nmx: a.example\n", "enforce 5: a.example"},
	{"a year at most", V "mode: none\nmax_age: 9999999999\n", "none 31557600:"},
	{"a hundred hosts", V "mode: enforce\nmax_age: 1\n" TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "mx: a.example\n", "it names too many hosts"},
	{"empty", "\r\n\n", "it is empty"},
	{"the version comes first", "mode: none\n" V "max_age: 9\n", "it does not begin with 'version: STSv1'"},
	{"another version", "version: STSv2\nmode: none\nmax_age: 9\n", "it does not begin with 'version: STSv1'"},
	{"no mode", V "mx: a.example\nmax_age: 9\n", "it has no mode"},
	{"an unknown mode", V "mode: report\nmx: a.example\nmax_age: 9\n", "its mode is none of enforce, testing, none"},
	{"no max_age", V "mode: none\n", "it has no max_age"},
	{"an odd max_age", V "mode: none\nmax_age: 1w\n", "its max_age is not a number of seconds"},
	{"eleven digits", V "mode: none\nmax_age: 00000000001\n", "its max_age is not a number of seconds"},
	{"enforce without a host", V "mode: enforce\nmax_age: 9\n", "it names no mx"},
	{"testing without a host", V "mode: testing\nmax_age: 9\n", "it names no mx"},
	{"a star in the middle", V "mode: enforce\nmax_age: 9\nmx: mx.*.example\n", "an mx is no name of a host"},
	{"a star alone", V "mode: enforce\nmax_age: 9\nmx: *.\n", "an mx is no name of a host"},
	{"a name with a last dot", V "mode: enforce\nmax_age: 9\nmx: a.example.\n", "an mx is no name of a host"},
	{"an empty label", V "mode: enforce\nmax_age: 9\nmx: a..example\n", "an mx is no name of a host"},
};

START_TEST(each_rule_of_policies)
{
	struct sts_policy p;
	struct buffer out;
	const char *why;
	buffer_init(&out, 4000);
	int error = sts_parse_policy(span_of(policies[_i].text), &p, &why);
	if (error != 0) {
		buffer_puts(&out, why);
	} else {
		struct span hosts = buffer_span(&p.mx), host;
		buffer_printf(&out, "%s %u:", sts_mode_name(p.mode), p.max_age_s);
		while (take_lspan(&hosts, &host))
			buffer_printf(&out, " %.*s", SPAN_ARG(host));
	}
	ck_assert_msg(strcmp(buffer_cstr(&out), policies[_i].outcome) == 0, "%s: %s", policies[_i].rule, buffer_cstr(&out));
	buffer_free(&p.mx);
	buffer_free(&out);
}
END_TEST

/* RFC 8461 3.1.  id: NULL: none of these records, "": of no use. */
static const struct { const char *record, *id; } records[] = {
	{"v=STSv1; id=20160831085700Z;", "20160831085700Z"}, {"v=STSv1;id=a1", "a1"}, {"v=STSv1 ; x=y; id=1;", "1"}, {"v=STSv1; id=1; id=2;", "1"},
	{"v=STSv1;", ""}, {"v=STSv1; id=;", ""}, {"v=STSv1; id=a-1;", ""}, {"v=STSv1; id=123456789012345678901234567890123;", ""}, {"v=STSv1; id=12345678901234567890123456789012", "12345678901234567890123456789012"},
	{"v=STSv2; id=1;", NULL}, {"v=STSv1", NULL}, {" v=STSv1; id=1;", NULL}, {"id=1; v=STSv1;", NULL}, {"v=spf1 -all", NULL}, {"", NULL},
};

START_TEST(each_record)
{
	struct span id;
	ck_assert_int_eq(sts_parse_record(span_of(records[_i].record), &id), records[_i].id != NULL);
	ck_assert(span_is(id, records[_i].id == NULL ? "" : records[_i].id));
}
END_TEST

/* RFC 8461 4.1. */
static const struct { const char *mx, *host; bool named; } names[] = {
	{"mx.example", "mx.example", true}, {"MX.example", "mx.EXAMPLE", true}, {"mx.example", "mx2.example", false}, {"mx.example", "a.mx.example", false},
	{"*.example", "mx.example", true}, {"*.Example", "mx.example", true}, {"*.example", "a.mx.example", false}, {"*.example", "example", false}, {"*.example", ".example", false},
	{"*.mx.example", "a.mx.example", true},
};

START_TEST(each_host_that_is_named)
{
	struct buffer mx;
	buffer_init(&mx, 1000);
	buffer_put_lspan(&mx, SPAN_LIT("other.test"));
	buffer_put_lspan(&mx, span_of(names[_i].mx));
	ck_assert_msg(sts_names_host(buffer_span(&mx), span_of(names[_i].host)) == names[_i].named, "%s %s", names[_i].mx, names[_i].host);
	buffer_free(&mx);
}
END_TEST

/* RFC 8460 3: where reports go.  outcome: NULL: no such record; else the addresses that can be used. */
static const struct { const char *rule, *record, *outcome; } ruas[] = {
	{"mail", "v=TLSRPTv1; rua=mailto:reports@example.com", "mailto reports@example.com|"},
	{"HTTPS", "v=TLSRPTv1;rua=https://reporting.example.com/v1/tlsrpt", "https reporting.example.com https://reporting.example.com/v1/tlsrpt|"},
	{"both, with blanks", "v=TLSRPTv1; rua = mailto:a@b.example , https://x.example?y ;", "mailto a@b.example|https x.example https://x.example?y|"},
	{"fields of a later day", "v=TLSRPTv1; ext=1; rua=MAILTO:a@b.example; rua=mailto:c@d.example", "mailto a@b.example|"},
	{"what follows a ? is not the address", "v=TLSRPTv1; rua=mailto:a@b.example?subject=x", "mailto a@b.example|"},
	{"no address at all", "v=TLSRPTv1; rua=", ""},
	{"no rua", "v=TLSRPTv1; x=y", ""},
	{"not these: another scheme, no domain, encoded, a user, a port, no host, a host with a last dot, a space", "v=TLSRPTv1; rua=ftp://x.example/,mailto:nobody,mailto:a%40b@c.example,https://u@x.example/,https://x.example:444/,https:///x,https://x.example./,https://x.example/a b", ""},
	{"another version", "v=TLSRPTv2; rua=mailto:a@b.example", NULL},
	{"a version that only begins so", "v=TLSRPTv1x; rua=mailto:a@b.example", NULL},
	{"the version alone", "v=TLSRPTv1", NULL},
};

START_TEST(each_address_of_reports)
{
	struct span rua, address, host;
	enum rua_kind kind;
	struct buffer out;
	ck_assert_int_eq(tlsrpt_parse_record(span_of(ruas[_i].record), &rua), ruas[_i].outcome != NULL);
	buffer_init(&out, 4000);
	while (tlsrpt_next(&rua, &kind, &address, &host)) {
		buffer_puts(&out, kind == RUA_MAIL ? "mailto" : "https");
		if (kind == RUA_HTTPS)
			buffer_printf(&out, " %.*s", SPAN_ARG(host));
		buffer_printf(&out, " %.*s|", SPAN_ARG(address));
	}
	ck_assert_msg(strcmp(buffer_cstr(&out), ruas[_i].outcome == NULL ? "" : ruas[_i].outcome) == 0, "%s: %s", ruas[_i].rule, buffer_cstr(&out));
	buffer_free(&out);
}
END_TEST

Suite *suite_sts(void)
{
	Suite *s = suite_create("sts");
	TCase *t = tcase_create("sts");
	tcase_add_loop_test(t, each_rule_of_policies, 0, (int)COUNT_OF(policies));
	tcase_add_loop_test(t, each_record, 0, (int)COUNT_OF(records));
	tcase_add_loop_test(t, each_host_that_is_named, 0, (int)COUNT_OF(names));
	tcase_add_loop_test(t, each_address_of_reports, 0, (int)COUNT_OF(ruas));
	suite_add_tcase(s, t);
	return s;
}
