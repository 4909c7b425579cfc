#include "smtp/smtp.h"
#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <stdio.h>
#include <string.h>

static const struct { const char *text; unsigned flags; bool good; } addresses[] = {
	{"a@b.example", 0, true},
	{"a.b+c@b.example", 0, true},
	{"a..b@b.example", 0, false},
	{".a@b.example", 0, false},
	{"a.@b.example", 0, false},
	{"\"a b\"@b.example", 0, true},
	{"\"a\\\"b\"@b.example", 0, true},
	{"\"a\"b@b.example", 0, false},
	{"\"\"@b.example", 0, true},
	{"\"a\rb\"@b.example", 0, false},
	{"a@[192.0.2.1]", 0, true},
	{"a@[IPv6:2001:db8::1]", 0, true},
	{"a@[2001:db8::1]", 0, false},
	{"a@[192.0.2.256]", 0, false},
	{"a@-b.example", 0, false},
	{"a@b-.example", 0, false},
	{"a@b.example.", 0, false},
	{"a@b..example", 0, false},
	{"a@", 0, false},
	{"@b.example", 0, false},
	{"a", 0, false},
	{"a", ADDRESS_NO_DOMAIN, true},
	{"\xc3\xa4@b.example", 0, false},
	{"\xc3\xa4@b\xc3\xbc.example", ADDRESS_UTF8, true},
	{"\xc3@b.example", ADDRESS_UTF8, false},
	{"\xc0\xaf@b.example", ADDRESS_UTF8, false},
	{"\xed\xa0\x80@b.example", ADDRESS_UTF8, false},
	{"a b@b.example", 0, false},
	{"a@b@c.example", 0, false},
};

START_TEST(address_syntax_is_that_of_rfc_5321)
{
	struct address a;
	bool good = address_parse(span_of(addresses[_i].text), addresses[_i].flags, &a) == 0;
	ck_assert_msg(good == addresses[_i].good, "%s", addresses[_i].text);
}
END_TEST

START_TEST(local_part_and_path_have_their_limits)
{
	char text[400];
	struct address a;
	(void)snprintf(text, sizeof text, "%064d@b.example", 1);
	ck_assert_int_eq(address_parse(span_of(text), 0, &a), 0);
	(void)snprintf(text, sizeof text, "%065d@b.example", 1);
	ck_assert_int_eq(address_parse(span_of(text), 0, &a), EINVAL);
	(void)snprintf(text, sizeof text, "a@%064d.example", 1);
	ck_assert_int_eq(address_parse(span_of(text), 0, &a), EINVAL);
}
END_TEST

START_TEST(a_source_route_is_dropped)
{
	struct address a;
	struct span rest = span_of("<@one.example,@two.example:a@b.example> SIZE=1");
	ck_assert_int_eq(address_parse_path(&rest, 0, &a), 0);
	ck_assert(span_is(a.local, "a") && span_is(a.domain, "b.example") && span_is(rest, " SIZE=1"));
}
END_TEST

START_TEST(two_spellings_of_a_mailbox_compare_equal_without_quotes)
{
	struct address a;
	struct buffer b;
	buffer_init(&b, 100);
	ck_assert_int_eq(address_parse(span_of("\"a\\bc\"@x.example"), 0, &a), 0);
	address_put_unquoted_local(&b, &a);
	ck_assert(span_is(buffer_span(&b), "abc"));
	buffer_free(&b);
}
END_TEST

static const struct { const char *args; enum reply reply; } mails[] = {
	{"FROM:<a@b.example>", REPLY_MAIL_OK},
	{"FROM:<>", REPLY_MAIL_OK},
	{"FROM: <a@b.example> SIZE=10 BODY=8BITMIME RET=FULL ENVID=x+2B", REPLY_MAIL_OK},
	{"from:<a@b.example> body=binarymime smtputf8", REPLY_MAIL_OK},
	{"FROM:a@b.example", REPLY_BAD_SENDER},
	{"FROM:<a@b.example", REPLY_BAD_SENDER},
	{"FROM:<a@b.example>SIZE=10", REPLY_BAD_SENDER},
	{"TO:<a@b.example>", REPLY_SYNTAX},
	{"FROM:<a@b.example> SIZE=x", REPLY_SYNTAX},
	{"FROM:<a@b.example> SIZE=1 SIZE=1", REPLY_SYNTAX},
	{"FROM:<a@b.example> BODY=9BIT", REPLY_SYNTAX},
	{"FROM:<a@b.example> RET=SOME", REPLY_SYNTAX},
	{"FROM:<a@b.example> ENVID=a=b", REPLY_SYNTAX},
	{"FROM:<a@b.example> SMTPUTF8=yes", REPLY_SYNTAX},
	{"FROM:<a@b.example> AUTH=<>", REPLY_MAIL_OK}, /* RFC 4954 5 */
	{"FROM:<a@b.example> AUTH=e+3Dmc2@example.com", REPLY_MAIL_OK},
	{"FROM:<a@b.example> AUTH=a=b", REPLY_SYNTAX},
	{"FROM:<a@b.example> AUTH=<a>", REPLY_MAIL_OK},
	{"FROM:<a@b.example> AUTH=", REPLY_SYNTAX},
	{"FROM:<a@b.example> X-AUTH=<>", REPLY_PARAM_UNKNOWN},
	{"FROM:<\xc3\xa4@b.example>", REPLY_NEEDS_UTF8},
	{"FROM:<\xc3\xa4@b.example> SMTPUTF8", REPLY_MAIL_OK},
};

START_TEST(each_form_of_mail_gets_its_reply)
{
	struct mail_args m;
	ck_assert_msg(mail_args_parse(span_of(mails[_i].args), &m) == mails[_i].reply, "%s", mails[_i].args);
}
END_TEST

static const struct { const char *args; enum reply reply; unsigned notify; } rcpts[] = {
	{"TO:<a@b.example>", REPLY_RCPT_OK, 0},
	{"TO:<postmaster>", REPLY_RCPT_OK, 0},
	{"TO:<PostMaster> NOTIFY=NEVER", REPLY_RCPT_OK, NOTIFY_NEVER},
	{"TO:<a@b.example> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;a@b.example", REPLY_RCPT_OK, NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY},
	{"TO:<a>", REPLY_BAD_RECIPIENT, 0},
	{"TO:<>", REPLY_BAD_RECIPIENT, 0},
	{"TO:<a@b.example> NOTIFY=NEVER,DELAY", REPLY_SYNTAX, 0},
	{"TO:<a@b.example> NOTIFY=DELAY,DELAY", REPLY_SYNTAX, 0},
	{"TO:<a@b.example> NOTIFY=", REPLY_SYNTAX, 0},
	{"TO:<a@b.example> ORCPT=a@b.example", REPLY_SYNTAX, 0},
	{"TO:<a@b.example> ORCPT=rfc822;a+4", REPLY_SYNTAX, 0},
	{"TO:<a@b.example> X=1", REPLY_PARAM_UNKNOWN, 0},
};

START_TEST(each_form_of_rcpt_gets_its_reply)
{
	struct rcpt_args r = {0};
	ck_assert_msg(rcpt_args_parse(span_of(rcpts[_i].args), false, &r) == rcpts[_i].reply, "%s", rcpts[_i].args);
	ck_assert_uint_eq(r.notify, rcpts[_i].notify);
}
END_TEST

static const struct { enum command c; const char *verb; unsigned phases, flags; } commands[] = {
	{CMD_EHLO, "ehlo", PHASE_ANY, CMD_FLUSH | CMD_CLEAR},
	{CMD_HELO, "HELO", PHASE_ANY, CMD_FLUSH | CMD_CLEAR},
	{CMD_STARTTLS, "STARTTLS", PHASE_START | PHASE_GREETED, CMD_FLUSH | CMD_ALONE | CMD_NOARG | CMD_CLEAR},
	{CMD_AUTH, "auth", PHASE_GREETED, CMD_FLUSH | CMD_ALONE}, /* RFC 4954 4: not in a transaction, the last of a group */
	{CMD_MAIL, "MAIL", PHASE_GREETED, 0},
	{CMD_RCPT, "RCPT", PHASE_MAIL | PHASE_RCPT, 0},
	{CMD_DATA, "DATA", PHASE_RCPT, CMD_FLUSH | CMD_NOARG},
	{CMD_BDAT, "BDAT", PHASE_RCPT | PHASE_CHUNKS, CMD_SWALLOW},
	{CMD_RSET, "RSET", PHASE_ANY, CMD_NOARG | CMD_JUNK | CMD_CLEAR},
	{CMD_VRFY, "VRFY", PHASE_ANY, CMD_FLUSH | CMD_JUNK},
	{CMD_ETRN, "Etrn", PHASE_GREETED, CMD_FLUSH}, /* RFC 1985 4 */
	{CMD_ATRN, "ATRN", PHASE_GREETED, CMD_FLUSH | CMD_ALONE}, /* RFC 2645 5.1 */
	{CMD_EXPN, "EXPN", PHASE_ANY, CMD_FLUSH | CMD_JUNK},
	{CMD_HELP, "HELP", PHASE_ANY, CMD_JUNK},
	{CMD_NOOP, "NOOP", PHASE_ANY, CMD_FLUSH | CMD_JUNK | CMD_CLEAR},
	{CMD_QUIT, "QUIT", PHASE_ANY, CMD_FLUSH | CMD_NOARG | CMD_CLEAR},
	{CMD_COUNT, "WIZ", 0, 0},
};

START_TEST(each_command_has_its_phases_and_flags)
{
	struct span args;
	ck_assert_int_eq(command_parse(span_of(commands[_i].verb), &args), commands[_i].c);
	if (commands[_i].c == CMD_COUNT)
		return;
	ck_assert_uint_eq(command_row(commands[_i].c)->phases, commands[_i].phases);
	ck_assert_uint_eq(command_row(commands[_i].c)->flags, commands[_i].flags);
}
END_TEST

/* Every row: RFC 3463 2: the class of the enhanced status is that of the code. */
START_TEST(each_reply_is_well_formed)
{
	struct buffer b;
	struct peer_reply r;
	buffer_init(&b, 1000);
	peer_reply_init(&r);
	for (int i = 0; i < REPLY_COUNT; i++) {
		const struct reply_row *row = reply_row((enum reply)i);
		ck_assert_int_ge(row->code, 200);
		if (row->enhanced[0] != '\0')
			ck_assert_int_eq(row->enhanced[0] - '0', row->code / 100);
		buffer_clear(&b);
		reply_put(&b, (enum reply)i, span_of("detail\r\nQUIT"));
		ck_assert_ptr_eq(memchr(b.at, '\n', b.n), b.at + b.n - 1);
		peer_reply_clear(&r);
		ck_assert_int_eq(peer_reply_line(&r, (struct span){b.at, b.n - 2}), 0);
		ck_assert_int_eq(r.code, row->code);
	}
	peer_reply_free(&r);
	buffer_free(&b);
}
END_TEST

/* What the contract (MISSION, RFC 5321, RFC 3463) says of each reply. */
static const struct { enum reply reply; int code; const char *enhanced; } replies[] = {
	{REPLY_GREETING, 220, ""},
	{REPLY_STARTTLS_OK, 220, "2.0.0"},
	{REPLY_BYE, 221, "2.0.0"},
	{REPLY_OK, 250, "2.0.0"},
	{REPLY_HELO_OK, 250, ""},
	{REPLY_MAIL_OK, 250, "2.1.0"},
	{REPLY_RCPT_OK, 250, "2.1.5"},
	{REPLY_CHUNK_OK, 250, "2.0.0"},
	{REPLY_QUEUED, 250, "2.0.0"},
	{REPLY_VRFY, 252, "2.1.5"},
	{REPLY_HELP, 214, "2.0.0"},
	{REPLY_DATA_GO, 354, ""},
	{REPLY_SERVICE_DOWN, 421, "4.3.2"},
	{REPLY_TOO_MANY, 421, "4.7.0"},
	{REPLY_RATE_CONNECTIONS, 421, "4.7.0"},
	{REPLY_SHUTDOWN, 421, "4.3.2"},
	{REPLY_TIMEOUT, 421, "4.4.2"},
	{REPLY_SESSION_SIZE, 421, "4.7.0"},
	{REPLY_ERRORS, 421, "4.7.0"},
	{REPLY_JUNK, 421, "4.7.0"},
	{REPLY_LOCAL_ERROR, 451, "4.3.0"},
	{REPLY_NO_STORAGE, 452, "4.3.1"},
	{REPLY_RCPT_LIMIT, 452, "4.5.3"},
	{REPLY_TLS_UNAVAILABLE, 454, "4.7.0"},
	{REPLY_UNKNOWN, 500, "5.5.1"},
	{REPLY_LINE_LONG, 500, "5.5.2"},
	{REPLY_LINE_BARE, 500, "5.5.2"},
	{REPLY_SYNTAX, 501, "5.5.4"},
	{REPLY_NO_ARGUMENT, 501, "5.5.4"},
	{REPLY_HELO_NAME, 501, "5.5.4"},
	{REPLY_BAD_SENDER, 501, "5.1.7"},
	{REPLY_BAD_RECIPIENT, 501, "5.1.3"},
	{REPLY_NOT_IMPLEMENTED, 502, "5.5.1"},
	{REPLY_SEQUENCE, 503, "5.5.1"},
	{REPLY_NO_RECIPIENTS, 503, "5.5.1"},
	{REPLY_NOT_ALONE, 503, "5.5.0"},
	{REPLY_EARLY_TALKER, 554, "5.5.0"},
	{REPLY_BDAT_BINARY, 503, "5.5.1"},
	{REPLY_DATA_IN_CHUNKS, 503, "5.5.1"},
	{REPLY_PARAM_UNKNOWN, 555, "5.5.4"},
	{REPLY_NEEDS_UTF8, 553, "5.6.7"},
	{REPLY_NO_RELAY, 550, "5.7.1"},
	{REPLY_BARE_NEWLINE, 550, "5.6.0"},
	{REPLY_TOO_BIG, 552, "5.3.4"},
};

START_TEST(each_reply_has_its_code_and_enhanced_status)
{
	const struct reply_row *row = reply_row(replies[_i].reply);
	ck_assert_int_eq(row->code, replies[_i].code);
	ck_assert_str_eq(row->enhanced, replies[_i].enhanced);
}
END_TEST

static const struct { const char *in, *out; bool bare, end; } data[] = {
	{"a\r\n.\r\n", "a\r\n", false, true},
	{".\r\n", "", false, true},
	{"..a\r\n.\r\n", ".a\r\n", false, true},
	{".a\r\n.\r\n", "a\r\n", false, true},
	{"a\n.\nb\r\n.\r\n", "a\n.\nb\r\n", true, true},     /* LF.LF ends nothing */
	{"a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", true, true},  /* CRLF.LF ends nothing */
	{"a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", true, true}, /* LF.CRLF ends nothing */
	{"a\r.\r\nb\r\n.\r\n", "a\r.\r\nb\r\n", true, true}, /* CR.CRLF ends nothing */
	{"a\r\n.\r\r\n.\r\n", "a\r\n\r\r\n", true, true},
	{"a\r\n.", "a\r\n", false, false},
	{"a\rb\r\n.\r\n", "a\rb\r\n", true, true},
};

START_TEST(only_crlf_dot_crlf_ends_data)
{
	size_t n = strlen(data[_i].in);
	for (size_t cut = 0; cut <= n; cut++) { /* however it is cut into pieces */
		struct data_decoder d;
		struct buffer out;
		buffer_init(&out, 1000);
		data_decoder_init(&d, false);
		size_t used = data_decode(&d, (struct span){data[_i].in, cut}, &out);
		if (used == cut)
			(void)data_decode(&d, (struct span){data[_i].in + cut, n - cut}, &out);
		ck_assert_msg(span_is(buffer_span(&out), data[_i].out), "%d cut %zu", _i, cut);
		ck_assert_int_eq(d.bare, data[_i].bare);
		ck_assert_int_eq(d.state == DATA_END, data[_i].end);
		buffer_free(&out);
	}
}
END_TEST

START_TEST(normalize_makes_bare_line_ends_whole_but_never_an_end)
{
	struct data_decoder d;
	struct buffer out;
	buffer_init(&out, 1000);
	data_decoder_init(&d, true);
	(void)data_decode(&d, span_of("a\n.\r\nb\rc\r\n.\r\n"), &out);
	ck_assert(span_is(buffer_span(&out), "a\r\n.\r\nb\r\nc\r\n"));
	buffer_free(&out);
}
END_TEST

START_TEST(what_is_stuffed_comes_back)
{
	static const char text[] = ".\r\n..\r\na.\r\n.b\r\n";
	struct data_decoder d;
	struct buffer wire, back;
	bool start = true;
	buffer_init(&wire, 1000);
	buffer_init(&back, 1000);
	data_encode(&wire, span_of(text), &start);
	buffer_puts(&wire, ".\r\n");
	data_decoder_init(&d, false);
	(void)data_decode(&d, buffer_span(&wire), &back);
	ck_assert(span_is(buffer_span(&back), text) && d.state == DATA_END && start);
	buffer_free(&wire);
	buffer_free(&back);
}
END_TEST

START_TEST(a_peers_reply_must_be_smtp)
{
	static const struct { const char *line; int result; } lines[] = {
		{"250 ok", 0}, {"250-more", EAGAIN}, {"250", 0}, {"25", EBADMSG}, {"2x0 ok", EBADMSG}, {"150 ok", EBADMSG}, {"650 ok", EBADMSG},
		{"250xok", EBADMSG}, {"", EBADMSG}, {"HTTP/1.0", EBADMSG}};
	for (size_t i = 0; i < COUNT_OF(lines); i++) {
		struct peer_reply r;
		peer_reply_init(&r);
		ck_assert_msg(peer_reply_line(&r, span_of(lines[i].line)) == lines[i].result, "%s", lines[i].line);
		peer_reply_free(&r);
	}
}
END_TEST

START_TEST(all_lines_of_a_reply_carry_one_code_and_they_are_not_endless)
{
	struct peer_reply r;
	peer_reply_init(&r);
	ck_assert_int_eq(peer_reply_line(&r, span_of("250-a")), EAGAIN);
	ck_assert_int_eq(peer_reply_line(&r, span_of("550 b")), EBADMSG);
	peer_reply_clear(&r);
	int result = EAGAIN;
	for (int i = 0; i < 500 && result == EAGAIN; i++)
		result = peer_reply_line(&r, span_of("250-again"));
	ck_assert_int_eq(result, EBADMSG);
	peer_reply_free(&r);
}
END_TEST

START_TEST(an_enhanced_status_fits_its_code)
{
	ck_assert(span_is(enhanced_find(span_of("5.1.1 no"), 550), "5.1.1"));
	ck_assert_uint_eq(enhanced_find(span_of("4.1.1 no"), 550).n, 0);
	ck_assert_uint_eq(enhanced_find(span_of("5.1 no"), 550).n, 0);
	ck_assert_uint_eq(enhanced_find(span_of("5.1.1234 no"), 550).n, 0);
}
END_TEST

/* The PROXY protocol, 2.1 and 2.2.  outcome: the client and the bytes that are the header, or why there is none. */
#define V2 "\r\n\r\n\0\r\nQUIT\n"
static const struct { const char *rule, *bytes; size_t n; const char *outcome; } proxies[] = {
#define P(rule, bytes, outcome) {rule, bytes, sizeof bytes - 1, outcome}
	P("TCP4", "PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\nEHLO", "192.0.2.1:56324 41"),
	P("TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 1 25\r\n", "[2001:db8::1]:1 41"),
	P("UNKNOWN: whatever follows", "PROXY UNKNOWN what you like\r\nEHLO", "nothing 29"),
	P("UNKNOWN alone", "PROXY UNKNOWN\r\n", "nothing 15"),
	P("not whole yet", "PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r", "more"), P("a first byte", "P", "more"), P("nothing", "", "more"),
	P("a bare LF", "PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\n", "bad"), P("an IPv6 address as TCP4", "PROXY TCP4 2001:db8::1 2001:db8::2 1 25\r\n", "bad"),
	P("a port too large", "PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n", "bad"), P("words missing", "PROXY TCP4 192.0.2.1\r\n", "bad"),
	P("two blanks", "PROXY TCP4  192.0.2.1 192.0.2.2 1 25\r\n", "bad"), P("a word too many", "PROXY TCP4 192.0.2.1 192.0.2.2 1 25 x\r\n", "bad"),
	P("another family", "PROXY UDP4 192.0.2.1 192.0.2.2 1 25\r\n", "bad"), P("an address with rubbish", "PROXY TCP4 192.0.2.1x 192.0.2.2 1 25\r\n", "bad"),
	P("107 bytes and no end", "PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456", "bad"),
	P("SMTP", "EHLO x\r\n", "bad"), P("lower case", "proxy TCP4", "bad"),
	P("2: TCP4", V2 "\x21\x11\0\x0c" "\xc0\0\2\1\xc0\0\2\2\xdc\4\0\x19" "EHLO", "192.0.2.1:56324 28"),
	P("2: TCP6", V2 "\x21\x21\0\x24" "\x20\1\r\xb8\0\0\0\0\0\0\0\0\0\0\0\1" "\x20\1\r\xb8\0\0\0\0\0\0\0\0\0\0\0\2" "\0\7\0\x19", "[2001:db8::1]:7 52"),
	P("2: more behind the addresses (TLV)", V2 "\x21\x11\0\x0f" "\xc0\0\2\1\xc0\0\2\2\0\1\0\x19" "\4\0\0", "192.0.2.1:1 31"),
	P("2: LOCAL", V2 "\x20\0\0\0", "nothing 16"), P("2: a family of no use", V2 "\x21\x31\0\2xx", "nothing 18"),
	P("2: not whole yet", V2 "\x21\x11\0\x0c\xc0\0\2\1", "more"), P("2: the head not whole", V2 "\x21", "more"), P("2: its beginning", "\r\n\r", "more"),
	P("2: another version", V2 "\x11\x11\0\x0c" "\xc0\0\2\1\xc0\0\2\2\xdc\4\0\x19", "bad"), P("2: another command", V2 "\x22\x11\0\0", "bad"),
	P("2: too short for its family", V2 "\x21\x11\0\4\xc0\0\2\1", "bad"), P("2: longer than anybody needs", V2 "\x21\x11\xff\xff", "bad"),
#undef P
};

START_TEST(each_rule_of_the_proxy_protocol)
{
	struct proxy_client c;
	struct buffer b;
	size_t used;
	buffer_init(&b, 200);
	int error = proxy_parse((struct span){proxies[_i].bytes, proxies[_i].n}, &c, &used);
	if (error == EAGAIN || error == EBADMSG)
		buffer_puts(&b, error == EAGAIN ? "more" : "bad");
	else if (c.addr_n == 0)
		buffer_printf(&b, "nothing %zu", used);
	else {
		char text[64] = "";
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)&c.addr;
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&c.addr;
		bool is4 = c.addr.ss_family == AF_INET;
		(void)inet_ntop(c.addr.ss_family, is4 ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr, text, sizeof text);
		buffer_printf(&b, is4 ? "%s:%u %zu" : "[%s]:%u %zu", text, ntohs(is4 ? v4->sin_port : v6->sin6_port), used);
	}
	ck_assert_msg(strcmp(buffer_cstr(&b), proxies[_i].outcome) == 0, "%s: %s", proxies[_i].rule, buffer_cstr(&b));
	buffer_free(&b);
}
END_TEST

Suite *suite_smtp(void)
{
	Suite *s = suite_create("smtp");
	TCase *t = tcase_create("smtp");
	tcase_add_loop_test(t, each_rule_of_the_proxy_protocol, 0, (int)COUNT_OF(proxies));
	tcase_add_loop_test(t, address_syntax_is_that_of_rfc_5321, 0, (int)COUNT_OF(addresses));
	tcase_add_test(t, local_part_and_path_have_their_limits);
	tcase_add_test(t, a_source_route_is_dropped);
	tcase_add_test(t, two_spellings_of_a_mailbox_compare_equal_without_quotes);
	tcase_add_loop_test(t, each_form_of_mail_gets_its_reply, 0, (int)COUNT_OF(mails));
	tcase_add_loop_test(t, each_form_of_rcpt_gets_its_reply, 0, (int)COUNT_OF(rcpts));
	tcase_add_loop_test(t, each_command_has_its_phases_and_flags, 0, (int)COUNT_OF(commands));
	tcase_add_test(t, each_reply_is_well_formed);
	tcase_add_loop_test(t, each_reply_has_its_code_and_enhanced_status, 0, (int)COUNT_OF(replies));
	tcase_add_loop_test(t, only_crlf_dot_crlf_ends_data, 0, (int)COUNT_OF(data));
	tcase_add_test(t, normalize_makes_bare_line_ends_whole_but_never_an_end);
	tcase_add_test(t, what_is_stuffed_comes_back);
	tcase_add_test(t, a_peers_reply_must_be_smtp);
	tcase_add_test(t, all_lines_of_a_reply_carry_one_code_and_they_are_not_endless);
	tcase_add_test(t, an_enhanced_status_fits_its_code);
	suite_add_tcase(s, t);
	return s;
}
