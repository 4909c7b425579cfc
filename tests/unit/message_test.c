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

Suite *suite_message(void)
{
	Suite *s = suite_create("message");
	TCase *t = tcase_create("message");
	tcase_add_test(t, the_walk_counts_received_however_it_is_cut);
	tcase_add_test(t, fields_come_with_their_folds);
	tcase_add_loop_test(t, address_lists_are_read_as_rfc_5322_writes_them, 0, (int)COUNT_OF(lists));
	tcase_add_test(t, text_of_a_client_cannot_end_the_received_field);
	tcase_add_test(t, line_ends_of_files_become_crlf);
	suite_add_tcase(s, t);
	return s;
}
