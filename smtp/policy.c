#include "smtp_agent.h"

#include <stdlib.h>
#include <string.h>

enum tls_level policy_of(const struct conn *c)
{
	return c->hop->turned || c->hop->lmtp ? LEVEL_OPPORTUNISTIC : policy_level(hop_out(c->hop), c->hop->demand, &c->target);
}

/* Records may be of no use after all, such as a whole certificate that is none: then TLS is due with whomever (RFC 7672 2.2), unless more is
 * asked for than what is published. */
static int demand_dane(struct conn *c, const struct tlsa_set *tlsa, const char *const *names, size_t n)
{
	int error = tls_demand_dane(c->ssl, tlsa->base, (struct span){tlsa->records, tlsa->n}, names, n);
	int64_t asked = hop_out(c->hop)->outbound_tls;
	if (error != ENOENT || asked == OUT_TLS_DANE_ONLY || asked == OUT_TLS_VERIFY || c->hop->demand == DEMAND_TLS)
		return error;
	SSL_set_verify(c->ssl, SSL_VERIFY_NONE, NULL);
	return 0;
}

/* Whose certificate it must be.  verify: of the next hop's domain or below it, of the host where nobody else can have named it
 * (MISSION C9, RFC 8314 5.2); DANE-TA: RFC 7672 3.2.2. */
int policy_demand(struct conn *c)
{
	const struct lookup_target *t = &c->target;
	char below[260];
	const char *names[3];
	size_t n = 0;
	(void)snprintf(below, sizeof below, ".%s", t->domain);
	names[n++] = t->domain;
	switch (policy_of(c)) {
	case LEVEL_DANE:
		return demand_dane(c, t->tlsa, names, n);
	case LEVEL_STS: /* RFC 8461 4.2 */
		names[0] = t->name;
		return tls_demand_names(c->ssl, names, 1);
	case LEVEL_VERIFY:
		if (strcmp(t->domain, t->name) != 0)
			names[n++] = below;
		if (t->named && strcmp(t->domain, t->name) != 0)
			names[n++] = t->name;
		return tls_demand_names(c->ssl, names, n);
	case LEVEL_OPPORTUNISTIC: /* what a policy in mode testing would demand is looked at alone (RFC 8461 5) */
		names[0] = t->name;
		if (t->sts == STS_TESTING && tls_demand_names(c->ssl, names, 1) == 0)
			SSL_set_verify(c->ssl, SSL_VERIFY_NONE, NULL);
		return 0;
	case LEVEL_NONE: case LEVEL_REQUIRE: case LEVEL_REFUSED:
		return 0;
	}
	return 0;
}

static X509_STORE *store_of(SSL_CTX *c)
{
	X509_STORE *s = SSL_CTX_get_cert_store(c);
	(void)X509_STORE_up_ref(s);
	return s;
}

/* Once confined no file can be opened: a reload that needs another one has this process replaced. */
static void trust(const struct agent *a, SSL_CTX **fresh, char *const *files, size_t i)
{
	size_t same = 0;
	while (same < a->tls_n && strcmp(a->tls_files[same], files[i]) != 0)
		same++;
	if (same < a->tls_n)
		SSL_CTX_set_cert_store(fresh[i], store_of(a->tls[same]));
	else if (i > 0 && strcmp(files[i], files[i - 1]) == 0)
		SSL_CTX_set_cert_store(fresh[i], store_of(fresh[i - 1]));
	else
		(void)!tls_trust_file(fresh[i], files[i]); /* without it nobody is trusted */
}

/* Of each server its own levels (MISSION C8) and authorities. */
int policy_make_contexts(struct agent *a)
{
	const struct config *config = &a->proc.config;
	SSL_CTX **fresh = calloc(config->servers_n, sizeof *fresh);
	char **files = calloc(config->servers_n, sizeof *files);
	struct complaint why;
	bool good = fresh != NULL && files != NULL;
	for (size_t i = 0; i < config->servers_n && good; i++) {
		const struct server_params *p = &config->servers[i].p;
		struct tls_levels levels = {p->tls_minimum, p->tls_ciphers, p->tls_minimum_bits};
		files[i] = strdup(p->outbound_tls_ca_file);
		fresh[i] = tls_client_context(&levels, &why);
		good = fresh[i] != NULL && files[i] != NULL;
		if (good)
			trust(a, fresh, files, i);
	}
	SSL_CTX **gone = good ? a->tls : fresh;
	char **gone_files = good ? a->tls_files : files;
	size_t gone_n = good ? a->tls_n : config->servers_n;
	for (size_t i = 0; i < gone_n; i++) {
		if (gone != NULL)
			SSL_CTX_free(gone[i]);
		if (gone_files != NULL)
			free(gone_files[i]);
	}
	free(gone);
	free(gone_files);
	if (good) {
		a->tls = fresh;
		a->tls_files = files;
		a->tls_n = config->servers_n;
	}
	return good ? 0 : ENOMEM;
}
