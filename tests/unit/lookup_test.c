#include "lookup/lookup.h"
#include "unit.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* A host's name of 249 characters: below _25._tcp there is no room for it (RFC 1035 2.3.4). */
#define LABEL "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk"
#define LONG_HOST LABEL "." LABEL "." LABEL ".abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvw.example"

/* The world of all cases: "KIND NAME" and its records, or a status. */
static const struct { const char *question, *records; enum dns_status status; } world[] = {
	{"mx two.example", "10 a.example 20 b.example", DNS_OK}, {"a a.example", "192.0.2.1", DNS_OK}, {"a b.example", "192.0.2.2", DNS_OK},
	{"aaaa a.example", "2001:db8::1 2001:db8::11", DNS_OK},
	{"mx null.example", "0 .", DNS_OK}, {"mx gone.example", "", DNS_NXDOMAIN}, {"mx bogus.example", "", DNS_BOGUS}, {"mx servfail.example", "", DNS_TEMPFAIL},
	{"mx bare.example", "", DNS_NODATA}, {"a bare.example", "192.0.2.3", DNS_OK},
	{"mx empty.example", "10 nothing.example", DNS_OK}, {"mx half.example", "10 broken.example 20 b.example", DNS_OK}, {"a broken.example", "", DNS_TEMPFAIL},
	{"mx lost.example", "10 broken.example", DNS_OK},
	{"mx self.example", "10 a.example 20 mx.own.example 20 b.example", DNS_OK}, {"mx loop.example", "10 mx.own.example 20 b.example", DNS_OK},
	{"mx byaddress.example", "10 b.example 20 alias-of-me.example 30 a.example", DNS_OK}, {"a alias-of-me.example", "203.0.113.25", DNS_OK},
	{"mx onlyme.example", "10 alias-of-me.example", DNS_OK}, {"mx 192.0.2.77", "", DNS_NXDOMAIN}, {"mx 2001:db8::77", "", DNS_TEMPFAIL},
	{"a smart.example", "192.0.2.50", DNS_OK},
	/* "!": validated; "@NAME": whose the records are; TLSA: usage, selector, matching */
	{"mx safe.example", "! 10 h1.example", DNS_OK}, {"a h1.example", "! 192.0.2.61", DNS_OK}, {"aaaa h1.example", "!", DNS_NODATA}, {"tlsa _25._tcp.h1.example", "! 311 211", DNS_OK},
	{"tlsa _26._tcp.h1.example", "! 302", DNS_OK},
	{"mx unsafe.example", "10 h1.example", DNS_OK},
	{"mx half-safe.example", "! 10 a.example", DNS_OK}, {"tlsa _25._tcp.a.example", "! 311", DNS_OK},
	{"mx odd.example", "! 10 h2.example", DNS_OK}, {"a h2.example", "! 192.0.2.62", DNS_OK}, {"aaaa h2.example", "!", DNS_NODATA}, {"tlsa _25._tcp.h2.example", "! 011 111 319 391 31", DNS_OK},
	{"mx none.example", "! 10 h3.example", DNS_OK}, {"a h3.example", "! 192.0.2.63", DNS_OK}, {"aaaa h3.example", "!", DNS_NODATA}, {"tlsa _25._tcp.h3.example", "!", DNS_NXDOMAIN},
	{"mx forged.example", "! 10 h4.example 20 h3.example", DNS_OK}, {"a h4.example", "! 192.0.2.64", DNS_OK}, {"aaaa h4.example", "!", DNS_NODATA}, {"tlsa _25._tcp.h4.example", "", DNS_BOGUS},
	{"mx silent.example", "! 10 h5.example", DNS_OK}, {"a h5.example", "! 192.0.2.65", DNS_OK}, {"aaaa h5.example", "!", DNS_NODATA}, {"tlsa _25._tcp.h5.example", "", DNS_TEMPFAIL},
	{"mx plain-tlsa.example", "! 10 h6.example", DNS_OK}, {"a h6.example", "! 192.0.2.66", DNS_OK}, {"aaaa h6.example", "!", DNS_NODATA}, {"tlsa _25._tcp.h6.example", "311", DNS_OK},
	{"mx aliased.example", "! 10 h7.example", DNS_OK}, {"a h7.example", "! @real7.example 192.0.2.67", DNS_OK}, {"aaaa h7.example", "!", DNS_NODATA}, {"tlsa _25._tcp.real7.example", "! 310", DNS_OK},
	{"mx aliased-own.example", "! 10 h8.example", DNS_OK}, {"a h8.example", "! @real8.example 192.0.2.68", DNS_OK}, {"aaaa h8.example", "!", DNS_NODATA},
	{"tlsa _25._tcp.real8.example", "!", DNS_NODATA}, {"tlsa _25._tcp.h8.example", "! 200", DNS_OK},
	{"mx half-forged.example", "! 10 h9.example", DNS_OK}, {"a h9.example", "! 192.0.2.70", DNS_OK}, {"aaaa h9.example", "", DNS_BOGUS}, {"tlsa _25._tcp.h9.example", "! 311", DNS_OK},
	{"mx half-silent.example", "! 10 h10.example", DNS_OK}, {"a h10.example", "", DNS_TEMPFAIL}, {"aaaa h10.example", "! 2001:db8::a", DNS_OK}, {"tlsa _25._tcp.h10.example", "! 311", DNS_OK},
	{"mx long.example", "! 10 " LONG_HOST, DNS_OK}, {"a " LONG_HOST, "! 192.0.2.71", DNS_OK}, {"aaaa " LONG_HOST, "!", DNS_NODATA},
	{"mx nomx.example", "!", DNS_NODATA}, {"a nomx.example", "! 192.0.2.69", DNS_OK}, {"aaaa nomx.example", "!", DNS_NODATA}, {"tlsa _25._tcp.nomx.example", "! 312", DNS_OK},
};

static const struct { const char *rule, *route; enum lookup_state state; const char *outcome; } cases[] = {
	{"MX by preference; of a host IPv6 and IPv4 in turns", "two.example", LOOKUP_READY,
		"a.example[2001:db8::1]:25 a.example[192.0.2.1]:25 a.example[2001:db8::11]:25 b.example[192.0.2.2]:25"},
	{"no MX: the domain itself", "bare.example", LOOKUP_READY, "bare.example[192.0.2.3]:25"},
	{"brackets: no MX", "[a.example]:2525", LOOKUP_READY, "a.example[2001:db8::1]:2525 a.example[192.0.2.1]:2525 a.example[2001:db8::11]:2525"},
	{"an address is not looked up", "[192.0.2.9]:26", LOOKUP_READY, "192.0.2.9[192.0.2.9]:26"},
	{"an address literal of IPv6", "[IPv6:2001:db8::9]", LOOKUP_READY, "IPv6:2001:db8::9[2001:db8::9]:25"},
	{"null MX is final", "null.example", LOOKUP_FAILED, "5.1.10"},
	{"null MX is final with a smart host behind it", "null.example;[192.0.2.9]", LOOKUP_FAILED, "5.1.10"},
	{"no such domain", "gone.example", LOOKUP_FAILED, "5.1.2"},
	{"no such domain: the smart host", "gone.example;[192.0.2.9]", LOOKUP_READY, "+192.0.2.9[192.0.2.9]:25"},
	{"a bogus answer waits", "bogus.example", LOOKUP_DEFERRED, "4.7.5"},
	{"SERVFAIL waits", "servfail.example", LOOKUP_DEFERRED, "4.4.3"},
	{"SERVFAIL: the smart host", "servfail.example;[192.0.2.9]", LOOKUP_READY, "+192.0.2.9[192.0.2.9]:25"},
	{"an MX without address", "empty.example", LOOKUP_FAILED, "5.1.2"},
	{"an MX that can't be looked up now, alone", "lost.example", LOOKUP_DEFERRED, "4.4.3"},
	{"an MX that can't be looked up now, another can", "half.example", LOOKUP_READY, "b.example[192.0.2.2]:25"},
	{"MX as good as ourselves or worse are left out", "self.example", LOOKUP_READY,
		"a.example[2001:db8::1]:25 a.example[192.0.2.1]:25 a.example[2001:db8::11]:25"},
	{"we are the best MX", "loop.example", LOOKUP_FAILED, "5.4.6"},
	{"an own address counts as ourselves", "byaddress.example", LOOKUP_READY, "b.example[192.0.2.2]:25"},
	{"an own address alone is a loop", "onlyme.example", LOOKUP_FAILED, "5.4.6"},
	{"a route to ourselves is a loop", "[203.0.113.25]", LOOKUP_FAILED, "5.4.6"},
	{"another port of ours is not ourselves", "[203.0.113.25]:10025", LOOKUP_READY, "203.0.113.25[203.0.113.25]:10025"},
	{"several next hops by preference", "[192.0.2.9], bare.example", LOOKUP_READY, "192.0.2.9[192.0.2.9]:25 bare.example[192.0.2.3]:25"},
	{"the first of several is gone", "gone.example, [192.0.2.9]", LOOKUP_READY, "192.0.2.9[192.0.2.9]:25"},
	{"what is temporary hides what is for good", "gone.example, servfail.example", LOOKUP_DEFERRED, "4.4.3"},
	{"also in the other order", "servfail.example, gone.example", LOOKUP_DEFERRED, "4.4.3"},
	{"a bare IPv4 is an address when it is no name", "192.0.2.77", LOOKUP_READY, "192.0.2.77[192.0.2.77]:25"},
	{"a bare IPv6 as well", "2001:db8::77", LOOKUP_READY, "2001:db8::77[2001:db8::77]:25"},
	{"a text that is no route", "bare.example,", LOOKUP_FAILED, "5.1.2"},
	{"direct first: own hosts, then the smart host", "bare.example;[smart.example]:587", LOOKUP_READY, "bare.example[192.0.2.3]:25 +smart.example[192.0.2.50]:587"},
};

/* "311": a record of that kind, with data of the length that its matching type asks for. */
static void put_tlsa(struct buffer *b, struct span word)
{
	char raw[80] = {0};
	for (size_t i = 0; i < 3; i++)
		raw[i] = i < word.n ? (char)(word.at[i] - '0') : 0;
	raw[2] = word.n < 3 ? 1 : raw[2];
	buffer_put_lspan(b, (struct span){raw, 3u + (word.n < 3 ? 5 : raw[2] == 1 ? 32 : raw[2] == 2 ? 64 : 40)});
}

static bool answer(struct lookup *l, enum dns_kind kind, const char *name)
{
	char key[300];
	struct buffer records;
	struct span owner = {"", 0};
	bool secure = false;
	enum dns_status status = DNS_NODATA;
	buffer_init(&records, 10000);
	ck_assert_msg(strlen(name) <= 253, "a question that the resolver would not take from its peer: %s", name);
	(void)snprintf(key, sizeof key, "%s %s", kind == DNS_MX ? "mx" : kind == DNS_A ? "a" : kind == DNS_TLSA ? "tlsa" : "aaaa", name);
	for (size_t i = 0; i < COUNT_OF(world); i++) {
		struct span rest = span_of(world[i].records), word;
		if (strcmp(world[i].question, key) != 0)
			continue;
		status = world[i].status;
		while ((word = span_word(&rest, " ")).n > 0) {
			char raw[16], text[64];
			uint64_t preference;
			(void)snprintf(text, sizeof text, "%.*s", SPAN_ARG(word));
			if (text[0] == '!') {
				secure = true;
			} else if (text[0] == '@') {
				owner = span_from(word, 1);
			} else if (kind == DNS_TLSA) {
				put_tlsa(&records, word);
			} else if (kind == DNS_MX) {
				struct span host = span_word(&rest, " ");
				ck_assert_int_eq(parse_u64(word, 99, &preference), 0);
				dns_put_mx(&records, &(struct dns_mx){.preference = (uint32_t)preference, .host = span_is(host, ".") ? (struct span){"", 0} : host});
			} else if (inet_pton(kind == DNS_A ? AF_INET : AF_INET6, text, raw) == 1) {
				buffer_put_lspan(&records, (struct span){raw, kind == DNS_A ? 4 : 16});
			}
		}
	}
	lookup_answer(l, kind, &(struct dns_said){.status = status, .secure = secure, .records = buffer_span(&records), .owner = owner});
	buffer_free(&records);
	return true;
}

static void done(struct lookup *l)
{
	(*(int *)l->context)++;
}

static bool is_own(const struct lookup *l, const struct sockaddr *sa)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
	ck_assert_ptr_nonnull(l);
	return sa->sa_family == AF_INET && in->sin_addr.s_addr == htonl(0xcb007119) && in->sin_port == htons(25);
}

static void format(const struct lookup *l, struct buffer *out)
{
	for (size_t i = 0; i < l->targets_n && l->state == LOOKUP_READY; i++) {
		char text[400];
		lookup_format_target(&l->targets[i], text);
		buffer_printf(out, "%s%s%s", i > 0 ? " " : "", l->targets[i].fallback ? "+" : "", text);
	}
	if (l->state != LOOKUP_READY)
		buffer_puts(out, l->enhanced);
}

START_TEST(each_rule_of_looking_up)
{
	int ended = 0;
	struct buffer out;
	struct lookup l = {.context = &ended, .ask = answer, .done = done, .is_own = is_own, .fqdn = "mx.own.example", .default_port = 25};
	buffer_init(&out, 10000);
	for (int again = 1; again <= 2; again++) { /* the struct is good for another look-up */
		lookup_begin(&l, span_of(cases[_i].route));
		buffer_clear(&out);
		format(&l, &out);
		ck_assert_msg(ended == again, "%s: ended %d times", cases[_i].rule, ended);
		ck_assert_msg(l.state == cases[_i].state, "%s: %s", cases[_i].rule, l.reason);
		ck_assert_msg(strcmp(buffer_cstr(&out), cases[_i].outcome) == 0, "%s: %s", cases[_i].rule, buffer_cstr(&out));
	}
	lookup_free(&l);
	buffer_free(&out);
}
END_TEST

/* RFC 7672: when TLSA records count.  "base+n": below which name, how many bytes of records are of use; "named": nobody else can have
 * put the host's name there. */
static const struct { const char *rule, *route, *outcome; bool dane; } safe[] = {
	{"all validated: DANE-EE and DANE-TA", "safe.example", "h1.example+78 named", true},
	{"not asked for", "safe.example", "none named", false},
	{"2.2.1: an MX that is not validated", "unsafe.example", "none", true},
	{"2.2.2: addresses that are not", "half-safe.example", "none named none named none named", true},
	{"a host that the route names, at its port", "[h1.example]:26", "h1.example+71 named", true},
	{"3.1.3: PKIX-TA, PKIX-EE, unknown selector and matching type, wrong length: none of use", "odd.example", "h2.example+0 named", true},
	{"2.1.3: validated that there are none", "none.example", "none named", true},
	{"2.1.2: a bogus answer leaves the host out, the next one is tried", "forged.example", "none named", true},
	{"2.1.2: no answer, and no other host", "silent.example", "4.7.5", true},
	{"2.1: records that are not validated are none", "plain-tlsa.example", "none named", true},
	{"2.2.2: below what the host is an alias of", "aliased.example", "real7.example+47 named", true},
	{"2.2.2: else below its own name", "aliased-own.example", "h8.example+47 named", true},
	{"2.2.2: who forges the answer for one family gets no weaker TLS by it", "half-forged.example", "h9.example+39 named", true},
	{"2.2.2: nor who suppresses it", "half-silent.example", "h10.example+39 named", true},
	{"2.2.1: validated that there is no MX", "nomx.example", "nomx.example+71 named", true},
	{"a name that is too long for TLSA records to be below it has none", "long.example", "none named", true},
	{"an address has none", "[192.0.2.9]", "none named", true},
};

START_TEST(each_rule_of_tlsa)
{
	int ended = 0;
	struct buffer out;
	struct lookup l = {.context = &ended, .ask = answer, .done = done, .is_own = is_own, .fqdn = "mx.own.example", .default_port = 25, .dane = safe[_i].dane};
	buffer_init(&out, 10000);
	for (int again = 1; again <= 2; again++) {
		lookup_begin(&l, span_of(safe[_i].route));
		buffer_clear(&out);
		for (size_t i = 0; i < l.targets_n; i++) {
			const struct tlsa_set *t = l.targets[i].tlsa;
			buffer_puts(&out, i > 0 ? " " : "");
			if (t == NULL)
				buffer_puts(&out, "none");
			else
				buffer_printf(&out, "%s+%zu", t->base, t->n);
			ck_assert(t == NULL || t->usable == (t->n > 0));
			buffer_puts(&out, l.targets[i].named ? " named" : "");
		}
		if (l.state != LOOKUP_READY)
			buffer_puts(&out, l.enhanced);
		ck_assert_msg(strcmp(buffer_cstr(&out), safe[_i].outcome) == 0, "%s: %s", safe[_i].rule, buffer_cstr(&out));
	}
	struct tlsa_set *held = l.targets_n > 0 ? tlsa_hold(l.targets[0].tlsa) : NULL;
	lookup_free(&l);
	ck_assert(held == NULL || held->base[0] != '\0'); /* a connection has it still */
	tlsa_drop(held);
	buffer_free(&out);
}
END_TEST

/* RFC 8461 4.1, 5: what a policy does to the hosts.  policy: the mode and the names; "away": it can't be asked for. */
static const struct { const char *rule, *route, *policy, *outcome; } policies[] = {
	{"no policy", "two.example", "none", "a.example a.example a.example b.example"},
	{"only hosts that are named, which have to show it", "two.example", "enforce b.example", "b.example!"},
	{"in their order", "two.example", "enforce *.example", "a.example! a.example! a.example! b.example!"},
	{"none is named", "two.example", "enforce c.example", "4.7.5 none of the next hop's MX hosts is one that its MTA-STS policy (enforce) names"},
	{"none is named: what comes after is tried", "two.example;[192.0.2.9]", "enforce c.example", "192.0.2.9"},
	{"testing leaves none out", "two.example", "testing c.example", "a.example a.example a.example b.example"},
	{"the domain itself, without an MX", "bare.example", "enforce bare.example", "bare.example!"},
	{"it can't be told", "two.example", "unknown", "4.7.5 the next hop's MTA-STS policy cannot be told now"},
	{"it can't be asked for", "two.example", "away", "4.7.5 the next hop's MTA-STS policy cannot be asked for now"},
	{"a host that the route names has no MX, so no policy", "[a.example]", "away", "a.example a.example a.example"},
	{"each step has its own: the next one is free of it", "two.example, [b.example]", "enforce a.example", "a.example! a.example! a.example! b.example"},
};

struct sts_world {
	int ended;
	const char *policy;
};

static bool answer_policy(struct lookup *l, const char *domain)
{
	const struct sts_world *w = l->context;
	struct span rest = span_of(w->policy), mode = span_word(&rest, " "), host;
	struct sts_said said = {.mode = STS_NONE};
	struct buffer mx;
	ck_assert_msg(strcmp(domain, "two.example") == 0 || strcmp(domain, "bare.example") == 0, "%s", domain);
	if (span_is(mode, "away"))
		return false;
	buffer_init(&mx, 1000);
	while (!span_is(mode, sts_mode_name(said.mode)))
		said.mode++;
	while ((host = span_word(&rest, " ")).n > 0)
		buffer_put_lspan(&mx, host);
	said.mx = buffer_span(&mx);
	lookup_sts(l, &said);
	buffer_free(&mx);
	return true;
}

START_TEST(each_rule_of_sts)
{
	struct sts_world w = {.policy = policies[_i].policy};
	struct buffer out;
	struct lookup l = {.context = &w, .ask = answer, .ask_sts = answer_policy, .done = done, .is_own = is_own, .fqdn = "mx.own.example", .default_port = 25, .sts = true};
	buffer_init(&out, 10000);
	lookup_begin(&l, span_of(policies[_i].route));
	ck_assert_int_eq(w.ended, 1);
	for (size_t i = 0; i < l.targets_n; i++)
		buffer_printf(&out, "%s%s%s", i > 0 ? " " : "", l.targets[i].name, l.targets[i].sts == STS_ENFORCE ? "!" : "");
	if (l.state != LOOKUP_READY)
		buffer_printf(&out, "%s %s", l.enhanced, l.reason);
	ck_assert_msg(strcmp(buffer_cstr(&out), policies[_i].outcome) == 0, "%s: %s", policies[_i].rule, buffer_cstr(&out));
	lookup_free(&l);
	buffer_free(&out);
}
END_TEST

static void keep_note(struct lookup *l, const char *text)
{
	struct buffer *notes = *((struct buffer **)l->context + 1);
	buffer_printf(notes, "%s|", text);
}

/* What people are told: each fact once. */
START_TEST(what_is_noted)
{
	static const struct { const char *route, *notes; } told[] = {
		{"onlyme.example", "MX 10 alias-of-me.example|alias-of-me.example is this server: it and all that are no better are left out|"
			"mail for the destination loops back to this server|"},
		{"192.0.2.77", "192.0.2.77 is no name: taken as an address|"},
		{"two.example", "MX 10 a.example|MX 20 b.example|"},
		{"empty.example", "MX 10 nothing.example|nothing.example has no address|the next hop has no address|"},
		{"bare.example", "no MX: bare.example itself|"},
	};
	struct buffer notes;
	struct { int ended; struct buffer *notes; } context = {0, &notes};
	buffer_init(&notes, 10000);
	for (size_t i = 0; i < COUNT_OF(told); i++) {
		struct lookup l = {.context = &context, .ask = answer, .done = done, .is_own = is_own, .note = keep_note, .fqdn = "mx.own.example", .default_port = 25};
		buffer_clear(&notes);
		lookup_begin(&l, span_of(told[i].route));
		ck_assert_str_eq(buffer_cstr(&notes), told[i].notes);
		lookup_free(&l);
	}
	buffer_free(&notes);
}
END_TEST

static bool wrong_sizes(struct lookup *l, enum dns_kind kind, const char *name)
{
	static const char bytes[] = {16, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 4, 0, 0, 0, 1, 2, 3, 4};
	ck_assert_str_eq(name, "host.example");
	lookup_answer(l, kind, &(struct dns_said){.status = DNS_OK, .records = {bytes, sizeof bytes}});
	return true;
}

START_TEST(an_address_is_taken_by_its_family_and_size)
{
	int ended = 0;
	struct lookup l = {.context = &ended, .ask = wrong_sizes, .done = done, .fqdn = "mx.own.example", .default_port = 25};
	lookup_begin(&l, SPAN_LIT("[host.example]"));
	ck_assert_int_eq(l.state, LOOKUP_READY);
	ck_assert_uint_eq(l.targets_n, 2);
	ck_assert_int_eq(l.targets[0].addr.ss_family, AF_INET6);
	ck_assert_int_eq(l.targets[1].addr.ss_family, AF_INET);
	lookup_free(&l);
}
END_TEST

/* a | b: each comes first now and then, both always before c. */
START_TEST(equal_next_hops_are_drawn_by_lot)
{
	int ended = 0;
	unsigned first_a = 0;
	struct lookup l = {.context = &ended, .ask = answer, .done = done, .fqdn = "mx.own.example", .default_port = 25};
	for (int i = 0; i < 100; i++) {
		lookup_begin(&l, SPAN_LIT("[192.0.2.1] | [192.0.2.2], [192.0.2.3]"));
		ck_assert_uint_eq(l.targets_n, 3);
		ck_assert_str_eq(l.targets[2].name, "192.0.2.3");
		first_a += strcmp(l.targets[0].name, "192.0.2.1") == 0;
	}
	ck_assert_uint_gt(first_a, 10);
	ck_assert_uint_lt(first_a, 90);
	lookup_free(&l);
}
END_TEST

static bool no_resolver(struct lookup *l, enum dns_kind kind, const char *name)
{
	ck_assert(l != NULL && kind != 0 && name != NULL);
	return false;
}

START_TEST(without_a_resolver_it_waits)
{
	int ended = 0;
	struct lookup l = {.context = &ended, .ask = no_resolver, .done = done, .fqdn = "mx.own.example", .default_port = 25};
	lookup_begin(&l, SPAN_LIT("two.example"));
	ck_assert_int_eq(l.state, LOOKUP_DEFERRED);
	lookup_begin(&l, SPAN_LIT("[a.example]"));
	ck_assert_int_eq(l.state, LOOKUP_DEFERRED);
	ck_assert_int_eq(ended, 2);
	lookup_free(&l);
}
END_TEST

Suite *suite_lookup(void)
{
	Suite *s = suite_create("lookup");
	TCase *t = tcase_create("lookup");
	tcase_add_loop_test(t, each_rule_of_tlsa, 0, (int)COUNT_OF(safe));
	tcase_add_loop_test(t, each_rule_of_sts, 0, (int)COUNT_OF(policies));
	tcase_add_loop_test(t, each_rule_of_looking_up, 0, (int)COUNT_OF(cases));
	tcase_add_test(t, what_is_noted);
	tcase_add_test(t, an_address_is_taken_by_its_family_and_size);
	tcase_add_test(t, equal_next_hops_are_drawn_by_lot);
	tcase_add_test(t, without_a_resolver_it_waits);
	suite_add_tcase(s, t);
	return s;
}
