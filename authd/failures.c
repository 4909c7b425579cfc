/* How often clients and names have failed, in tables that an attacker can't make longer than they may be. */
#include "authd.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

enum kind { OF_CLIENT = 1, OF_NAME = 2, OF_BOTH = 3 };

/* Nobody who does not know the secret can choose keys that meet. */
static void make_key(const struct login *l, enum kind kind, unsigned char out[FAILURE_KEY])
{
	unsigned char bytes[1 + 4 + 16 + sizeof l->name] = {0}, digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	size_t name_n = (kind & OF_NAME) != 0 ? strlen(l->name) : 0;
	bytes[0] = (unsigned char)kind;
	store_u32(bytes + 1, l->server);
	if ((kind & OF_CLIENT) != 0)
		memcpy(bytes + 5, l->client, 16);
	memcpy(bytes + 21, l->name, name_n);
	(void)HMAC(EVP_sha256(), l->authd->secret, LOGIN_KEY, bytes, 21 + name_n, digest, &n);
	memcpy(out, digest, FAILURE_KEY);
}

static struct failure **place_of(struct failures *t, const unsigned char key[FAILURE_KEY])
{
	struct failure **p = &t->buckets[load_u32(key) % FAILURE_BUCKETS];
	while (*p != NULL && memcmp((*p)->key, key, FAILURE_KEY) != 0)
		p = &(*p)->next;
	return p;
}

static void take_out(struct failures *t, struct failure *f)
{
	*(f->older != NULL ? &f->older->newer : &t->oldest) = f->newer;
	*(f->newer != NULL ? &f->newer->older : &t->newest) = f->older;
}

static void put_last(struct failures *t, struct failure *f)
{
	f->older = t->newest;
	f->newer = NULL;
	*(t->newest != NULL ? &t->newest->newer : &t->oldest) = f;
	t->newest = f;
}

static void forget_oldest(struct failures *t)
{
	struct failure *f = t->oldest, **p = place_of(t, f->key);
	*p = f->next;
	take_out(t, f);
	free(f);
	t->n--;
}

/* NULL: no memory. */
static struct failure *remember(struct failures *t, const unsigned char key[FAILURE_KEY])
{
	struct failure **p = place_of(t, key), *f = *p;
	if (f != NULL) {
		take_out(t, f);
		put_last(t, f);
		return f;
	}
	if (t->n >= FAILURES_MOST) {
		forget_oldest(t);
		p = place_of(t, key); /* it may have been the last of the same bucket */
	}
	f = calloc(1, sizeof *f);
	if (f == NULL)
		return NULL;
	memcpy(f->key, key, FAILURE_KEY);
	*p = f;
	put_last(t, f);
	t->n++;
	return f;
}

static bool is_over(struct login *l, enum kind kind, const struct rate *r)
{
	unsigned char key[FAILURE_KEY];
	make_key(l, kind, key);
	const struct failure *f = *place_of(&l->authd->failures, key);
	return f != NULL && r->n != PARAM_UNLIMITED && clock_mono_ms() - f->start_ms < r->seconds * 1000 && f->n >= r->n;
}

/* Whom no front knows (any more) begins no new session: error_limit suffices, and no stranger shares its count. */
static bool has_client_limit(const struct login *l)
{
	return l->client_known && !l->trusted;
}

bool failures_over(struct login *l, const char **limit)
{
	const struct auth_server *s = &l->authd->servers[l->server];
	unsigned char both[FAILURE_KEY];
	*limit = "auth_client_failure_rate";
	if (has_client_limit(l) && is_over(l, OF_CLIENT, &s->client_rate))
		return true;
	*limit = "auth_user_failure_rate";
	if (l->name[0] == '\0' || !is_over(l, OF_NAME, &s->user_rate))
		return false;
	make_key(l, OF_BOTH, both);
	return *place_of(&l->authd->known, both) == NULL;
}

static void count(struct login *l, enum kind kind, const struct rate *r)
{
	unsigned char key[FAILURE_KEY];
	int64_t now = clock_mono_ms();
	if (r->n == PARAM_UNLIMITED)
		return;
	make_key(l, kind, key);
	struct failure *f = remember(&l->authd->failures, key);
	if (f == NULL)
		return;
	if (f->n == 0 || now - f->start_ms >= r->seconds * 1000) {
		f->start_ms = now;
		f->n = 0;
	}
	f->n++;
}

void failures_count(struct login *l)
{
	const struct auth_server *s = &l->authd->servers[l->server];
	if (has_client_limit(l))
		count(l, OF_CLIENT, &s->client_rate);
	if (l->name[0] != '\0')
		count(l, OF_NAME, &s->user_rate);
}

void failures_good(struct login *l)
{
	unsigned char key[FAILURE_KEY];
	if (!l->client_known)
		return;
	make_key(l, OF_BOTH, key);
	(void)remember(&l->authd->known, key);
}
