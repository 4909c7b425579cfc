#include "params/params.h"
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A configuration directory with the two given texts. */
static int make_dir(const char *service, const char *server, char dir[64])
{
	(void)snprintf(dir, 64, "/tmp/params-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	int fd = open(dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(mkdirat(fd, "servers", 0755), 0);
	ck_assert_int_eq(replace_file_at(fd, "posthorn.conf", span_of(service), 0644), 0);
	ck_assert_int_eq(replace_file_at(fd, "servers/default.conf", span_of(server), 0644), 0);
	return fd;
}

static void remove_dir(int fd, const char *dir)
{
	(void)unlinkat(fd, "servers/default.conf", 0);
	(void)unlinkat(fd, "servers/other.conf", 0);
	(void)unlinkat(fd, "servers", AT_REMOVEDIR);
	(void)unlinkat(fd, "posthorn.conf", 0);
	(void)close(fd);
	(void)rmdir(dir);
}

START_TEST(every_default_is_good_and_as_the_contract_says)
{
	struct config c;
	struct complaint why;
	char dir[64];
	int fd = make_dir("", "fqdn = mx.example\ndefault_domain = example\n", dir);
	ck_assert_msg(config_load(fd, &c, &why) == 0, "%s", why.reason);
	const struct server_params *p = &c.servers[0].p;
	ck_assert_int_eq(p->out.retry_first, 900);
	ck_assert_int_eq(p->out.retry_second, 1800);
	ck_assert_int_eq(p->out.retry_third, 3600);
	ck_assert_int_eq(p->out.retry_subsequent, 14400);
	ck_assert_int_eq(p->out.delay_notification, 43200);
	ck_assert_int_eq(p->out.expiry, 172800);
	ck_assert_int_eq(p->hop_limit, 15);
	ck_assert_int_eq(p->out.recipient_limit, 100);
	ck_assert_int_eq(p->out.messages_per_connection, 20);
	ck_assert_int_eq(p->message_size_limit, 2048 * 1024);
	ck_assert_int_eq(p->session_size_limit, 10240 * 1024);
	ck_assert_int_eq(p->connection_limit, PARAM_UNLIMITED);
	ck_assert_int_eq(p->connection_timeout, 600);
	ck_assert_str_eq(p->home_directory, "/var/spool/posthorn/default");
	ck_assert_str_eq(p->local.drop_directory, "/var/spool/posthorn/default/Drop");
	config_free(&c);
	remove_dir(fd, dir);
}
END_TEST

static const struct { const char *service, *server; unsigned line; const char *says; } bad[] = {
	{"", "a = 1\n\n", 1, "unknown parameter 'a'"},
	{"", "# c\nrecipent_limit = 5\n", 2, "did you mean recipient_limit"},
	{"", "\nretry_first = 15\n", 2, "write 15m or s"},
	{"", "retry_first = 1s\n", 1, "out of range"},
	{"", "recipient_limit = 0\n", 1, "out of range"},
	{"", "relay = maybe\n", 1, "is not one of: deny allow"},
	{"", "listen = 127.0.0.1\n", 1, "ADDR:PORT"},
	{"", "relay_exceptions = 10.0.0.0/33\n", 1, "ADDR/BITS"},
	{"", "relay_exceptions = 10.0.0.0/255.0.255.0\n", 1, "ADDR/BITS"},
	{"", "expiry\n", 1, "write name = value"},
	{"", "expiry = 1h\nexpiry = 2h\n", 2, "set twice"},
	{"", " expiry = 1h\n", 1, "needs a line to continue"},
	{"", "[domain x.example]\n", 1, "type is required"},
	{"", "[domain x..example]\ntype=remote\n", 1, "no domain name"},
	{"", "[domain x.example]\ntype=local\nroute=[192.0.2.1]\n", 1, "route needs type = remote"},
	{"", "[domain x.example]\ntype=remote\nroute=[192.0.2.1],\n", 3, "| between equals"},
	{"", "[domain x.example]\ntype=remote\nroute=a.example ||  b.example\n", 3, "| between equals"},
	{"", "[domain x.example]\ntype=local\nretry_first=1h\n", 1, "retry_first needs type = remote"},
	{"", "[domain x.example]\ntype=alias\nehlo=no\n", 1, "ehlo needs type = remote"},
	{"", "[domain x.example]\ntype=remote\nlocal_delivery=mbox\n", 1, "local_delivery needs type = local"},
	{"", "[domain x.example]\ntype=remote\nmaster_user=a\n", 3, "unknown parameter"},
	{"", "local_delivery = pipe:\n", 1, "pipe:COMMAND"},
	{"", "ndr_copy_to = nobody\n", 1, "with its domain"},
	{"", "badmail_age_limit = 30\n", 1, "write 30m or s"},
	{"", "[domain x.example]\ntype=local\n[domain X.example]\ntype=local\n", 3, "twice"},
	{"", "[section x]\n", 1, "a section is"},
	{"", "home_directory = $nothing\n", 1, "is not a parameter"},
	{"", "home_directory = $home_directory\n", 1, "refers to itself"},
	{"", "session_size_limit = 1M\n", 0, "at least as much"},
	{"", "listen = 127.0.0.1:25 127.0.0.1:25\n", 0, "is named by server"},
	{"startup = never\n", "", 1, "is not one of"},
	{"[domain x.example]\n", "", 1, "server's file"},
};

START_TEST(bad_configuration_is_refused_with_its_line)
{
	struct config c;
	struct complaint why;
	char dir[64];
	int fd = make_dir(bad[_i].service, bad[_i].server, dir);
	ck_assert_msg(config_load(fd, &c, &why) != 0, "%s%s", bad[_i].service, bad[_i].server);
	ck_assert_msg(strstr(why.reason, bad[_i].says) != NULL, "%s", why.reason);
	ck_assert_msg(why.line == bad[_i].line, "line %u: %s", why.line, why.reason);
	remove_dir(fd, dir);
}
END_TEST

START_TEST(continuations_comments_and_references_are_read)
{
	struct config c;
	struct complaint why;
	char dir[64];
	int fd = make_dir("spool_directory = /s # not a comment\n", "# one\nrelay_exceptions = 192.0.2.0/24\n  # between\n\t198.51.100.7\nhome_directory = $spool_directory/x\n", dir);
	ck_assert_msg(config_load(fd, &c, &why) == 0, "%s", why.reason);
	ck_assert_str_eq(c.servers[0].p.relay_exceptions, "192.0.2.0/24 198.51.100.7");
	ck_assert_str_eq(c.servers[0].p.home_directory, "/s # not a comment/x");
	config_free(&c);
	remove_dir(fd, dir);
}
END_TEST

START_TEST(test_mode_lifts_the_lower_bounds_of_times)
{
	struct config c;
	struct complaint why;
	char dir[64];
	int fd = make_dir("test_mode = yes\n", "retry_first = 1s\n", dir);
	ck_assert_int_eq(config_load(fd, &c, &why), 0);
	config_free(&c);
	remove_dir(fd, dir);
}
END_TEST

START_TEST(two_servers_on_one_address_are_both_named)
{
	struct config c;
	struct complaint why;
	char dir[64];
	int fd = make_dir("", "listen = 127.0.0.1:25\n", dir);
	ck_assert_int_eq(replace_file_at(fd, "servers/other.conf", span_of("listen = 127.0.0.1:26 127.0.0.1:25\n"), 0644), 0);
	ck_assert_int_eq(config_load(fd, &c, &why), EADDRINUSE);
	ck_assert(strstr(why.reason, "default") != NULL && strstr(why.reason, "other") != NULL);
	remove_dir(fd, dir);
}
END_TEST

START_TEST(a_snapshot_says_the_same_as_the_files)
{
	struct config c, d;
	struct complaint why;
	struct buffer a, b;
	char dir[64];
	int fd = make_dir("", "fqdn=mx.example\n[domain *.sub.example]\ntype = remote\nroute = [192.0.2.1]:2525\n", dir);
	buffer_init(&a, 1 << 20);
	buffer_init(&b, 1 << 20);
	ck_assert_int_eq(config_load(fd, &c, &why), 0);
	config_put_snapshot(&a, &c);
	ck_assert_msg(config_parse_snapshot(buffer_span(&a), &d, &why) == 0, "%s", why.reason);
	config_put_snapshot(&b, &d);
	ck_assert(span_eq(buffer_span(&a), buffer_span(&b)));
	config_free(&c);
	config_free(&d);
	buffer_free(&a);
	buffer_free(&b);
	remove_dir(fd, dir);
}
END_TEST

static const struct { const char *before, *section, *name, *value, *after; } edits[] = {
	{"# c\na = 1\nb = 2\n", NULL, "a", "3", "# c\na = 3\nb = 2\n"},
	{"a = 1\n # in\n more\nb = 2\n", NULL, "a", "3", "a = 3\nb = 2\n"},
	{"b = 2\n\n[domain x]\nb = 5\n", NULL, "a", "3", "b = 2\na = 3\n\n[domain x]\nb = 5\n"},
	{"[domain x]\nb = 5\n", "domain x", "b", "6", "[domain x]\nb = 6\n"},
	{"a = 1\nb = 2\n", NULL, "a", NULL, "b = 2\n"},
};

START_TEST(edits_keep_comments_and_order)
{
	struct buffer out;
	buffer_init(&out, 10000);
	ck_assert_int_eq(config_edit(span_of(edits[_i].before), edits[_i].section, span_of(edits[_i].name), edits[_i].value, &out), 0);
	ck_assert_msg(span_is(buffer_span(&out), edits[_i].after), "%.*s", SPAN_ARG(buffer_span(&out)));
	buffer_free(&out);
}
END_TEST

START_TEST(client_lists_take_masks_of_each_kind)
{
	struct client_list l;
	struct span bad_word;
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = {htonl(0xc0000205)}};
	ck_assert_int_eq(client_list_parse(span_of("192.0.2.0/255.255.255.0, [2001:db8::]/32"), &l, &bad_word), 0);
	ck_assert(client_list_has(&l, (struct sockaddr *)&v4));
	v4.sin_addr.s_addr = htonl(0xc0000305);
	ck_assert(!client_list_has(&l, (struct sockaddr *)&v4));
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = {{{0x20, 0x01, 0x0d, 0xb8, 1}}}};
	ck_assert(client_list_has(&l, (struct sockaddr *)&v6));
	client_list_free(&l);
}
END_TEST

/* MISSION B5: a name in a list is a client's name or what is below it. */
static const struct { const char *text, *name; bool has; } client_names[] = {
	{"example.org", "example.org", true}, {"example.org", "MX.Example.ORG", true}, {"192.0.2.1 example.org", "a.b.example.org", true},
	{"example.org", "notexample.org", false}, {"mx.example.org", "example.org", false}, {"example.org", "example.org.evil.test", false},
	{"192.0.2.1", "192.0.2.1", false}};

START_TEST(client_lists_hold_names)
{
	struct client_list l;
	struct span bad_word;
	ck_assert_int_eq(client_list_parse(span_of(client_names[_i].text), &l, &bad_word), 0);
	ck_assert_msg(client_list_has_name(&l, span_of(client_names[_i].name)) == client_names[_i].has, "%s in %s", client_names[_i].name, client_names[_i].text);
	client_list_free(&l);
}
END_TEST

static const struct { const char *text; int result; int64_t n, seconds; } rates[] = {
	{"100/1h", 0, 100, 3600}, {"5/m", 0, 5, 60}, {"1/1h30m", 0, 1, 5400}, {"unlimited", 0, PARAM_UNLIMITED, 1},
	{"100", EINVAL, 0, 0}, {"100/", EINVAL, 0, 0}, {"/1h", EINVAL, 0, 0}, {"0/1h", EINVAL, 0, 0}, {"5/60", EINVAL, 0, 0}, {"5/0s", EINVAL, 0, 0},
	{"-1/1h", EINVAL, 0, 0}, {"unlimited/1h", EINVAL, 0, 0}, {"5/2w", EINVAL, 0, 0}, {"", EINVAL, 0, 0}};

START_TEST(rates_are_a_number_in_a_time)
{
	struct rate r = {0};
	ck_assert_int_eq(rate_parse(span_of(rates[_i].text), &r), rates[_i].result);
	ck_assert_int_eq(r.n, rates[_i].n);
	ck_assert_int_eq(r.seconds, rates[_i].seconds);
}
END_TEST

static const struct { const char *text; int result; enum nexthop_kind kind; uint16_t port; } hops[] = {
	{"[192.0.2.1]", 0, NEXTHOP_ADDRESS, 0}, {"[192.0.2.1]:25", 0, NEXTHOP_ADDRESS, 25}, {"[2001:db8::1]:26", 0, NEXTHOP_ADDRESS, 26},
	{"[mx.example]", 0, NEXTHOP_HOST, 0}, {"example", 0, NEXTHOP_MX, 0}, {"example:27", 0, NEXTHOP_MX, 27},
	{"", EINVAL, 0, 0}, {"example:0", EINVAL, 0, 0}, {"[a b]", EINVAL, 0, 0}, {"example:x", EINVAL, 0, 0},
};

START_TEST(next_hops_have_three_forms)
{
	struct nexthop h = {0};
	ck_assert_int_eq(nexthop_parse(span_of(hops[_i].text), &h), hops[_i].result);
	ck_assert_int_eq(h.kind, hops[_i].kind);
	ck_assert_uint_eq(h.port, hops[_i].port);
}
END_TEST

START_TEST(a_domain_has_its_servers_values_but_for_its_own)
{
	static const char server[] = "retry_first = 20m\nmaildir = Mail\nfqdn = mx.example\ndefault_domain = example\n"
		"[domain far.example]\ntype = remote\nexpiry = 5d\nmessages_per_connection = unlimited\n[domain plain.example]\ntype = remote\n"
		"[domain here.example]\ntype = local\nlocal_delivery = pipe:cat >$$HOME/x\n";
	struct config c, again;
	struct complaint why;
	struct buffer text;
	char dir[64];
	int fd = make_dir("", server, dir);
	ck_assert_msg(config_load(fd, &c, &why) == 0, "%s", why.reason);
	buffer_init(&text, 1 << 20);
	config_put_snapshot(&text, &c);
	ck_assert_msg(config_parse_snapshot(buffer_span(&text), &again, &why) == 0, "%s", why.reason);
	const struct config *both[] = {&c, &again}; /* also behind the snapshot that processes get */
	for (size_t i = 0; i < COUNT_OF(both); i++) {
		const struct server *s = &both[i]->servers[0];
		const struct domain *far = server_domain(s, SPAN_LIT("FAR.example")), *plain = server_domain(s, SPAN_LIT("plain.example")), *here = server_domain(s, SPAN_LIT("here.example"));
		ck_assert_int_eq(outbound_of(s, far)->expiry, 5 * 86400);
		ck_assert_int_eq(outbound_of(s, far)->retry_first, 1200);
		ck_assert_int_eq(outbound_of(s, far)->messages_per_connection, PARAM_UNLIMITED);
		ck_assert_int_eq(outbound_of(s, plain)->expiry, 2 * 86400);
		ck_assert(far->has_own && !plain->has_own && !here->has_own);
		ck_assert_ptr_eq(outbound_of(s, here), &s->p.out);
		ck_assert_ptr_eq(local_of(s, far), &s->p.local);
		ck_assert_str_eq(local_of(s, here)->local_delivery, "pipe:cat >$HOME/x");
		ck_assert_str_eq(local_of(s, here)->maildir, "Mail");
		ck_assert_str_eq(local_of(s, NULL)->local_delivery, "drop");
		ck_assert(config_runs_deliveries(both[i]));
	}
	buffer_free(&text);
	config_free(&c);
	config_free(&again);
	remove_dir(fd, dir);
}
END_TEST

Suite *suite_params(void)
{
	Suite *s = suite_create("params");
	TCase *t = tcase_create("params");
	tcase_add_test(t, every_default_is_good_and_as_the_contract_says);
	tcase_add_loop_test(t, bad_configuration_is_refused_with_its_line, 0, (int)COUNT_OF(bad));
	tcase_add_test(t, continuations_comments_and_references_are_read);
	tcase_add_test(t, test_mode_lifts_the_lower_bounds_of_times);
	tcase_add_test(t, two_servers_on_one_address_are_both_named);
	tcase_add_test(t, a_domain_has_its_servers_values_but_for_its_own);
	tcase_add_test(t, a_snapshot_says_the_same_as_the_files);
	tcase_add_loop_test(t, edits_keep_comments_and_order, 0, (int)COUNT_OF(edits));
	tcase_add_test(t, client_lists_take_masks_of_each_kind);
	tcase_add_loop_test(t, client_lists_hold_names, 0, (int)COUNT_OF(client_names));
	tcase_add_loop_test(t, rates_are_a_number_in_a_time, 0, (int)COUNT_OF(rates));
	tcase_add_loop_test(t, next_hops_have_three_forms, 0, (int)COUNT_OF(hops));
	suite_add_tcase(s, t);
	return s;
}
