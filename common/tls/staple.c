/* What an authority says of a certificate, sent with it (RFC 6066 8). */
#include "tls/tls.h"

#include <openssl/sha.h>
#include <openssl/x509.h>

static tls_stapler *stapler;

int tls_certificate_id(const X509 *certificate, unsigned char id[TLS_CERTIFICATE_ID])
{
	return X509_digest(certificate, EVP_sha256(), id, NULL) == 1 ? 0 : EINVAL;
}

static int on_status(SSL *ssl, void *context)
{
	unsigned char id[TLS_CERTIFICATE_ID];
	const X509 *certificate = SSL_get_certificate(ssl);
	(void)context;
	if (certificate == NULL || tls_certificate_id(certificate, id) != 0)
		return SSL_TLSEXT_ERR_NOACK;
	struct span said = stapler(SSL_get_app_data(ssl), id);
	unsigned char *copy = said.n == 0 ? NULL : OPENSSL_memdup(said.at, said.n);
	if (copy == NULL)
		return SSL_TLSEXT_ERR_NOACK;
	(void)SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)said.n);
	return SSL_TLSEXT_ERR_OK;
}

void tls_staple(SSL_CTX *context, tls_stapler *find)
{
	stapler = find;
	(void)SSL_CTX_set_tlsext_status_cb(context, on_status);
}
