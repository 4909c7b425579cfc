#include "tls/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

X509 *tls_read_certificate(BIO *bio)
{
	return PEM_read_bio_X509(bio, NULL, NULL, NULL);
}

int tls_put_chain(struct buffer *out, struct span pem)
{
	BIO *in = pem.n > INT32_MAX ? NULL : BIO_new_mem_buf(pem.at, (int)pem.n), *made = BIO_new(BIO_s_mem());
	bool good = in != NULL && made != NULL;
	size_t n = 0;
	char *text = NULL;
	for (X509 *one; good && (one = tls_read_certificate(in)) != NULL; n++) {
		good = PEM_write_bio_X509(made, one) == 1;
		X509_free(one);
	}
	long size = good ? BIO_get_mem_data(made, &text) : 0;
	if (size > 0)
		buffer_put(out, text, (size_t)size);
	BIO_free(in);
	BIO_free(made);
	ERR_clear_error();
	return !good || !buffer_ok(out) ? ENOMEM : n == 0 ? EINVAL : 0;
}

/* Nobody is there to be asked for a passphrase. */
static int no_passphrase(char *out, int size, int writing, void *context)
{
	(void)out;
	(void)size;
	(void)writing;
	(void)context;
	return -1;
}

EVP_PKEY *tls_read_key(struct span pem)
{
	BIO *bio = pem.n > INT32_MAX ? NULL : BIO_new_mem_buf(pem.at, (int)pem.n);
	EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	return key;
}

int tls_key_id(EVP_PKEY *key, unsigned char id[TLS_KEY_ID])
{
	unsigned char *der = NULL;
	int n = i2d_PUBKEY(key, &der);
	if (n <= 0)
		return EINVAL;
	(void)SHA256(der, (size_t)n, id);
	OPENSSL_free(der);
	return 0;
}
