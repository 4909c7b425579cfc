#include "message/message.h"
#include "unit.h"

#include <string.h>

static const char header[] = "Received: one\r\n\tfold: Received: no\r\nreceived : two\r\nDate: x\r\nFrom: a\r\n\r\nReceived: in the body\r\n";

START_TEST(the_walk_counts_received_however_it_is_cut)
{
	size_t n = strlen(header);
	for (size_t cut = 0; cut <= n; cut++) {
		struct header_walk w;
		header_walk_init(&w);
		header_walk(&w, (struct span){header, cut});
		header_walk(&w, (struct span){header + cut, n - cut});
		ck_assert_uint_eq(w.received, 2);
		ck_assert_uint_eq(w.seen, SEEN_DATE | SEEN_FROM);
		ck_assert(w.done && !w.eight_bit);
	}
}
END_TEST

START_TEST(fields_come_with_their_folds)
{
	struct span rest = span_of(header);
	struct header_field f;
	ck_assert(header_next(&rest, &f));
	ck_assert(span_is(f.name, "Received") && span_is(f.body, "one\r\n\tfold: Received: no"));
	ck_assert(header_next(&rest, &f) && header_next(&rest, &f) && header_next(&rest, &f));
	ck_assert(!header_next(&rest, &f));
	ck_assert(span_is(rest, "Received: in the body\r\n"));
}
END_TEST

struct list {
	struct buffer b;
};
static int take(void *context, struct span s)
{
	struct list *l = context;
	buffer_put_span(&l->b, s);
	buffer_putc(&l->b, ';');
	return 0;
}

static const struct { const char *body, *found; } lists[] = {
	{"a@x", "a@x;"},
	{"A B <a@x>, b@y", "a@x;b@y;"},
	{"\"x, y\" <a@x> (comment, (nested))", "a@x;"},
	{"group: a@x, b@y;, c@z", "a@x;b@y;c@z;"},
	{"undisclosed-recipients:;", ""},
	{"\"quoted local\"@x", "\"quoted local\"@x;"},
	{"a@x,\r\n b@y", "a@x;b@y;"},
	{"", ""},
};

START_TEST(address_lists_are_read_as_rfc_5322_writes_them)
{
	struct list l;
	buffer_init(&l.b, 1000);
	ck_assert_int_eq(header_addresses(span_of(lists[_i].body), take, &l), 0);
	ck_assert_msg(span_is(buffer_span(&l.b), lists[_i].found), "%s: %.*s", lists[_i].body, SPAN_ARG(buffer_span(&l.b)));
	buffer_free(&l.b);
}
END_TEST

START_TEST(text_of_a_client_cannot_end_the_received_field)
{
	struct buffer b;
	buffer_init(&b, 4096);
	struct received r = {.helo = span_of("x\r\nEvil: y"), .client_address = span_of("192.0.2.1"), .by = span_of("mx"), .protocol = span_of("ESMTP"), .id = span_of("ID")};
	received_put(&b, &r);
	ck_assert_ptr_null(memmem(b.at, b.n, "\r\nEvil", 6));
	ck_assert_ptr_nonnull(memmem(b.at, b.n, "from x??Evil:?y ([192.0.2.1])", 29));
	buffer_free(&b);
}
END_TEST

START_TEST(line_ends_of_files_become_crlf)
{
	struct buffer b;
	buffer_init(&b, 100);
	crlf_put(&b, span_of("a\nb\r\nc\rd"));
	ck_assert(span_is(buffer_span(&b), "a\r\nb\r\nc\rd\r\n"));
	buffer_free(&b);
}
END_TEST

static bool is_own_domain(const void *context, struct span domain)
{
	ck_assert_ptr_null(context);
	return span_case_is(domain, "own.example");
}

/* With default domain own.example, masked as public.example. */
static const struct { const char *rule, *before, *after; } rewritten[] = {
	{"an own domain in From is masked", "From: a@own.example\r\n", "From: a@public.example\r\n"},
	{"also in brackets, with names and comments kept", "From: \"A, B\" (x <y@own.example>) <a@OWN.example> (z)\r\n", "From: \"A, B\" (x <y@own.example>) <a@public.example> (z)\r\n"},
	{"Sender and Reply-To as well", "Sender: a@own.example\r\nReply-To: <b@own.example>\r\n", "Sender: a@public.example\r\nReply-To: <b@public.example>\r\n"},
	{"recipients are not masked", "To: a@own.example, <b@own.example>\r\n", "To: a@own.example, <b@own.example>\r\n"},
	{"they get the default domain", "To: a, B C <b>, d@else.example\r\nCc: e\r\n", "To: a@own.example, B C <b@own.example>, d@else.example\r\nCc: e@own.example\r\n"},
	{"an author without a domain is masked at once", "From: a\r\n", "From: a@public.example\r\n"},
	{"other domains stay", "From: a@sub.own.example\r\n", "From: a@sub.own.example\r\n"},
	{"groups", "To: friends: a, b@x.example; c\r\n", "To: friends: a@own.example, b@x.example; c@own.example\r\n"},
	{"an empty group", "To: undisclosed-recipients:;\r\n", "To: undisclosed-recipients:;\r\n"},
	{"folds stay where they are", "To: a,\r\n b,\r\n\tc@x.example\r\n", "To: a@own.example,\r\n b@own.example,\r\n\tc@x.example\r\n"},
	{"quoted local parts", "To: \"a b\", <\"c@d\">\r\n", "To: \"a b\"@own.example, <\"c@d\"@own.example>\r\n"},
	{"what is no address stays", "From: John Doe\r\nTo: a b c, <>, @, <@x:y@z>\r\n", "From: John Doe\r\nTo: a b c, <>, @, <@x:y@z>\r\n"},
	{"broken ends stay", "From: (a\r\n", "From: (a\r\n"},
	{"a bracket that does not end stays", "To: <a\r\n", "To: <a\r\n"},
	{"other fields stay", "Subject: a@own.example\r\nX-To: a\r\n", "Subject: a@own.example\r\nX-To: a\r\n"},
	{"nothing behind the header", "To: a\r\n\r\nTo: b\r\n", "To: a@own.example\r\n"},
};

START_TEST(addresses_of_a_first_hop)
{
	struct rewrite r = {.default_domain = "own.example", .masquerade = "public.example", .is_own = is_own_domain};
	struct buffer out;
	struct span before = span_of(rewritten[_i].before);
	buffer_init(&out, 10000);
	size_t n = rewrite_header(&out, before, &r);
	ck_assert_msg(strcmp(buffer_cstr(&out), rewritten[_i].after) == 0, "%s: %s", rewritten[_i].rule, buffer_cstr(&out));
	ck_assert_uint_le(n, before.n);
	buffer_free(&out);
}
END_TEST

static const struct { const char *rule, *before, *after; } converted[] = {
	{"a message that is no MIME becomes it", "Subject: x\r\n\r\nh\xe9llo\r\n",
		"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nh=E9llo\r\n"},
	{"text becomes quoted-printable", "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n=\xc3\xa4 \r\n.\r\n",
		"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=3D=C3=A4=20\r\n.\r\n"},
	{"all else becomes base64", "MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x89PNG\n\x01",
		"MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORwoB\r\n"},
	{"seven bits stay", "Subject: x\r\n\r\nplain\r\n", "Subject: x\r\n\r\nplain\r\n"},
	{"8bit that is none is said to be 7bit", "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\nplain\r\n",
		"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\n\r\nplain\r\n"},
	{"what is encoded stays", "MIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\nSubject: x\r\n\r\naGVsbG8=\r\n",
		"MIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\nSubject: x\r\n\r\naGVsbG8=\r\n"},
	{"each part by itself; delimiters stay", "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=\"a b\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\npre\xe9\r\n"
		"--a b\r\n\r\n\xe9\r\n--a b\r\nContent-Type: application/x; a=b\r\nContent-Transfer-Encoding: binary\r\n\r\n\xff\r\n--a b\r\nContent-Transfer-Encoding: 7bit\r\n\r\nplain\r\n--a b--\r\nepi\r\n",
		"MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=\"a b\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\npre?\r\n"
		"--a b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E9\r\n--a b\r\nContent-Type: application/x; a=b\r\nContent-Transfer-Encoding: base64\r\n\r\n/w==\r\n--a b\r\nContent-Transfer-Encoding: 7bit\r\n\r\nplain\r\n--a b--\r\nepi\r\n"},
	{"parts in parts, the inner end left out", "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\n\r\n\xe9\r\n--o\r\n\r\n\xe8\r\n--o--\r\n",
		"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E9\r\n--o\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E8\r\n--o--\r\n"},
	{"a message inside", "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: in\r\n\r\n\xe9\r\n",
		"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSubject: in\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E9\r\n"},
	{"what is signed and holds seven bits stays", "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nplain\r\n--s--\r\n", "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nplain\r\n--s--\r\n"},
	{"what is signed and holds more is not converted", "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\n\xe9\r\n--s--\r\n", NULL},
	{"nor is a header that holds more", "Subject: \xe9\r\n\r\n\xe9\r\n", NULL},
	{"nor an encoded multipart", "Content-Type: multipart/mixed; boundary=s\r\nContent-Transfer-Encoding: base64\r\n\r\n\xe9\r\n", NULL},
	{"no boundary: all of it is one body", "Content-Type: multipart/mixed\r\n\r\n\xe9\r\n", "Content-Type: multipart/mixed\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n\r\n6Q0K\r\n"},
};

START_TEST(eight_bits_become_seven)
{
	struct buffer out;
	buffer_init(&out, 100000);
	int error = convert_to_seven_bits(&out, span_of(converted[_i].before));
	ck_assert_msg((error == 0) == (converted[_i].after != NULL), "%s: %d", converted[_i].rule, error);
	if (error == 0)
		ck_assert_msg(strcmp(buffer_cstr(&out), converted[_i].after) == 0, "%s:\n%s", converted[_i].rule, buffer_cstr(&out));
	buffer_free(&out);
}
END_TEST

START_TEST(long_lines_are_cut_by_the_encodings)
{
	struct buffer in, out;
	buffer_init(&in, 100000);
	buffer_init(&out, 100000);
	buffer_puts(&in, "Content-Type: text/plain\r\n\r\n");
	for (size_t i = 0; i < 3000; i++)
		buffer_putc(&in, i % 7 == 0 ? '\xe9' : 'a');
	ck_assert_int_eq(convert_to_seven_bits(&out, buffer_span(&in)), 0);
	struct span rest = buffer_span(&out);
	while (rest.n > 0)
		ck_assert_uint_le(span_until(&rest, '\n').n, 77);
	buffer_free(&in);
	buffer_free(&out);
}
END_TEST

Suite *suite_message(void)
{
	Suite *s = suite_create("message");
	TCase *t = tcase_create("message");
	tcase_add_test(t, the_walk_counts_received_however_it_is_cut);
	tcase_add_test(t, fields_come_with_their_folds);
	tcase_add_loop_test(t, address_lists_are_read_as_rfc_5322_writes_them, 0, (int)COUNT_OF(lists));
	tcase_add_test(t, text_of_a_client_cannot_end_the_received_field);
	tcase_add_test(t, line_ends_of_files_become_crlf);
	tcase_add_loop_test(t, eight_bits_become_seven, 0, (int)COUNT_OF(converted));
	tcase_add_test(t, long_lines_are_cut_by_the_encodings);
	tcase_add_loop_test(t, addresses_of_a_first_hop, 0, (int)COUNT_OF(rewritten));
	suite_add_tcase(s, t);
	return s;
}
