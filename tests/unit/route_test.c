#include "route/route.h"
#include "schedule/schedule.h"
#include "unit.h"

#include <string.h>

/* One server, with what a case adds to it. */
static const char head[] = "!server default\nfqdn=mx.own.example\ndefault_domain=own.example\nlisten=192.0.2.25:25 [2001:db8::25]:25 *:587\nrelay_exceptions=192.0.2.0/24\n";
static const char tail[] = "[domain alias.example]\ntype=alias\n[domain local.example]\ntype=local\n"
	"[domain routed.example]\ntype=remote\nroute=[192.0.2.9]:2525, b.example | c.example\nrelay=yes\n[domain plain.example]\ntype=remote\n"
	"[domain closed.example]\ntype=remote\nrelay=never\n"
	"[domain *.wild.example]\ntype=remote\nroute=one.example\n[domain *.deep.wild.example]\ntype=local\n[domain exact.wild.example]\ntype=alias\n";
static const char smart[] = "smart_host=smart.example:587\n", direct[] = "smart_host=smart.example:587\nsmart_host_direct_first=yes\n";

/* Each case names the rule that it is about. */
static const struct {
	const char *rule, *more, *address;
	enum route_kind kind;
	enum route_reason reason;
	const char *text, *section;
} routes[] = {
	{"no domain: the default domain's", "", "postmaster", ROUTE_LOCAL, ROUTE_BY_NO_DOMAIN, "", ""},
	{"no domain goes before the smart host", smart, "postmaster", ROUTE_LOCAL, ROUTE_BY_NO_DOMAIN, "", ""},
	{"the default domain, in any case", "", "a@OWN.example", ROUTE_LOCAL, ROUTE_BY_DEFAULT_DOMAIN, "", ""},
	{"a name below the default domain is not it", "", "a@x.own.example", ROUTE_NEXTHOP, ROUTE_BY_MX, "x.own.example", ""},
	{"the default domain goes before the smart host", smart, "a@own.example", ROUTE_LOCAL, ROUTE_BY_DEFAULT_DOMAIN, "", ""},
	{"an address of a listener is this server", "", "postmaster@[192.0.2.25]", ROUTE_LOCAL, ROUTE_BY_OWN_LITERAL, "", ""},
	{"so is one of IPv6", "", "postmaster@[IPv6:2001:db8:0::25]", ROUTE_LOCAL, ROUTE_BY_OWN_LITERAL, "", ""},
	{"and it goes before the smart host", smart, "postmaster@[192.0.2.25]", ROUTE_LOCAL, ROUTE_BY_OWN_LITERAL, "", ""},
	{"another address is a literal", "", "a@[192.0.2.26]", ROUTE_LITERAL, ROUTE_BY_LITERAL, "[192.0.2.26]", ""},
	{"an alias domain is local", "", "a@alias.example", ROUTE_LOCAL, ROUTE_BY_ALIAS_DOMAIN, "", "alias.example"},
	{"an alias domain goes before the smart host", direct, "a@alias.example", ROUTE_LOCAL, ROUTE_BY_ALIAS_DOMAIN, "", "alias.example"},
	{"a local domain is local", "", "a@local.example", ROUTE_LOCAL, ROUTE_BY_LOCAL_DOMAIN, "", "local.example"},
	{"a local domain goes before the smart host", smart, "a@local.example", ROUTE_LOCAL, ROUTE_BY_LOCAL_DOMAIN, "", "local.example"},
	{"a remote domain's route, whole", "", "a@routed.example", ROUTE_NEXTHOP, ROUTE_BY_REMOTE_ROUTE, "[192.0.2.9]:2525, b.example | c.example", "routed.example"},
	{"a route overrides the smart host", smart, "a@routed.example", ROUTE_NEXTHOP, ROUTE_BY_REMOTE_ROUTE, "[192.0.2.9]:2525, b.example | c.example", "routed.example"},
	{"and the smart host after the direct way", direct, "a@routed.example", ROUTE_NEXTHOP, ROUTE_BY_REMOTE_ROUTE, "[192.0.2.9]:2525, b.example | c.example", "routed.example"},
	{"a remote domain without a route: MX", "", "a@plain.example", ROUTE_NEXTHOP, ROUTE_BY_REMOTE_MX, "plain.example", "plain.example"},
	{"a remote domain without a route: the smart host", smart, "a@plain.example", ROUTE_NEXTHOP, ROUTE_BY_SMART_HOST, "smart.example:587", "plain.example"},
	{"a wildcard: all below it", "", "a@x.y.wild.example", ROUTE_NEXTHOP, ROUTE_BY_REMOTE_ROUTE, "one.example", "*.wild.example"},
	{"a wildcard's route goes before the smart host", smart, "a@x.wild.example", ROUTE_NEXTHOP, ROUTE_BY_REMOTE_ROUTE, "one.example", "*.wild.example"},
	{"a wildcard is not the name itself", "", "a@wild.example", ROUTE_NEXTHOP, ROUTE_BY_MX, "wild.example", ""},
	{"the longest wildcard wins", "", "a@x.deep.wild.example", ROUTE_LOCAL, ROUTE_BY_LOCAL_DOMAIN, "", "*.deep.wild.example"},
	{"an exact name wins over a wildcard", "", "a@exact.wild.example", ROUTE_LOCAL, ROUTE_BY_ALIAS_DOMAIN, "", "exact.wild.example"},
	{"anything else: MX", "", "a@else.example", ROUTE_NEXTHOP, ROUTE_BY_MX, "else.example", ""},
	{"anything else: the smart host", smart, "a@else.example", ROUTE_NEXTHOP, ROUTE_BY_SMART_HOST, "smart.example:587", ""},
	{"direct first: own hosts, then the smart host", direct, "a@else.example", ROUTE_NEXTHOP, ROUTE_BY_SMART_HOST_LAST, "else.example;smart.example:587", ""},
	{"direct first without a smart host is MX", "smart_host_direct_first=yes\n", "a@else.example", ROUTE_NEXTHOP, ROUTE_BY_MX, "else.example", ""},
	{"a literal goes to the smart host too", smart, "a@[198.51.100.1]", ROUTE_NEXTHOP, ROUTE_BY_SMART_HOST, "smart.example:587", ""},
	{"a literal, the smart host last", direct, "a@[198.51.100.1]", ROUTE_NEXTHOP, ROUTE_BY_SMART_HOST_LAST, "[198.51.100.1];smart.example:587", ""},
};

static void parse_with(const char *more, struct config *c)
{
	struct complaint why;
	char text[4000];
	(void)snprintf(text, sizeof text, "%s%s%s", head, more, tail);
	ck_assert_msg(config_parse_snapshot(span_of(text), c, &why) == 0, "%s", why.reason);
}

static void count_step(void *context, enum route_reason rule, bool fits)
{
	int *last = context;
	ck_assert_int_eq((int)rule, *last + 1); /* each in its order, none left out */
	*last = (int)rule;
	ck_assert(!fits || rule < ROUTE_REASON_COUNT);
}

START_TEST(each_rule_of_routing)
{
	struct config c;
	struct address a;
	struct route r;
	struct buffer text;
	int last = -1;
	const char *rule = routes[_i].rule;
	parse_with(routes[_i].more, &c);
	ck_assert_int_eq(address_parse(span_of(routes[_i].address), ADDRESS_NO_DOMAIN, &a), 0);
	route_trace(&c.servers[0], &a, &r, count_step, &last);
	buffer_init(&text, 1000);
	route_put_text(&text, &r);
	ck_assert_msg(r.kind == routes[_i].kind, "%s", rule);
	ck_assert_msg(r.reason == routes[_i].reason && last == (int)r.reason, "%s: %s", rule, route_reason_text(r.reason));
	ck_assert_msg(strcmp(buffer_cstr(&text), routes[_i].text) == 0, "%s: %s", rule, buffer_cstr(&text));
	ck_assert_msg(strcmp(r.domain == NULL ? "" : r.domain->name, routes[_i].section) == 0, "%s", rule);
	buffer_free(&text);
	config_free(&c);
}
END_TEST

/* Who may relay: in: a client of relay_exceptions, out: any other, local: no client. */
static const struct {
	const char *rule, *more, *address;
	bool in, out, local;
	enum relay_reason why_out;
} relays[] = {
	{"an own domain takes from everybody", "", "a@own.example", true, true, true, RELAY_OWN_DOMAIN},
	{"relay = yes takes from everybody", "", "a@routed.example", true, true, true, RELAY_DOMAIN_YES},
	{"an own domain also where relay = allow", "relay=allow\n", "a@own.example", true, true, true, RELAY_OWN_DOMAIN},
	{"relay = yes also from those whom relay = allow keeps out", "relay=allow\n", "a@routed.example", true, true, true, RELAY_DOMAIN_YES},
	{"relay = never takes from nobody", "relay=allow\n", "a@closed.example", false, false, false, RELAY_DOMAIN_NEVER},
	{"deny but the list", "", "a@else.example", true, false, false, RELAY_DEFAULT},
	{"allow but the list", "relay=allow\n", "a@else.example", false, true, true, RELAY_DEFAULT},
	{"relay = server leaves it to the server", "", "a@plain.example", true, false, false, RELAY_DEFAULT},
};

START_TEST(each_rule_of_relaying)
{
	struct config c;
	struct address a;
	struct route r;
	struct client_list l;
	struct span bad;
	enum relay_reason why;
	const char *rule = relays[_i].rule;
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(0xc0000201)}}, out = {.sin_family = AF_INET, .sin_addr = {htonl(0xcb007101)}};
	parse_with(relays[_i].more, &c);
	ck_assert_int_eq(client_list_parse(span_of(c.servers[0].p.relay_exceptions), &l, &bad), 0);
	ck_assert_int_eq(address_parse(span_of(relays[_i].address), ADDRESS_NO_DOMAIN, &a), 0);
	route_find(&c.servers[0], &a, &r);
	const struct relay_client from_in = {.address = (struct sockaddr *)&in}, local = {.address = NULL}, from_out = {.address = (struct sockaddr *)&out};
	ck_assert_msg(relay_decide(&c.servers[0], &l, &from_in, &r, &why) == (relays[_i].in ? RELAY_TAKEN : RELAY_REFUSED), "%s: in", rule);
	ck_assert_msg(relay_decide(&c.servers[0], &l, &local, &r, &why) == (relays[_i].local ? RELAY_TAKEN : RELAY_REFUSED), "%s: local", rule);
	ck_assert_msg(relay_decide(&c.servers[0], &l, &from_out, &r, &why) == (relays[_i].out ? RELAY_TAKEN : RELAY_REFUSED), "%s: out", rule);
	ck_assert_msg(why == relays[_i].why_out, "%s: %s", rule, relay_reason_text(why));
	client_list_free(&l);
	config_free(&c);
}
END_TEST

/* MISSION C5 whole: each mode of the list, listed or not, logged in or not, whether that counts, each kind of domain.  What
 * holds is said here as the mission says it, not as the table does. */
enum to { TO_OWN, TO_ALIAS, TO_LOCAL, TO_YES, TO_NEVER, TO_SERVER, TO_ELSE, TO_COUNT };
enum { MATRIX = 2 * 2 * 2 * 2 * TO_COUNT };

static bool mission_takes(bool allow, bool listed, bool login, bool counts, enum to to)
{
	if (to == TO_OWN || to == TO_ALIAS || to == TO_LOCAL)
		return true;
	if (to == TO_YES || to == TO_NEVER)
		return to == TO_YES;
	if (login && counts)
		return true;
	return listed ? !allow : allow;
}

START_TEST(the_matrix_of_relaying)
{
	static const char *const domains[TO_COUNT] = {"own.example", "alias.example", "local.example", "routed.example", "closed.example", "plain.example", "else.example"};
	bool allow = _i & 1, listed = _i & 2, login = _i & 4, counts = _i & 8, got;
	enum to to = (enum to)(_i / 16);
	struct config c;
	struct address a;
	struct route r;
	struct client_list l;
	struct span bad;
	enum relay_reason why;
	char more[100], address[100];
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(listed ? 0xc0000201 : 0xcb007101)}};
	const struct relay_client client = {.address = (struct sockaddr *)&sa, .logged_in = login};
	(void)snprintf(more, sizeof more, "relay=%s\nrelay_authenticated=%s\n", allow ? "allow" : "deny", counts ? "yes" : "no");
	(void)snprintf(address, sizeof address, "a@%s", domains[to]);
	parse_with(more, &c);
	ck_assert_int_eq(client_list_parse(span_of(c.servers[0].p.relay_exceptions), &l, &bad), 0);
	ck_assert_int_eq(address_parse(span_of(address), 0, &a), 0);
	route_find(&c.servers[0], &a, &r);
	got = relay_decide(&c.servers[0], &l, &client, &r, &why) == RELAY_TAKEN;
	ck_assert_msg(got == mission_takes(allow, listed, login, counts, to), "relay=%s listed=%d login=%d counts=%d %s: %s", allow ? "allow" : "deny", listed, login, counts, domains[to],
		relay_reason_text(why));
	client_list_free(&l);
	config_free(&c);
}
END_TEST

/* MISSION B5, C5: a client in a list of names, as the DNS has named it. */
static const struct {
	const char *rule, *more, *name; /* name NULL: no names have been looked up; "": it has none */
	enum reverse_state state;
	bool uncertain;
	enum relay_answer answer;
} named_clients[] = {
	{"names are asked for where they decide", "", NULL, REVERSE_NAMED, false, RELAY_NEEDS_NAMES},
	{"while they are looked up they are still asked for", "", "", REVERSE_OPEN, false, RELAY_NEEDS_NAMES},
	{"listed", "", "mx.partner.test", REVERSE_NAMED, false, RELAY_TAKEN},
	{"named, not listed", "", "mx.other.test", REVERSE_NAMED, false, RELAY_REFUSED},
	{"without a name", "", "", REVERSE_NONE, false, RELAY_REFUSED},
	{"the DNS does not say", "", "", REVERSE_FAILED, false, RELAY_UNKNOWN},
	{"nor of one of its names", "", "mx.other.test", REVERSE_NAMED, true, RELAY_UNKNOWN},
	{"what is known suffices", "", "mx.partner.test", REVERSE_NAMED, true, RELAY_TAKEN},
	{"allow but the list: listed", "relay=allow\n", "mx.partner.test", REVERSE_NAMED, false, RELAY_REFUSED},
	{"allow but the list: not listed", "relay=allow\n", "", REVERSE_NONE, false, RELAY_TAKEN},
	{"allow but the list: the DNS does not say", "relay=allow\n", "", REVERSE_FAILED, false, RELAY_UNKNOWN},
};

START_TEST(each_rule_of_relaying_by_name)
{
	struct config c;
	struct address a;
	struct route r;
	struct client_list l;
	struct span bad;
	enum relay_reason why;
	char name[64] = "";
	const bool asked = named_clients[_i].name != NULL;
	struct reverse names = {.state = named_clients[_i].state, .uncertain = named_clients[_i].uncertain, .names = {name}};
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(0xc0000201)}};
	const struct relay_client client = {.address = (struct sockaddr *)&sa, .names = asked ? &names : NULL};
	if (asked)
		(void)snprintf(name, sizeof name, "%s", named_clients[_i].name);
	names.names_n = name[0] != '\0';
	parse_with(named_clients[_i].more, &c);
	ck_assert_int_eq(client_list_parse(SPAN_LIT("198.51.100.1 partner.test"), &l, &bad), 0);
	ck_assert_int_eq(address_parse(SPAN_LIT("a@else.example"), 0, &a), 0);
	route_find(&c.servers[0], &a, &r);
	ck_assert_msg(relay_decide(&c.servers[0], &l, &client, &r, &why) == named_clients[_i].answer, "%s", named_clients[_i].rule);
	ck_assert_int_eq(address_parse(SPAN_LIT("a@own.example"), 0, &a), 0);
	route_find(&c.servers[0], &a, &r);
	ck_assert_msg(relay_decide(&c.servers[0], &l, &client, &r, &why) == RELAY_TAKEN, "%s: an own domain asks for no names", named_clients[_i].rule);
	client_list_free(&l);
	config_free(&c);
}
END_TEST

/* Whose addresses are masked, and which canonical keys are without a domain (MISSION D5, E7). */
static const struct {
	const char *rule, *domain;
	bool own;
} own_domains[] = {
	{"the default domain, in any case", "Own.example", true},
	{"an alias domain", "alias.example", true},
	{"a local domain", "local.example", true},
	{"a remote domain is not own", "plain.example", false},
	{"a domain without a section is not own", "else.example", false},
};

START_TEST(each_own_domain)
{
	struct config c;
	parse_with("", &c);
	ck_assert_msg(route_domain_is_own(&c.servers[0], span_of(own_domains[_i].domain)) == own_domains[_i].own, "%s", own_domains[_i].rule);
	config_free(&c);
}
END_TEST

/* MISSION E3, RFC 2645: who may take which domain's mail. */
static const struct { const char *rule, *node, *login; bool may; } takers[] = {
	{"a login that is named", "held.example", "alice", true},
	{"in other letters", "HELD.example", "ALICE", true},
	{"the second of several", "held.example", "bob@own.example", true},
	{"a part of a name", "held.example", "bob", false},
	{"nobody", "held.example", "", false},
	{"another's domain", "other.example", "alice", false},
	{"a domain without a section", "else.example", "alice", false},
	{"what is below one", "sub.held.example", "alice", false},
	{"below a wildcard", "x.taken.example", "alice", true},
	{"all below a wildcard", "@taken.example", "alice", true},
	{"the name of a wildcard itself", "taken.example", "alice", false},
	{"a domain that is not held", "plain.example", "alice", false},
};

START_TEST(who_may_take_mail)
{
	static const char text[] = "!server default\nfqdn=mx.own.example\ndefault_domain=own.example\nlisten=192.0.2.25:25\n"
		"[domain held.example]\ntype=remote\netrn=yes\natrn_users=alice, bob@own.example\n[domain other.example]\ntype=remote\netrn=yes\natrn_users=carol\n"
		"[domain *.taken.example]\ntype=remote\netrn=yes\natrn_users=alice\n[domain plain.example]\ntype=remote\n";
	struct config c;
	struct complaint why;
	ck_assert_msg(config_parse_snapshot(span_of(text), &c, &why) == 0, "%s", why.reason);
	ck_assert_msg(route_may_take(&c.servers[0], span_of(takers[_i].node), span_of(takers[_i].login)) == takers[_i].may, "%s", takers[_i].rule);
	config_free(&c);
}
END_TEST

/* MISSION C4: whose login goes to a next hop.  more: of the server; section: of [domain x.example], type = remote. */
static const struct { const char *rule, *more, *section, *nexthop; bool fallback; enum credentials whose; } hops[] = {
#define BASIC "outbound_auth=basic\noutbound_user=u\noutbound_password_file=/p\n"
#define OWN "route=r.example\noutbound_auth=basic\noutbound_user=o\noutbound_password_file=/o\n"
	{"nobody logs in by default", "smart_host=smart.example\n", "", "smart.example", false, CREDENTIALS_NONE},
	{"the server at the smart host", "smart_host=smart.example\n" BASIC, "", "smart.example", false, CREDENTIALS_OF_SERVER},
	{"at the smart host that is tried last", "smart_host=smart.example\nsmart_host_direct_first=yes\n" BASIC, "", "x.example", true, CREDENTIALS_OF_SERVER},
	{"not at the domain's own hosts before it", "smart_host=smart.example\nsmart_host_direct_first=yes\n" BASIC, "", "x.example", false, CREDENTIALS_NONE},
	{"not at an MX", BASIC, "", "x.example", false, CREDENTIALS_NONE},
	{"not at a domain's route", "smart_host=smart.example\n" BASIC, "route=r.example\n", "r.example", false, CREDENTIALS_NONE},
	{"a route that is the smart host is the smart host", "smart_host=smart.example\n" BASIC, "route=smart.example\n", "smart.example", false, CREDENTIALS_OF_SERVER},
	{"all: at an MX", "outbound_auth_to=all\n" BASIC, "", "x.example", false, CREDENTIALS_OF_SERVER},
	{"all: at a domain's route", "outbound_auth_to=all\n" BASIC, "route=r.example\n", "r.example", false, CREDENTIALS_OF_SERVER},
	{"all needs a login", "outbound_auth_to=all\n", "", "x.example", false, CREDENTIALS_NONE},
	{"the domain at its route", "smart_host=smart.example\n" BASIC, OWN, "r.example", false, CREDENTIALS_OF_DOMAIN},
	{"the domain not elsewhere", "", OWN, "x.example", false, CREDENTIALS_NONE},
	{"the domain not at the smart host", "smart_host=smart.example\n" BASIC, OWN, "smart.example", true, CREDENTIALS_NONE},
	{"anonymous overrides the server's, at the smart host", "smart_host=smart.example\n" BASIC, "outbound_auth=anonymous\n", "smart.example", false, CREDENTIALS_NONE},
	{"anonymous overrides all", "outbound_auth_to=all\n" BASIC, "route=r.example\noutbound_auth=anonymous\n", "r.example", false, CREDENTIALS_NONE},
};

START_TEST(whose_login_goes_where)
{
	char text[2000];
	struct config c = {0};
	struct complaint why = {0};
	(void)snprintf(text, sizeof text, "!server default\nfqdn=mx.own.example\ndefault_domain=own.example\n%s[domain x.example]\ntype=remote\n%s", hops[_i].more, hops[_i].section);
	ck_assert_msg(config_parse_snapshot(span_of(text), &c, &why) == 0, "%s", why.reason);
	const struct domain *d = server_domain(&c.servers[0], SPAN_LIT("x.example"));
	ck_assert_msg(route_credentials(&c.servers[0], d, span_of(hops[_i].nexthop), hops[_i].fallback) == hops[_i].whose, "%s", hops[_i].rule);
	config_free(&c);
}
END_TEST

/* MISSION C9, RFC 7672 2.2, RFC 8689: the level by what is asked for, by what the message demands, and by what is published: nothing,
 * with outbound_dane = no a usable record, unusable ones, a usable one; by a policy that names the host (RFC 8461), which does not matter
 * where usable records are, with outbound_mta_sts = no, or where less is asked for. */
static const struct { int64_t asked; enum tls_demand demand; enum tls_level none, no, unusable, usable, sts; } levels[] = {
	{OUT_TLS_OPPORTUNISTIC, DEMAND_NONE, LEVEL_OPPORTUNISTIC, LEVEL_OPPORTUNISTIC, LEVEL_REQUIRE, LEVEL_DANE, LEVEL_STS},
	{OUT_TLS_NONE, DEMAND_NONE, LEVEL_NONE, LEVEL_NONE, LEVEL_NONE, LEVEL_NONE, LEVEL_NONE},
	{OUT_TLS_REQUIRE, DEMAND_NONE, LEVEL_REQUIRE, LEVEL_REQUIRE, LEVEL_REQUIRE, LEVEL_DANE, LEVEL_STS},
	{OUT_TLS_VERIFY, DEMAND_NONE, LEVEL_VERIFY, LEVEL_VERIFY, LEVEL_VERIFY, LEVEL_DANE, LEVEL_STS},
	{OUT_TLS_DANE_ONLY, DEMAND_NONE, LEVEL_REFUSED, LEVEL_DANE, LEVEL_REFUSED, LEVEL_DANE, LEVEL_REFUSED},
	{OUT_TLS_OPPORTUNISTIC, DEMAND_TLS, LEVEL_VERIFY, LEVEL_DANE, LEVEL_VERIFY, LEVEL_DANE, LEVEL_STS},
	{OUT_TLS_NONE, DEMAND_TLS, LEVEL_REFUSED, LEVEL_REFUSED, LEVEL_REFUSED, LEVEL_REFUSED, LEVEL_REFUSED},
	{OUT_TLS_REQUIRE, DEMAND_TLS, LEVEL_VERIFY, LEVEL_DANE, LEVEL_VERIFY, LEVEL_DANE, LEVEL_STS},
	{OUT_TLS_VERIFY, DEMAND_TLS, LEVEL_VERIFY, LEVEL_DANE, LEVEL_VERIFY, LEVEL_DANE, LEVEL_STS},
	{OUT_TLS_DANE_ONLY, DEMAND_TLS, LEVEL_REFUSED, LEVEL_DANE, LEVEL_REFUSED, LEVEL_DANE, LEVEL_REFUSED},
	{OUT_TLS_OPPORTUNISTIC, DEMAND_LESS, LEVEL_OPPORTUNISTIC, LEVEL_OPPORTUNISTIC, LEVEL_OPPORTUNISTIC, LEVEL_OPPORTUNISTIC, LEVEL_OPPORTUNISTIC},
	{OUT_TLS_NONE, DEMAND_LESS, LEVEL_NONE, LEVEL_NONE, LEVEL_NONE, LEVEL_NONE, LEVEL_NONE},
	{OUT_TLS_REQUIRE, DEMAND_LESS, LEVEL_REQUIRE, LEVEL_REQUIRE, LEVEL_REQUIRE, LEVEL_REQUIRE, LEVEL_REQUIRE},
	{OUT_TLS_VERIFY, DEMAND_LESS, LEVEL_VERIFY, LEVEL_VERIFY, LEVEL_VERIFY, LEVEL_VERIFY, LEVEL_VERIFY},
	{OUT_TLS_DANE_ONLY, DEMAND_LESS, LEVEL_REFUSED, LEVEL_DANE, LEVEL_REFUSED, LEVEL_DANE, LEVEL_REFUSED},
};

START_TEST(each_level_of_tls)
{
	struct tlsa_set usable = {.users = 9, .usable = true}, odd = {.users = 9};
	const struct lookup_target none = {.tlsa = NULL}, one = {.tlsa = &usable}, bad = {.tlsa = &odd};
	const struct outbound_params yes = {.outbound_tls = levels[_i].asked, .outbound_dane = DANE_YES}, no = {.outbound_tls = levels[_i].asked, .outbound_dane = DANE_NO};
	ck_assert_int_eq(policy_level(&yes, levels[_i].demand, &none), levels[_i].none);
	ck_assert_int_eq(policy_level(&no, levels[_i].demand, &one), levels[_i].no);
	ck_assert_int_eq(policy_level(&yes, levels[_i].demand, &bad), levels[_i].unusable);
	ck_assert_int_eq(policy_level(&yes, levels[_i].demand, &one), levels[_i].usable);
	const struct lookup_target named = {.sts = STS_ENFORCE}, both = {.sts = STS_ENFORCE, .tlsa = &usable}, odd_too = {.sts = STS_ENFORCE, .tlsa = &odd};
	const struct outbound_params unasked = {.outbound_tls = levels[_i].asked, .outbound_mta_sts = STS_NO};
	ck_assert_int_eq(policy_level(&yes, levels[_i].demand, &named), levels[_i].sts);
	ck_assert_int_eq(policy_level(&unasked, levels[_i].demand, &named), levels[_i].none);
	ck_assert_int_eq(policy_level(&yes, levels[_i].demand, &both), levels[_i].usable == LEVEL_DANE ? LEVEL_DANE : levels[_i].sts);
	ck_assert_int_eq(policy_level(&yes, levels[_i].demand, &odd_too), levels[_i].sts == LEVEL_STS ? LEVEL_STS : levels[_i].unusable);
}
END_TEST

START_TEST(a_demand_is_the_beginning_of_its_destination)
{
	for (enum tls_demand d = DEMAND_NONE; d < DEMAND_COUNT; d++) {
		char text[60];
		(void)snprintf(text, sizeof text, "%s%s", demand_prefix(d), "a.example");
		struct span s = span_of(text);
		ck_assert_int_eq(demand_take(&s), d);
		ck_assert(span_is(s, "a.example"));
	}
	struct span bare = SPAN_LIT("requiretls:");
	ck_assert_int_eq(demand_take(&bare), DEMAND_NONE);
}
END_TEST

Suite *suite_route(void)
{
	Suite *s = suite_create("route");
	TCase *t = tcase_create("route");
	tcase_add_loop_test(t, each_rule_of_routing, 0, (int)COUNT_OF(routes));
	tcase_add_loop_test(t, each_rule_of_relaying, 0, (int)COUNT_OF(relays));
	tcase_add_loop_test(t, the_matrix_of_relaying, 0, MATRIX);
	tcase_add_loop_test(t, each_rule_of_relaying_by_name, 0, (int)COUNT_OF(named_clients));
	tcase_add_loop_test(t, who_may_take_mail, 0, (int)COUNT_OF(takers));
	tcase_add_test(t, a_demand_is_the_beginning_of_its_destination);
	tcase_add_loop_test(t, each_level_of_tls, 0, (int)COUNT_OF(levels));
	tcase_add_loop_test(t, whose_login_goes_where, 0, (int)COUNT_OF(hops));
	tcase_add_loop_test(t, each_own_domain, 0, (int)COUNT_OF(own_domains));
	suite_add_tcase(s, t);
	return s;
}

static void defaults(struct outbound_params *p)
{
	memset(p, 0, sizeof *p);
	p->retry_first = 900;
	p->retry_second = 1800;
	p->retry_third = 3600;
	p->retry_subsequent = 14400;
	p->expiry = 172800;
}

START_TEST(attempts_by_default_at_0_15_45_105_345_585_minutes)
{
	static const int64_t minutes[] = {0, 15, 45, 105, 345, 585, 825};
	struct outbound_params p;
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
	{STAGE_AUTH, 0, FATE_TRY_NEXT}, {STAGE_AUTH, 334, FATE_GO_ON}, {STAGE_AUTH, 235, FATE_GO_ON}, {STAGE_AUTH, 250, FATE_WAIT}, {STAGE_AUTH, 454, FATE_WAIT}, {STAGE_AUTH, 535, FATE_RETURN}, {STAGE_AUTH, 421, FATE_TRY_NEXT},
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
