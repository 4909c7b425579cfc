/* Where an alias leads to: addresses for a derived message, its own mailbox, commands that deliver runs. */
#include "local.h"
#include "map/map.h"
#include "message/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEADER_MOST = 256 * 1024 };

static bool runs_as_user(const struct local_params *p)
{
	struct delivery how;
	return delivery_parse(span_of(p->local_delivery), &how) == 0 && how.kind != DELIVERY_DROP && how.kind != DELIVERY_LMTP;
}

/* One address, its domain put behind it where it has none.  False: it is none. */
static bool add(struct local *l, struct local_job *j, struct span text)
{
	struct address a, own;
	char whole[800];
	if (text.n > 0 && text.at[0] == '\\')
		text = (struct span){text.at + 1, text.n - 1};
	if (address_parse(text, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0 || a.local.n == 0)
		return false;
	struct span domain = a.domain.n > 0 ? a.domain : span_of(l->server->p.default_domain);
	(void)snprintf(whole, sizeof whole, "%.*s@%.*s", SPAN_ARG(a.local), SPAN_ARG(domain));
	if (address_parse(span_of(j->address), ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &own) == 0 && span_case_eq(own.local, a.local) && span_case_is(domain, j->own_domain)) {
		j->to_mailbox = true;
		return true;
	}
	j->addresses_count++;
	buffer_printf(&j->addresses, "%s\n", whole);
	return buffer_ok(&j->addresses);
}

static void refuse(struct local *l, struct local_job *j, struct span text)
{
	char reason[400];
	(void)snprintf(reason, sizeof reason, "an alias or .forward leads to \"%.*s\", which is no address", text.n > 200 ? 200 : (int)text.n, text.at);
	for (char *p = reason; *p != '\0'; p++)
		*p = (char)((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p);
	job_fail(l, j, false, "4.3.5", reason);
}

bool expand_lines(struct local *l, struct local_job *j, struct span lines)
{
	while (lines.n > 0) {
		struct span one = span_trim(span_until(&lines, '\n'));
		if (one.n == 0 || add(l, j, one))
			continue;
		refuse(l, j, one);
		return false;
	}
	return true;
}

static void set_owner(struct local *l, struct local_job *j)
{
	struct address a;
	char text[800];
	if (address_parse(span_of(j->address), ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0)
		return;
	(void)snprintf(text, sizeof text, "owner-%.*s@%s", SPAN_ARG(a.local), j->own_domain);
	free(j->owner);
	j->owner = span_dup(span_of(text));
	(void)l;
}

/* Has the message been through this alias before? */
static bool is_loop(const struct local_job *j)
{
	struct span content = buffer_span(&j->content);
	char *bytes = NULL;
	if (j->body_fd >= 0) {
		bytes = malloc(HEADER_MOST);
		ssize_t n = bytes == NULL ? -1 : pread(j->body_fd, bytes, HEADER_MOST, 0);
		content = (struct span){bytes, n > 0 ? (size_t)n : 0};
	}
	bool found = header_has_delivered_to(content, span_of(j->address));
	free(bytes);
	return found;
}

bool expand_take(struct local *l, struct local_job *j, struct span value, bool alias, bool list)
{
	struct arena arena = {0};
	struct alias_item item;
	struct span rest = value;
	int more;
	bool runs = false, good = true;
	if (is_loop(j)) {
		job_fail(l, j, true, "5.4.6", "mail forwarding loop: the message has been through this alias before");
		return false;
	}
	if (list)
		set_owner(l, j);
	while (good && (more = alias_next(&rest, &item, &arena)) > 0) {
		bool address = item.kind == ALIAS_ADDRESS || item.kind == ALIAS_SELF;
		runs = runs || !address;
		good = (address && add(l, j, item.text)) || (!address && alias);
	}
	if (!good)
		refuse(l, j, item.text);
	else if (more < 0)
		job_fail(l, j, false, "4.3.5", "an alias is malformed (an open quote, or an empty command)");
	arena_free(&arena);
	if (!good || more < 0)
		return false;
	j->step = runs ? STEP_ALIAS : STEP_ASK;
	if (!runs)
		return true;
	/* expand says all of it anew, lists included */
	buffer_clear(&j->addresses);
	j->addresses_count = 0;
	j->to_mailbox = false;
	job_go_on(l, j);
	return false;
}

/* Drop and LMTP are others' to deliver to: the address goes first in the derived message, marked as looked up. */
static void own_address_first(struct local_job *j)
{
	struct buffer all;
	buffer_init(&all, j->addresses.limit);
	buffer_printf(&all, "\\%s\n", j->address);
	buffer_put_span(&all, buffer_span(&j->addresses));
	buffer_free(&j->addresses);
	j->addresses = all;
	j->addresses_count++;
}

static void expanded(struct local *l, struct local_job *j)
{
	j->outcome = OUTCOME_EXPANDED;
	(void)snprintf(j->enhanced, sizeof j->enhanced, "2.1.5");
	if (buffer_ok(&j->addresses) && j->addresses.n < RUN_ADDRESSES - 2000)
		job_finish(l, j);
	else
		job_fail(l, j, true, "5.2.4", "the list has more addresses than one alias may have; split it into several");
}

void expand_end(struct local *l, struct local_job *j)
{
	const struct local_params *p = job_params(l, j);
	bool found = j->addresses_count > 0 || j->to_mailbox || j->step == STEP_ALIAS, delivered = j->step == STEP_DONE;
	if (!delivered && (!found || j->to_mailbox) && runs_as_user(p)) {
		bool mbox = strcmp(p->local_delivery, "mbox") == 0;
		if (j->user == NULL && j->base == NULL) {
			job_fail(l, j, true, "5.1.1", "no user of this machine has that name");
			return;
		}
		j->step = mbox && p->forward == 1 && p->mailbox_user[0] == '\0' ? STEP_FORWARD : STEP_DELIVER;
		job_go_on(l, j);
		return;
	}
	if (!delivered && j->addresses_count == 0 && (!found || j->to_mailbox)) { /* drop and smtp deliver it */
		j->outcome = OUTCOME_PLAIN;
		job_finish(l, j);
		return;
	}
	if (!delivered && j->to_mailbox)
		own_address_first(j);
	if (j->addresses_count > 0)
		expanded(l, j);
	else
		job_finish(l, j); /* as it was delivered, or as the commands said */
}
