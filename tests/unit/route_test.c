#include "route/route.h"
#include "schedule/schedule.h"
#include "unit.h"

#include <string.h>

static const char snapshot[] = "!server default\nfqdn=mx.own.example\ndefault_domain=own.example\nrelay_exceptions=192.0.2.0/24\n"
	"[domain alias.example]\ntype=alias\n[domain local.example]\ntype=local\n"
	"[domain routed.example]\ntype=remote\nroute=[192.0.2.9]:2525\nrelay=yes\n[domain plain.example]\ntype=remote\n"
	"[domain closed.example]\ntype=remote\nrelay=never\n"
	"[domain *.wild.example]\ntype=remote\nroute=one.example\n[domain *.deep.wild.example]\ntype=local\n";

static const struct { const char *address; enum route_kind kind; enum route_reason reason; const char *nexthop; bool listed, other; } routes[] = {
	{"postmaster", ROUTE_LOCAL, ROUTE_BY_NO_DOMAIN, "", true, true},
	{"a@OWN.example", ROUTE_LOCAL, ROUTE_BY_DEFAULT_DOMAIN, "", true, true},
	{"a@alias.example", ROUTE_LOCAL, ROUTE_BY_ALIAS_DOMAIN, "", true, true},
	{"a@local.example", ROUTE_LOCAL, ROUTE_BY_LOCAL_DOMAIN, "", true, true},
	{"a@routed.example", ROUTE_NEXTHOP, ROUTE_BY_REMOTE_ROUTE, "[192.0.2.9]:2525", true, true},
	{"a@plain.example", ROUTE_NEXTHOP, ROUTE_BY_REMOTE_MX, "plain.example", true, false},
	{"a@closed.example", ROUTE_NEXTHOP, ROUTE_BY_REMOTE_MX, "closed.example", false, false},
	{"a@x.wild.example", ROUTE_NEXTHOP, ROUTE_BY_REMOTE_ROUTE, "one.example", true, false},
	{"a@x.deep.wild.example", ROUTE_LOCAL, ROUTE_BY_LOCAL_DOMAIN, "", true, true}, /* the longest match wins */
	{"a@wild.example", ROUTE_NEXTHOP, ROUTE_BY_MX, "wild.example", true, false},   /* below it, not itself */
	{"a@[198.51.100.1]", ROUTE_LITERAL, ROUTE_BY_LITERAL, "[198.51.100.1]", true, false},
	{"a@else.example", ROUTE_NEXTHOP, ROUTE_BY_MX, "else.example", true, false},
};

START_TEST(each_rule_of_routing_and_relaying)
{
	struct config c;
	struct complaint why;
	struct address a;
	struct route r;
	struct client_list l;
	struct span bad;
	enum relay_reason reason;
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(0xc0000201)}}, out = {.sin_family = AF_INET, .sin_addr = {htonl(0xcb007101)}};
	ck_assert_msg(config_parse_snapshot(span_of(snapshot), &c, &why) == 0, "%s", why.reason);
	ck_assert_int_eq(client_list_parse(span_of(c.servers[0].p.relay_exceptions), &l, &bad), 0);
	ck_assert_int_eq(address_parse(span_of(routes[_i].address), ADDRESS_NO_DOMAIN, &a), 0);
	route_find(&c.servers[0], &a, &r);
	ck_assert_int_eq(r.kind, routes[_i].kind);
	ck_assert_int_eq(r.reason, routes[_i].reason);
	ck_assert(span_is(r.nexthop, routes[_i].nexthop));
	ck_assert_int_eq(relay_allows(&c.servers[0], &l, (struct sockaddr *)&in, &r, &reason), routes[_i].listed);
	ck_assert_int_eq(relay_allows(&c.servers[0], &l, (struct sockaddr *)&out, &r, &reason), routes[_i].other);
	ck_assert_str_ne(route_reason_text(r.reason), "");
	c.servers[0].p.relay = 1; /* allow: the list is now of those who may not */
	if (routes[_i].reason == ROUTE_BY_MX) {
		ck_assert(!relay_allows(&c.servers[0], &l, (struct sockaddr *)&in, &r, &reason));
		ck_assert(relay_allows(&c.servers[0], &l, (struct sockaddr *)&out, &r, &reason));
	}
	client_list_free(&l);
	config_free(&c);
}
END_TEST

Suite *suite_route(void)
{
	Suite *s = suite_create("route");
	TCase *t = tcase_create("route");
	tcase_add_loop_test(t, each_rule_of_routing_and_relaying, 0, (int)COUNT_OF(routes));
	suite_add_tcase(s, t);
	return s;
}

static void defaults(struct server_params *p)
{
	memset(p, 0, sizeof *p);
	p->retry_first = 900;
	p->retry_second = 1800;
	p->retry_third = 3600;
	p->retry_subsequent = 14400;
	p->expiry = p->local_expiry = 172800;
}

START_TEST(attempts_by_default_at_0_15_45_105_345_585_minutes)
{
	static const int64_t minutes[] = {0, 15, 45, 105, 345, 585, 825};
	struct server_params p;
	int64_t offset;
	defaults(&p);
	for (size_t i = 0; i < COUNT_OF(minutes); i++)
		ck_assert_int_eq(schedule_offset(&p, i), minutes[i] * 60);
	for (size_t i = 0; i + 1 < COUNT_OF(minutes); i++) {
		/* at an attempt's own second, and at any later one, the next attempt is the one after it */
		ck_assert_uint_eq(schedule_next(&p, minutes[i] * 60, &offset), i + 1);
		ck_assert_int_eq(offset, minutes[i + 1] * 60);
		ck_assert_uint_eq(schedule_next(&p, minutes[i + 1] * 60 - 1, &offset), i + 1);
	}
}
END_TEST

static const struct { enum smtp_stage stage; int code; enum reply_fate fate; } fates[] = {
	{STAGE_CONNECT, 0, FATE_TRY_NEXT}, {STAGE_GREETING, 0, FATE_TRY_NEXT}, {STAGE_HELO, 0, FATE_TRY_NEXT}, {STAGE_DOT, 0, FATE_WAIT}, {STAGE_DATA, 0, FATE_WAIT}, {STAGE_DOT, 421, FATE_WAIT}, {STAGE_DATA, 421, FATE_TRY_NEXT},
	{STAGE_GREETING, 220, FATE_GO_ON}, {STAGE_GREETING, 250, FATE_TRY_NEXT}, {STAGE_GREETING, 421, FATE_TRY_NEXT}, {STAGE_GREETING, 554, FATE_TRY_NEXT},
	{STAGE_HELO, 250, FATE_GO_ON}, {STAGE_HELO, 550, FATE_TRY_NEXT}, {STAGE_HELO, 450, FATE_TRY_NEXT},
	{STAGE_MAIL, 250, FATE_GO_ON}, {STAGE_MAIL, 450, FATE_WAIT}, {STAGE_MAIL, 550, FATE_RETURN}, {STAGE_MAIL, 421, FATE_TRY_NEXT}, {STAGE_MAIL, 354, FATE_WAIT},
	{STAGE_RCPT, 250, FATE_GO_ON}, {STAGE_RCPT, 251, FATE_GO_ON}, {STAGE_RCPT, 450, FATE_WAIT}, {STAGE_RCPT, 552, FATE_WAIT}, {STAGE_RCPT, 550, FATE_RETURN},
	{STAGE_DATA, 354, FATE_GO_ON}, {STAGE_DATA, 250, FATE_WAIT}, {STAGE_DATA, 554, FATE_RETURN},
	{STAGE_DOT, 250, FATE_DELIVERED}, {STAGE_DOT, 354, FATE_WAIT}, {STAGE_DOT, 452, FATE_WAIT}, {STAGE_DOT, 552, FATE_RETURN}, {STAGE_DOT, 220, FATE_WAIT},
};

START_TEST(each_reply_has_its_fate)
{
	ck_assert_msg(fate_of_reply(fates[_i].stage, fates[_i].code) == fates[_i].fate, "stage %d code %d", fates[_i].stage, fates[_i].code);
}
END_TEST

Suite *suite_schedule(void)
{
	Suite *s = suite_create("schedule");
	TCase *t = tcase_create("schedule");
	tcase_add_test(t, attempts_by_default_at_0_15_45_105_345_585_minutes);
	tcase_add_loop_test(t, each_reply_has_its_fate, 0, (int)COUNT_OF(fates));
	suite_add_tcase(s, t);
	return s;
}
