/* The certificates and their keys, as master's files have them. */
#include "keyd.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void pair_free(struct pair *p)
{
	if (p == NULL)
		return;
	EVP_PKEY_free(p->key);
	X509_free(p->certificate);
	buffer_free(&p->chain);
	free(p->name);
	free(p->file);
	free(p);
}

/* What is wrong with it, NULL: nothing. */
static const char *read_pair(struct pair *p, const int fds[2])
{
	struct buffer text;
	buffer_init(&text, PEM_MOST + 1);
	int error = read_given_file(fds[0], PEM_MOST, &text);
	buffer_init(&p->chain, 2 * PEM_MOST);
	if (error == 0)
		error = tls_put_chain(&p->chain, buffer_span(&text)); /* many a file has the key as well: workers get certificates */
	buffer_wipe(&text);
	BIO *bio = error != 0 ? NULL : BIO_new_mem_buf(p->chain.at, (int)p->chain.n);
	p->certificate = bio == NULL ? NULL : tls_read_certificate(bio);
	BIO_free(bio);
	if (error != 0 && error != EINVAL)
		return strerror(error);
	if (p->certificate == NULL)
		return "no certificate in PEM";
	error = read_given_file(fds[1], PEM_MOST, &text);
	p->key = error != 0 ? NULL : tls_read_key(buffer_span(&text));
	buffer_wipe(&text);
	if (error != 0)
		return strerror(error);
	if (p->key == NULL)
		return "no key in PEM without a passphrase";
	if (EVP_PKEY_is_a(p->key, "RSA") != 1 && EVP_PKEY_is_a(p->key, "EC") != 1 && EVP_PKEY_is_a(p->key, "ED25519") != 1)
		return "a key of another kind than RSA, EC and Ed25519";
	return X509_check_private_key(p->certificate, p->key) == 1 && tls_key_id(p->key, p->id) == 0 ? NULL : "the key is not the certificate's";
}

int pairs_on_pair(struct channel *c, struct message *m)
{
	HANDLE(c, m, key_pair, said);
	struct keyd *k = c->program;
	struct pair *p = calloc(1, sizeof *p);
	if (m->fds_n != 2 || p == NULL || said.server >= k->proc.config.servers_n) {
		free(p);
		return EBADMSG;
	}
	p->server = said.server;
	p->name = strndup(said.name.at, said.name.n);
	p->file = strndup(said.file.at, said.file.n);
	const char *fault = p->name == NULL || p->file == NULL ? "no memory" : read_pair(p, m->fds);
	if (fault != NULL)
		LOG(&k->proc.log, tls_unavailable, NO_ID, F("server", span_of(k->proc.config.servers[p->server].name)), F("file", said.file), F("reason", span_of(fault)));
	p->is_bad = fault != NULL;
	if (p->name == NULL) {
		pair_free(p);
		return 0;
	}
	*k->fresh_end = p;
	k->fresh_end = &p->next;
	return 0;
}

static bool is_for(const struct pair *one, const struct pair *other)
{
	return one->server == other->server && strcmp(one->name, other->name) == 0;
}

/* An unusable file takes nothing away: where one came for a client's name, a kind of key that did not come anew stays. */
static bool stays(const struct pair *came, const struct pair *old)
{
	bool missing = false;
	for (; came != NULL; came = came->next) {
		if (!is_for(came, old))
			continue;
		missing = missing || came->is_bad;
		if (!came->is_bad && EVP_PKEY_get_base_id(came->key) == EVP_PKEY_get_base_id(old->key))
			return false;
	}
	return missing;
}

static void keep_what_has_no_successor(struct keyd *k)
{
	const struct pair *came = k->fresh;
	struct pair **p = &k->pairs, *kept = NULL;
	*k->fresh_end = NULL;
	while (*p != NULL) {
		struct pair *one = *p;
		if (!stays(came, one)) {
			p = &one->next;
			continue;
		}
		*p = one->next;
		one->next = kept;
		kept = one;
	}
	for (p = &k->fresh; *p != NULL;) {
		struct pair *one = *p;
		if (!one->is_bad) {
			p = &one->next;
			continue;
		}
		*p = one->next;
		pair_free(one);
	}
	*p = kept;
}

static bool has_key(const struct pair *list, const unsigned char id[TLS_KEY_ID])
{
	while (list != NULL && memcmp(list->id, id, TLS_KEY_ID) != 0)
		list = list->next;
	return list != NULL;
}

/* Replaced keys go when no handshake can be under way under them any more, those that have come anew at once. */
void pairs_forget(int fd, short what, void *context)
{
	static const struct timeval later = {.tv_sec = OLD_KEYS_S + 1};
	struct keyd *k = context;
	int64_t now = clock_mono_ms();
	(void)fd;
	(void)what;
	for (struct pair **p = &k->old; *p != NULL;) {
		struct pair *one = *p;
		if (now - one->gone_ms < OLD_KEYS_S * 1000 && !has_key(k->pairs, one->id)) {
			p = &one->next;
			continue;
		}
		*p = one->next;
		pair_free(one);
	}
	if (k->old != NULL)
		(void)event_add(k->forget, &later);
}

static void retire(struct keyd *k)
{
	int64_t now = clock_mono_ms();
	for (struct pair *p = k->pairs, *next; p != NULL; p = next) {
		next = p->next;
		p->gone_ms = now;
		p->next = k->old;
		k->old = p;
	}
}

void pairs_offer(struct keyd *k, struct channel *worker)
{
	if (k->generation == 0)
		return;
	for (const struct pair *p = k->pairs; p != NULL; p = p->next)
		send_key_offer(worker, (struct msg_key_offer){.server = p->server, .key = {(const char *)p->id, sizeof p->id}, .name = span_of(p->name),
			.chain = buffer_span(&p->chain)}, -1);
	send_key_offers_end(worker, (struct msg_key_offers_end){.generation = k->generation}, -1);
}

int pairs_on_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, keys_end, end);
	struct keyd *k = c->program;
	keep_what_has_no_successor(k);
	retire(k);
	k->pairs = k->fresh;
	k->fresh = NULL;
	k->fresh_end = &k->fresh;
	k->generation = end.generation;
	pairs_forget(-1, 0, k);
	for (struct channel *w = k->workers; w != NULL; w = w->next)
		pairs_offer(k, w);
	pairs_look_at_dates(-1, 0, k);
	return 0;
}

void pairs_look_at_dates(int fd, short what, void *context)
{
	struct keyd *k = context;
	(void)fd;
	(void)what;
	for (const struct pair *p = k->pairs; p != NULL; p = p->next) {
		int days = 0, seconds = 0;
		char text[60];
		if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(p->certificate)) != 1 || days >= EXPIRY_DAYS)
			continue;
		bool over = days < 0 || seconds < 0;
		(void)snprintf(text, sizeof text, over ? "it has expired" : days == 1 ? "in 1 day" : "in %d days", days);
		LOG(&k->proc.log, certificate_expires, NO_ID, F("server", span_of(k->proc.config.servers[p->server].name)), F("file", span_of(p->file)), F("when", span_of(text)));
	}
}
