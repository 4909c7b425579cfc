#include "cmd/common/pair.h"

#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum { DAY_S = 86400, RSA_BITS = 3072 };

EVP_PKEY *pair_make_key(const char *kind)
{
	if (strcmp(kind, "ec") == 0)
		return EVP_EC_gen("P-256");
	if (strcmp(kind, "rsa") == 0)
		return EVP_RSA_gen((unsigned)RSA_BITS);
	return strcmp(kind, "ed25519") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519") : NULL;
}

static X509_EXTENSION *alt_names(const char *const *names, size_t n)
{
	struct buffer text;
	buffer_init(&text, 64 * 1024);
	for (size_t i = 0; i < n; i++)
		buffer_printf(&text, "%s%s:%s", i > 0 ? "," : "", name_looks_like_address(span_of(names[i])) || strchr(names[i], ':') != NULL ? "IP" : "DNS", names[i]);
	X509_EXTENSION *e = buffer_ok(&text) ? X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, buffer_cstr(&text)) : NULL;
	buffer_free(&text);
	return e;
}

static bool set_subject(X509_NAME *subject, const char *name)
{
	const char *cn = strlen(name) > 64 ? "posthorn" : name; /* X.520: no longer ones */
	return X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0) == 1;
}

static const EVP_MD *digest_of(const EVP_PKEY *key)
{
	return EVP_PKEY_is_a(key, "ED25519") == 1 ? NULL : EVP_sha256();
}

X509 *pair_make_certificate(EVP_PKEY *key, const char *const *names, size_t n, long days)
{
	X509 *x = X509_new();
	unsigned char serial[16];
	if (x == NULL || fill_random(serial, sizeof serial) != 0)
		return NULL;
	serial[0] &= 0x7f;
	BIGNUM *number = BN_bin2bn(serial, sizeof serial, NULL);
	X509_NAME *subject = X509_get_subject_name(x);
	X509_EXTENSION *san = alt_names(names, n);
	bool good = number != NULL && san != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x)) != NULL &&
		X509_set_version(x, 2) == 1 && X509_gmtime_adj(X509_getm_notBefore(x), -3600) != NULL &&
		X509_gmtime_adj(X509_getm_notAfter(x), days * DAY_S) != NULL && X509_set_pubkey(x, key) == 1 &&
		set_subject(subject, names[0]) && X509_set_issuer_name(x, subject) == 1 && X509_add_ext(x, san, -1) == 1 && X509_sign(x, key, digest_of(key)) > 0;
	BN_free(number);
	X509_EXTENSION_free(san);
	if (good)
		return x;
	X509_free(x);
	return NULL;
}

X509_REQ *pair_make_request(EVP_PKEY *key, const char *const *names, size_t n)
{
	X509_REQ *r = X509_REQ_new();
	STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
	X509_EXTENSION *san = alt_names(names, n);
	bool good = r != NULL && list != NULL && san != NULL && sk_X509_EXTENSION_push(list, san) > 0 && X509_REQ_set_pubkey(r, key) == 1 &&
		set_subject(X509_REQ_get_subject_name(r), names[0]) && X509_REQ_add_extensions(r, list) == 1 && X509_REQ_sign(r, key, digest_of(key)) > 0;
	X509_EXTENSION_free(san);
	sk_X509_EXTENSION_free(list);
	if (good)
		return r;
	X509_REQ_free(r);
	return NULL;
}

static int store(const char *path, BIO *bio, mode_t mode)
{
	char folder[1200];
	char *at;
	long n = BIO_get_mem_data(bio, &at);
	const char *name = strrchr(path, '/');
	if (name == NULL || (size_t)(name - path) >= sizeof folder)
		return EINVAL;
	(void)snprintf(folder, sizeof folder, "%.*s", (int)(name - path), path);
	return cli_replace(folder, name + 1, (struct span){at, (size_t)n}, mode);
}

int pair_store_key(const char *path, EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	int error = bio == NULL || PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1 ? EIO : store(path, bio, 0600);
	BIO_free(bio);
	return error;
}

int pair_store_certificate(const char *path, X509 *crt)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int error = bio == NULL || PEM_write_bio_X509(bio, crt) != 1 ? EIO : store(path, bio, 0644);
	BIO_free(bio);
	return error;
}

static int make_pair(const struct cli *c, const struct server *s)
{
	static const struct pair_files own = {{"", 0}, {"", 0}, {"", 0}};
	char path[PAIR_PATH];
	const char *name = s->p.fqdn;
	EVP_PKEY *key = pair_make_key("ec");
	X509 *crt = key == NULL ? NULL : pair_make_certificate(key, &name, 1, PAIR_DAYS);
	int error = crt == NULL ? EIO : 0;
	server_pair_path(s, &own, c->dir, "key", path);
	if (error == 0)
		error = pair_store_key(path, key);
	server_pair_path(s, &own, c->dir, "crt", path);
	if (error == 0)
		error = pair_store_certificate(path, crt);
	X509_free(crt);
	EVP_PKEY_free(key);
	return error;
}

int pair_make_missing(struct cli *c)
{
	if (mkdirat(c->dir_fd, "state", 0755) != 0 && errno != EEXIST)
		return cli_fail(c, EX_CANTCREAT, "%s/state: %s", c->dir, strerror(errno));
	int error = 0;
	for (size_t i = 0; i < c->config.servers_n && error == 0; i++) {
		const struct server *s = &c->config.servers[i];
		char name[120];
		(void)snprintf(name, sizeof name, "state/%s.crt", s->name);
		if (s->p.tls != TLS_NONE && s->p.tls_certificate_file[0] == '\0' && faccessat(c->dir_fd, name, R_OK, 0) != 0)
			error = make_pair(c, s);
	}
	return error == 0 ? 0 : cli_fail(c, EX_CANTCREAT, "%s/state: the self-signed pair cannot be made: %s", c->dir, strerror(error));
}
