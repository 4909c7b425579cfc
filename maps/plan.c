#include "maps.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static struct step *add(struct query *q, enum step_kind kind, enum map_answered answer)
{
	if (q->n == STEPS_MOST)
		return NULL;
	struct step *s = &q->steps[q->n++];
	*s = (struct step){.kind = kind, .answer = answer};
	return s;
}

static void add_map(struct maps *m, struct query *q, struct span spec, struct span key, size_t nth, enum map_answered answer, const char *param)
{
	struct source *source = source_find(m, spec);
	if (source == NULL || (nth > 0 && source->whole_only))
		return;
	struct step *s = add(q, STEP_MAP, answer);
	if (s == NULL)
		return;
	s->source = source;
	s->key = arena_span(&q->arena, key);
	s->param = param;
}

/* Each key in all maps before the next key, as in Postfix. */
static void add_maps(struct maps *m, struct query *q, const char *texts, enum map_key_style style, struct span local, struct span domain,
	const char *delimiter, enum map_answered answer, const char *param)
{
	struct buffer key;
	buffer_init(&key, MAP_KEY_MOST);
	for (size_t nth = 0; texts[0] != '\0' && map_key(style, local, domain, delimiter, nth, &key); nth++) {
		struct span rest = span_of(texts), spec;
		bool bad;
		while (map_spec_next(&rest, &spec, &bad))
			add_map(m, q, spec, buffer_span(&key), nth, answer, param);
	}
	buffer_free(&key);
}

static struct span plain_local(struct query *q, const struct address *a)
{
	struct buffer b;
	buffer_init(&b, MAP_KEY_MOST);
	address_put_unquoted_local(&b, a);
	struct span local = arena_span(&q->arena, buffer_span(&b));
	buffer_free(&b);
	return local;
}

static void add_aliases(struct maps *m, struct query *q, const struct local_params *p, struct span local, struct span domain)
{
	add_maps(m, q, p->virtual_alias_maps, KEYS_ADDRESS, local, domain, p->recipient_delimiter, ANSWER_ADDRESSES, "virtual_alias_maps");
	add_maps(m, q, p->alias_maps, KEYS_ALIAS, local, domain, p->recipient_delimiter, ANSWER_ALIAS, "alias_maps");
}

static void add_users(struct query *q, const struct local_params *p, struct span local)
{
	struct buffer key;
	buffer_init(&key, MAP_KEY_MOST);
	for (size_t nth = 0; map_key(KEYS_ALIAS, local, local, p->recipient_delimiter, nth, &key); nth++) {
		struct step *s = add(q, STEP_USER, ANSWER_FOUND);
		if (s != NULL)
			s->key = arena_span(&q->arena, buffer_span(&key));
	}
	buffer_free(&key);
}

/* Whose mailbox is there.  False: everybody's. */
static bool add_mailboxes(struct maps *m, struct query *q, const struct local_params *p, struct span local, struct span domain)
{
	struct delivery how;
	bool users = delivery_parse(span_of(p->local_delivery), &how) == 0 && how.kind != DELIVERY_DROP && how.kind != DELIVERY_LMTP && p->mailbox_user[0] == '\0';
	if (!users && p->local_recipient_maps[0] == '\0')
		return false;
	add_maps(m, q, p->local_recipient_maps, KEYS_ADDRESS, local, domain, p->recipient_delimiter, ANSWER_FOUND, "local_recipient_maps");
	add_maps(m, q, p->local_recipient_maps, KEYS_ALIAS, local, domain, p->recipient_delimiter, ANSWER_FOUND, "local_recipient_maps");
	if (users)
		add_users(q, p, local);
	return true;
}

static void say(struct query *q, enum map_answered answer, const char *param, const char *text)
{
	struct step *s = add(q, STEP_SAY, answer);
	if (s == NULL)
		return;
	s->text = span_of(text);
	s->param = param;
}

void plan_expansion(struct maps *m, struct query *q, const struct address *a, const struct domain *d)
{
	const struct local_params *p = local_of(q->server, d);
	struct span local = plain_local(q, a);
	add_aliases(m, q, p, local, a->domain);
	if (p->catch_all[0] == '\0' || span_case_is(local, "postmaster"))
		return;
	size_t before = q->n;
	bool some = add_mailboxes(m, q, p, local, a->domain);
	for (size_t i = before; i < q->n; i++) /* a mailbox: it goes no further */
		q->steps[i].answer = ANSWER_NONE;
	if (some)
		say(q, ANSWER_ADDRESSES, "catch_all", p->catch_all);
}

void plan_recipient(struct maps *m, struct query *q, const struct address *a, const struct domain *d)
{
	const struct local_params *p = local_of(q->server, d);
	struct span local = plain_local(q, a);
	add_aliases(m, q, p, local, a->domain);
	for (size_t i = 0; i < q->n; i++)
		q->steps[i].answer = ANSWER_FOUND;
	if (span_case_is(local, "postmaster")) /* RFC 5321 4.5.1: always there */
		say(q, ANSWER_FOUND, "postmaster", "");
	if (p->catch_all[0] != '\0')
		say(q, ANSWER_FOUND, "catch_all", "");
	else if (!add_mailboxes(m, q, p, local, a->domain))
		say(q, ANSWER_FOUND, "local_delivery", "");
}

void plan_relay(struct maps *m, struct query *q, const struct address *a, const struct domain *d)
{
	add_maps(m, q, outbound_of(q->server, d)->relay_recipient_maps, KEYS_ADDRESS, plain_local(q, a), a->domain, "", ANSWER_FOUND, "relay_recipient_maps");
}

/* An alias NAME with an alias owner-NAME is a list: reports go to the owner. */
void plan_owner(struct maps *m, struct query *q, const struct step *found)
{
	char key[MAP_KEY_MOST + 1];
	int n = snprintf(key, sizeof key, "owner-%.*s", SPAN_ARG(found->key));
	struct span spec = span_of(found->source->spec);
	q->n = q->at = 0;
	q->asking_owner = true;
	if (n > 0 && (size_t)n < sizeof key)
		add_map(m, q, spec, (struct span){key, (size_t)n}, 0, ANSWER_FOUND, "alias_maps");
}
