/* Names of a client, each confirmed. */
#include "lookup/lookup.h"
#include "smtp/smtp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_v4(const unsigned char addr[16])
{
	static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	return memcmp(addr, mapped, sizeof mapped) == 0;
}

/* RFC 1035 3.5, RFC 3596 2.5 */
static void put_question(const unsigned char addr[16], struct buffer *b)
{
	if (is_v4(addr)) {
		buffer_printf(b, "%u.%u.%u.%u.in-addr.arpa", addr[15], addr[14], addr[13], addr[12]);
		return;
	}
	for (size_t i = 16; i-- > 0;)
		buffer_printf(b, "%x.%x.", addr[i] & 15u, addr[i] >> 4);
	buffer_puts(b, "ip6.arpa");
}

static void end(struct reverse *r, enum reverse_state state)
{
	r->state = state;
	r->done(r);
}

/* The next name that the address has: does it lead back? */
static void next_name(struct reverse *r)
{
	enum dns_kind kind = is_v4(r->addr) ? DNS_A : DNS_AAAA;
	if (r->at == r->found_n)
		end(r, REVERSE_NAMED);
	else if (!r->ask(r, kind, r->found[r->at]))
		end(r, REVERSE_FAILED);
}

static void take_names(struct reverse *r, struct span records)
{
	struct span name;
	while (r->found_n < REVERSE_NAMES_MOST && take_lspan(&records, &name)) {
		if (!domain_is_valid(name, false)) /* it would go into lines of headers and logs */
			continue;
		r->found[r->found_n] = span_dup(name);
		if (r->found[r->found_n] == NULL) {
			end(r, REVERSE_FAILED);
			return;
		}
		r->found_n++;
	}
	next_name(r);
}

static bool leads_back(const struct reverse *r, struct span records)
{
	struct span address;
	size_t n = is_v4(r->addr) ? 4 : 16;
	while (take_lspan(&records, &address))
		if (address.n == n && memcmp(address.at, r->addr + 16 - n, n) == 0)
			return true;
	return false;
}

bool reverse_begin(struct reverse *r, const struct sockaddr *client)
{
	struct buffer name;
	r->state = REVERSE_OPEN;
	r->names_n = r->found_n = r->at = 0;
	r->uncertain = false;
	buffer_init(&name, 128);
	bool asked = sockaddr_to_v6(client, r->addr) == 0;
	put_question(r->addr, &name);
	asked = asked && buffer_ok(&name) && r->ask(r, DNS_PTR, buffer_cstr(&name));
	buffer_free(&name);
	if (!asked)
		r->state = REVERSE_FAILED;
	return asked;
}

void reverse_answer(struct reverse *r, enum dns_status status, struct span records)
{
	bool failed = status == DNS_TEMPFAIL || status == DNS_BOGUS;
	if (r->state != REVERSE_OPEN)
		return;
	if (r->at < r->found_n) {
		if (status == DNS_OK && leads_back(r, records))
			r->names[r->names_n++] = r->found[r->at];
		r->uncertain = r->uncertain || failed;
		r->at++;
		next_name(r);
	} else if (status == DNS_OK) {
		take_names(r, records);
	} else {
		end(r, failed ? REVERSE_FAILED : REVERSE_NONE);
	}
}

enum listed reverse_listed(const struct client_list *l, const struct sockaddr *client, const struct reverse *names)
{
	if (client_list_has(l, client))
		return LISTED_YES;
	if (l->names_n == 0)
		return LISTED_NO;
	if (names == NULL || names->state == REVERSE_OPEN)
		return LISTED_NEEDS_NAMES;
	for (size_t i = 0; i < names->names_n; i++)
		if (client_list_has_name(l, span_of(names->names[i])))
			return LISTED_YES;
	return names->state == REVERSE_FAILED || names->uncertain ? LISTED_UNKNOWN : LISTED_NO;
}

void reverse_free(struct reverse *r)
{
	for (size_t i = 0; i < r->found_n; i++)
		free(r->found[i]);
	r->found_n = r->names_n = 0;
}
