#include "cmd/common/pair.h"

#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum { TEN_YEARS_S = 315360000 };

static X509 *make_certificate(EVP_PKEY *key, const char *name)
{
	X509 *x = X509_new();
	char alt[300];
	unsigned char serial[16];
	(void)snprintf(alt, sizeof alt, "DNS:%s", name);
	if (x == NULL || fill_random(serial, sizeof serial) != 0)
		return NULL;
	serial[0] &= 0x7f;
	BIGNUM *number = BN_bin2bn(serial, sizeof serial, NULL);
	X509_NAME *subject = X509_get_subject_name(x);
	X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alt);
	bool good = number != NULL && san != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x)) != NULL &&
		X509_set_version(x, 2) == 1 && X509_gmtime_adj(X509_getm_notBefore(x), -3600) != NULL &&
		X509_gmtime_adj(X509_getm_notAfter(x), TEN_YEARS_S) != NULL && X509_set_pubkey(x, key) == 1 &&
		X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)(strlen(name) > 64 ? "posthorn" : name), -1, -1, 0) == 1 &&
		X509_set_issuer_name(x, subject) == 1 && X509_add_ext(x, san, -1) == 1 && X509_sign(x, key, EVP_sha256()) > 0;
	BN_free(number);
	X509_EXTENSION_free(san);
	if (good)
		return x;
	X509_free(x);
	return NULL;
}

static int store(int state_fd, const char *server, const char *tail, BIO *bio, mode_t mode)
{
	char name[100], *at;
	long n = BIO_get_mem_data(bio, &at);
	(void)snprintf(name, sizeof name, "%s.%s", server, tail);
	return replace_file_at(state_fd, name, (struct span){at, (size_t)n}, mode);
}

static int make_pair(int state_fd, const struct server *s)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *crt = key == NULL ? NULL : make_certificate(key, s->p.fqdn);
	BIO *key_bio = BIO_new(BIO_s_mem()), *crt_bio = BIO_new(BIO_s_mem());
	int error = crt == NULL || key_bio == NULL || crt_bio == NULL || PEM_write_bio_X509(crt_bio, crt) != 1 ||
		PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) != 1 ? EIO : 0;
	if (error == 0)
		error = store(state_fd, s->name, "key", key_bio, 0600);
	if (error == 0)
		error = store(state_fd, s->name, "crt", crt_bio, 0644);
	BIO_free(key_bio);
	BIO_free(crt_bio);
	X509_free(crt);
	EVP_PKEY_free(key);
	return error;
}

int pair_make_missing(struct cli *c)
{
	if (mkdirat(c->dir_fd, "state", 0755) != 0 && errno != EEXIST)
		return cli_fail(c, EX_CANTCREAT, "%s/state: %s", c->dir, strerror(errno));
	int state_fd = openat(c->dir_fd, "state", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = state_fd < 0 ? errno : 0;
	for (size_t i = 0; i < c->config.servers_n && error == 0; i++) {
		const struct server *s = &c->config.servers[i];
		char name[100];
		(void)snprintf(name, sizeof name, "%s.crt", s->name);
		if (s->p.tls == 0 && s->p.tls_certificate_file[0] == '\0' && faccessat(state_fd, name, R_OK, 0) != 0)
			error = make_pair(state_fd, s);
	}
	if (state_fd >= 0)
		(void)close(state_fd);
	return error == 0 ? 0 : cli_fail(c, EX_CANTCREAT, "%s/state: the self-signed pair cannot be made: %s", c->dir, strerror(error));
}
