/* Mail that is held until the domain's own server asks for it (RFC 1985, MISSION E3). */
#include "qmgr.h"

#include <stdlib.h>
#include <string.h>

bool etrn_covers(struct span node, struct span domain)
{
	if (node.n == 0 || node.at[0] != '@')
		return span_case_eq(node, domain);
	node = (struct span){node.at + 1, node.n - 1};
	return span_case_eq(node, domain) || (domain.n > node.n && span_ends_case(domain, node) && domain.at[domain.n - node.n - 1] == '.');
}

bool etrn_is_open(const struct qmgr *q, struct span domain)
{
	int64_t now = clock_mono_ms();
	for (const struct opened *o = q->opened; o != NULL; o = o->next)
		if (o->until_ms > now && etrn_covers(span_of(o->node), domain))
			return true;
	return false;
}

bool etrn_has_mail(const struct row *row, struct span node)
{
	struct span rest = row->rcpts, address, reason;
	uint8_t state;
	struct address a;
	while (take_u8(&rest, &state) && take_lspan(&rest, &address) && take_lspan(&rest, &reason))
		if (state < RCPT_OWED && address_parse(address, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) == 0 && etrn_covers(node, a.domain))
			return true;
	return false;
}

/* Is mail held for it?  At most so many nodes at a time: each looks through all that waits. */
static bool is_held_node(const struct qmgr *q, struct span node)
{
	const struct domain *d = route_node_section(q->server, node);
	size_t n = 0;
	for (const struct opened *o = q->opened; o != NULL; o = o->next)
		n++;
	return n < ETRN_NODES_MOST && d != NULL && d->p.type == DOMAIN_REMOTE && d->p.etrn == 1;
}

static struct opened *find_or_make(struct qmgr *q, struct span node)
{
	int64_t now = clock_mono_ms();
	for (struct opened **p = &q->opened; *p != NULL;) {
		struct opened *o = *p;
		if (span_case_is(node, o->node))
			return o;
		if (o->until_ms > now) {
			p = &o->next;
			continue;
		}
		*p = o->next;
		free(o->node);
		free(o);
	}
	struct opened *o = is_held_node(q, node) ? calloc(1, sizeof *o) : NULL;
	char *text = span_dup(node);
	if (o == NULL || text == NULL) {
		free(o);
		free(text);
		return NULL;
	}
	*o = (struct opened){.node = text, .next = q->opened};
	q->opened = o;
	return o;
}

int etrn_on_etrn(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, etrn, asked);
	struct qmgr *q = ch->program;
	struct opened *o = find_or_make(q, asked.node);
	char text[32];
	if (o == NULL || o->until_ms > clock_mono_ms()) /* it goes out already */
		return 0;
	o->until_ms = clock_mono_ms() + ETRN_OPEN_MS;
	(void)snprintf(text, sizeof text, "%llu", (unsigned long long)wait_make_due(q, etrn_has_mail, asked.node));
	LOG(&q->proc.log, etrn_started, NO_ID, F("node", asked.node), F("messages", span_of(text)));
	return 0;
}
