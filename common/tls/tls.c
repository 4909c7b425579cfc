#include "tls/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

const char *tls_error_text(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_error());
	return text == NULL ? "unknown error" : text;
}

static SSL_CTX *make_context(const SSL_METHOD *method, struct complaint *why)
{
	SSL_CTX *c = SSL_CTX_new(method);
	if (c == NULL) {
		complain(why, "tls", 0, "%s", tls_error_text());
		return NULL;
	}
	(void)SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
	(void)SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	(void)SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_num_tickets(c, 1); /* one: see the platform's Nagle trap */
	(void)SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	unsigned char warm[1];
	(void)RAND_bytes(warm, sizeof warm); /* opened before the confinement */
	return c;
}

static int use_chain(SSL_CTX *c, struct span pem)
{
	BIO *bio = BIO_new_mem_buf(pem.at, (int)pem.n);
	X509 *cert = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);
	int good = cert != NULL && SSL_CTX_use_certificate(c, cert) == 1;
	X509_free(cert);
	while (good) {
		X509 *more = PEM_read_bio_X509(bio, NULL, NULL, NULL);
		if (more == NULL)
			break;
		good = SSL_CTX_add0_chain_cert(c, more) == 1;
	}
	BIO_free(bio);
	return good;
}

static int use_key(SSL_CTX *c, struct span pem)
{
	BIO *bio = BIO_new_mem_buf(pem.at, (int)pem.n);
	EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
	int good = key != NULL && SSL_CTX_use_PrivateKey(c, key) == 1 && SSL_CTX_check_private_key(c) == 1;
	EVP_PKEY_free(key);
	BIO_free(bio);
	return good;
}

SSL_CTX *tls_server_context(struct span certificate, struct span key, struct complaint *why)
{
	SSL_CTX *c = make_context(TLS_server_method(), why);
	if (c == NULL)
		return NULL;
	ERR_clear_error();
	if (!use_chain(c, certificate)) {
		complain(why, "tls_certificate_file", 0, "no usable certificate: %s", tls_error_text());
	} else if (ERR_clear_error(), !use_key(c, key)) {
		complain(why, "tls_key_file", 0, "no usable key for the certificate: %s", tls_error_text());
	} else {
		ERR_clear_error();
		return c;
	}
	SSL_CTX_free(c);
	return NULL;
}

SSL_CTX *tls_client_context(struct complaint *why)
{
	SSL_CTX *c = make_context(TLS_client_method(), why);
	if (c != NULL)
		SSL_CTX_set_verify(c, SSL_VERIFY_NONE, NULL); /* opportunistic: RFC 7435 */
	return c;
}

SSL *tls_session(SSL_CTX *context, int fd, bool server)
{
	SSL *s = SSL_new(context);
	if (s == NULL)
		return NULL;
	if (SSL_set_fd(s, fd) != 1) {
		SSL_free(s);
		return NULL;
	}
	if (server)
		SSL_set_accept_state(s);
	else
		SSL_set_connect_state(s);
	return s;
}

void tls_free(SSL *ssl)
{
	if (ssl == NULL)
		return;
	ERR_clear_error();
	if (SSL_is_init_finished(ssl))
		(void)SSL_shutdown(ssl);
	ERR_clear_error();
	SSL_free(ssl);
}

static enum tls_result result_of(SSL *ssl, int done)
{
	switch (SSL_get_error(ssl, done)) {
	case SSL_ERROR_NONE: return TLS_OK;
	case SSL_ERROR_WANT_READ: return TLS_WANT_READ;
	case SSL_ERROR_WANT_WRITE: return TLS_WANT_WRITE;
	case SSL_ERROR_ZERO_RETURN: return TLS_CLOSED;
	default: return TLS_FAILED;
	}
}

enum tls_result tls_handshake(SSL *ssl)
{
	ERR_clear_error();
	return result_of(ssl, SSL_do_handshake(ssl));
}

enum tls_result tls_read(SSL *ssl, char *bytes, size_t size, size_t *n)
{
	ERR_clear_error();
	*n = 0;
	return result_of(ssl, SSL_read_ex(ssl, bytes, size, n));
}

enum tls_result tls_write(SSL *ssl, const char *bytes, size_t size, size_t *n)
{
	ERR_clear_error();
	*n = 0;
	return result_of(ssl, SSL_write_ex(ssl, bytes, size, n));
}

void tls_describe(struct buffer *b, const SSL *ssl)
{
	int bits = 0;
	int used = SSL_CIPHER_get_bits(SSL_get_current_cipher(ssl), &bits);
	buffer_printf(b, "%s with cipher %s (%d/%d bits)", SSL_get_version(ssl), SSL_get_cipher_name(ssl), used, bits);
}

void tls_put_bindings(SSL *ssl, struct buffer *exporter, struct buffer *unique)
{
	static const char label[] = "EXPORTER-Channel-Binding";
	unsigned char bytes[64];
	ERR_clear_error();
	if (SSL_version(ssl) >= TLS1_3_VERSION) {
		if (SSL_export_keying_material(ssl, bytes, 32, label, sizeof label - 1, NULL, 0, 0) == 1)
			buffer_put(exporter, bytes, 32);
		return;
	}
	if (SSL_get_extms_support(ssl) != 1)
		return;
	/* the first Finished: the client's, but in a resumed session the server's */
	bool ours = (SSL_is_server(ssl) != 0) == (SSL_session_reused(ssl) != 0);
	size_t n = ours ? SSL_get_finished(ssl, bytes, sizeof bytes) : SSL_get_peer_finished(ssl, bytes, sizeof bytes);
	buffer_put(unique, bytes, n < sizeof bytes ? n : sizeof bytes);
}
