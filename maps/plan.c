#include "maps.h"
#include "message/message.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct step *add(struct query *q, enum step_kind kind, enum map_answered answer)
{
	if (q->n == q->size) {
		size_t size = q->size == 0 ? 16 : q->size * 2;
		struct step *more = size > STEPS_MOST ? NULL : realloc(q->steps, size * sizeof *more);
		if (more == NULL) {
			q->arena.failed = true;
			return NULL;
		}
		q->steps = more;
		q->size = size;
	}
	struct step *s = &q->steps[q->n++];
	*s = (struct step){.kind = kind, .answer = answer, .group = q->groups_n == 0 ? 0 : (uint32_t)q->groups_n - 1};
	return s;
}

static void add_map(struct maps *m, struct query *q, struct span spec, struct span key, size_t nth, enum map_answered answer, const char *param)
{
	struct source *source = source_find(m, spec);
	if (source == NULL) /* of a configuration that has just come: the next process knows it, this one must not say no */
		q->arena.failed = true;
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
	s->text = arena_span(&q->arena, span_of(text)); /* a reload may come before its turn */
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

void plan_logins(struct maps *m, struct query *q, const struct address *a, const struct domain *d)
{
	const struct server_params *p = &q->server->p;
	add_maps(m, q, p->sender_login_map, KEYS_ADDRESS, plain_local(q, a), a->domain, local_of(q->server, d)->recipient_delimiter, ANSWER_ADDRESSES, "sender_login_map");
}

/* The login, then without the domain that every login without one gets. */
void plan_secret(struct maps *m, struct query *q, struct span login)
{
	const struct server_params *p = &q->server->p;
	const char *at = memrchr(login.at, '@', login.n);
	struct span spec, texts = span_of(p->auth_map);
	bool bad;
	if (!map_spec_next(&texts, &spec, &bad))
		return;
	add_map(m, q, spec, login, 0, ANSWER_ADDRESSES, "auth_map");
	struct span domain = at == NULL ? (struct span){"", 0} : span_from(login, (size_t)(at - login.at) + 1);
	if (p->auth_default_domain[0] != '\0' && span_case_is(domain, p->auth_default_domain))
		add_map(m, q, spec, (struct span){login.at, (size_t)(at - login.at)}, 0, ANSWER_ADDRESSES, "auth_map");
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

/* ---- access, canonical addresses, headers ---- */

static struct finding *begin_group(struct query *q, bool canonical, struct span asked)
{
	if (q->groups_n == q->groups_size) {
		size_t size = q->groups_size == 0 ? 8 : q->groups_size * 2;
		struct finding *more = size > 4 * FIELDS_MOST ? NULL : realloc(q->groups, size * sizeof *more);
		if (more == NULL) {
			q->arena.failed = true;
			return NULL;
		}
		q->groups = more;
		q->groups_size = size;
	}
	struct finding *g = &q->groups[q->groups_n++];
	*g = (struct finding){.canonical = canonical, .asked = asked};
	return g;
}

static void add_key(struct maps *m, struct query *q, const char *texts, struct span key, bool part, const char *param)
{
	struct span rest = span_of(texts), spec;
	struct buffer folded;
	bool bad;
	buffer_init(&folded, MAP_KEY_MOST);
	for (size_t i = 0; i < key.n; i++)
		buffer_putc(&folded, (char)tolower((unsigned char)key.at[i]));
	while (buffer_ok(&folded) && map_spec_next(&rest, &spec, &bad))
		add_map(m, q, spec, buffer_span(&folded), part ? 1 : 0, ANSWER_FOUND, param);
	buffer_free(&folded);
}

/* 192.0.2.1, 192.0.2, 192.0, 192; 2001:db8::1 as eight groups without leading zeros, then seven and so on. */
void plan_client(struct maps *m, struct query *q, struct span address)
{
	const char *texts = q->server->p.client_access_maps;
	if (begin_group(q, false, address) == NULL)
		return;
	for (struct span key = address; key.n > 0;) {
		add_key(m, q, texts, key, key.n < address.n, "client_access_maps");
		size_t n = key.n;
		while (n > 0 && key.at[n - 1] != '.' && key.at[n - 1] != ':')
			n--;
		key.n = n > 0 ? n - 1 : 0;
	}
}

static void add_access(struct maps *m, struct query *q, const char *texts, struct span address, const char *param)
{
	struct address a;
	struct buffer key;
	if (texts[0] == '\0' || begin_group(q, false, address) == NULL)
		return;
	if (address.n == 0)
		add_key(m, q, texts, SPAN_LIT("<>"), false, param);
	if (address_parse(address, ADDRESS_UTF8, &a) != 0)
		return;
	const char *delimiter = q->server->p.local.recipient_delimiter;
	buffer_init(&key, MAP_KEY_MOST);
	struct span local = plain_local(q, &a);
	for (size_t nth = 0; map_key(KEYS_ADDRESS, local, a.domain, delimiter, nth, &key); nth++)
		if (key.at[0] != '@' || local.n == 0)
			add_key(m, q, texts, buffer_span(&key), nth > 0, param);
	for (struct span domain = a.domain; domain.n > 0;) {
		add_key(m, q, texts, domain, true, param);
		(void)span_until(&domain, '.');
	}
	buffer_clear(&key);
	buffer_printf(&key, "%.*s@", SPAN_ARG(local));
	add_key(m, q, texts, buffer_span(&key), true, param);
	buffer_free(&key);
}

static void add_canonical_keys(struct maps *m, struct query *q, const char *texts, const struct address *a, const char *param)
{
	struct buffer key;
	const char *delimiter = q->server->p.local.recipient_delimiter;
	struct span local = plain_local(q, a);
	buffer_init(&key, MAP_KEY_MOST);
	for (size_t nth = 0; map_key(KEYS_ADDRESS, local, a->domain, delimiter, nth, &key); nth++) {
		bool domain = key.at[0] == '@' && local.n > 0;
		if (domain && route_domain_is_own(q->server, a->domain))
			add_key(m, q, texts, local, true, param);
		add_key(m, q, texts, buffer_span(&key), nth > 0, param);
	}
	buffer_free(&key);
}

/* own: sender_canonical_maps or recipient_canonical_maps. */
static void add_canonical(struct maps *m, struct query *q, const char *own, const char *param, struct span address)
{
	struct address a;
	if ((own[0] == '\0' && q->server->p.canonical_maps[0] == '\0') || address_parse(address, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0 ||
		a.local.n == 0 || begin_group(q, true, address) == NULL)
		return;
	if (a.domain.n == 0)
		a.domain = span_of(q->server->p.default_domain);
	add_canonical_keys(m, q, own, &a, param);
	add_canonical_keys(m, q, q->server->p.canonical_maps, &a, "canonical_maps");
}

void plan_sender_name(struct maps *m, struct query *q, struct span address)
{
	add_canonical(m, q, q->server->p.sender_canonical_maps, "sender_canonical_maps", address);
}

void plan_recipient_name(struct maps *m, struct query *q, struct span address)
{
	add_canonical(m, q, q->server->p.recipient_canonical_maps, "recipient_canonical_maps", address);
}

void plan_sender(struct maps *m, struct query *q, struct span address)
{
	add_access(m, q, q->server->p.sender_access_maps, address, "sender_access_maps");
	plan_sender_name(m, q, address);
}

void plan_recipient_access(struct maps *m, struct query *q, struct span address)
{
	add_access(m, q, q->server->p.recipient_access_maps, address, "recipient_access_maps");
	plan_recipient_name(m, q, address);
}

/* A field on one line, as header checks see it. */
static struct span unfolded(struct query *q, struct span whole)
{
	struct buffer b;
	buffer_init(&b, MAP_KEY_MOST);
	for (size_t i = 0; i < whole.n && b.n < MAP_KEY_MOST; i++)
		if (whole.at[i] != '\r' && whole.at[i] != '\n' && whole.at[i] != '\0')
			buffer_putc(&b, whole.at[i]);
	struct span text = arena_span(&q->arena, buffer_span(&b));
	buffer_free(&b);
	return text;
}

struct in_header {
	struct maps *m;
	struct query *q;
	const char *own, *param, *field;
};

static int take_address(void *context, struct span mailbox)
{
	struct in_header *h = context;
	size_t before = h->q->groups_n;
	add_canonical(h->m, h->q, h->own, h->param, arena_span(&h->q->arena, mailbox));
	if (h->q->groups_n > before)
		h->q->groups[before].field = h->field;
	return 0;
}

/* Which canonical maps are for the addresses of a field. */
static bool field_has_addresses(const struct server_params *p, struct span name, struct in_header *h)
{
	static const char *const senders[] = {"From", "Sender", "Reply-To"}, *const recipients[] = {"To", "Cc"};
	if (name.n > 7 && span_case_eq((struct span){name.at, 7}, SPAN_LIT("Resent-")))
		name = (struct span){name.at + 7, name.n - 7};
	for (size_t i = 0; i < COUNT_OF(senders); i++) {
		if (!span_case_is(name, senders[i]))
			continue;
		h->own = p->sender_canonical_maps;
		h->param = "sender_canonical_maps";
		return true;
	}
	for (size_t i = 0; i < COUNT_OF(recipients); i++) {
		if (!span_case_is(name, recipients[i]))
			continue;
		h->own = p->recipient_canonical_maps;
		h->param = "recipient_canonical_maps";
		return true;
	}
	return false;
}

void plan_header(struct maps *m, struct query *q, struct span header)
{
	const struct server_params *p = &q->server->p;
	struct span rest = header;
	struct header_field f;
	size_t n = 0;
	while (header_next(&rest, &f)) {
		struct in_header h = {.m = m, .q = q};
		if (++n > FIELDS_MOST) {
			q->arena.failed = true;
			return;
		}
		if (p->header_checks[0] != '\0') {
			(void)begin_group(q, false, f.whole);
			struct span line = unfolded(q, f.whole), texts = span_of(p->header_checks), spec;
			bool bad;
			while (map_spec_next(&texts, &spec, &bad))
				add_map(m, q, spec, line, 0, ANSWER_FOUND, "header_checks");
		}
		h.field = f.whole.at;
		if (field_has_addresses(p, f.name, &h))
			(void)header_addresses(f.body, take_address, &h);
	}
}
