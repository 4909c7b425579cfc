#include "tls/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <string.h>

const char *tls_error_text(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_error());
	return text == NULL ? "unknown error" : text;
}

/* Neither a key exchange without forward secrecy nor one that keyd would have to decrypt for. */
static const char *const cipher_lists[] = {
	[CIPHERS_HIGH] = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES256:ECDHE+AES128:!AESCCM8:!AESCCM:!aNULL", [CIPHERS_MODERN] = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL",
};
static const char group_list[] = "X25519:P-256:X448:P-384:P-521"; /* those that keyd signs for; finite fields are weaker or dearer */
static const char signature_list[] = "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:"
	"RSA+SHA256:RSA+SHA384:RSA+SHA512";

/* Leaves out what has fewer bits. */
static bool set_ciphers(SSL_CTX *c, const struct tls_levels *levels)
{
	struct buffer old, new;
	if (SSL_CTX_set_cipher_list(c, cipher_lists[levels->ciphers]) != 1)
		return false;
	const STACK_OF(SSL_CIPHER) *list = SSL_CTX_get_ciphers(c);
	buffer_init(&old, 8192);
	buffer_init(&new, 8192);
	for (int i = 0; i < sk_SSL_CIPHER_num(list); i++) {
		const SSL_CIPHER *one = sk_SSL_CIPHER_value(list, i);
		struct buffer *b = strcmp(SSL_CIPHER_get_version(one), "TLSv1.3") == 0 ? &new : &old;
		if (SSL_CIPHER_get_bits(one, NULL) < levels->bits)
			continue;
		if (b->n > 0)
			buffer_putc(b, ':');
		buffer_puts(b, SSL_CIPHER_get_name(one));
	}
	bool good = new.n > 0 && SSL_CTX_set_ciphersuites(c, buffer_cstr(&new)) == 1 && (old.n == 0 || SSL_CTX_set_cipher_list(c, buffer_cstr(&old)) == 1);
	buffer_free(&old);
	buffer_free(&new);
	return good;
}

SSL_CTX *tls_context(const SSL_METHOD *method, const struct tls_levels *levels, struct complaint *why)
{
	ERR_clear_error();
	SSL_CTX *c = SSL_CTX_new(method);
	bool good = c != NULL && SSL_CTX_set_min_proto_version(c, levels->minimum == 1 ? TLS1_3_VERSION : TLS1_2_VERSION) == 1 &&
		set_ciphers(c, levels) && SSL_CTX_set1_groups_list(c, group_list) == 1 && SSL_CTX_set1_sigalgs_list(c, signature_list) == 1;
	if (!good) {
		complain(why, "tls", 0, "%s", tls_error_text());
		SSL_CTX_free(c);
		return NULL;
	}
	(void)SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	(void)SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_num_tickets(c, 1); /* one: see the platform's Nagle trap */
	(void)SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF |
		SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	unsigned char warm[1];
	(void)RAND_bytes(warm, sizeof warm); /* opened before the confinement */
	return c;
}

/* A certificate with what it was signed by, and its key, which is elsewhere. */
static bool use_pair(SSL_CTX *c, const struct tls_pair *pair)
{
	BIO *bio = pair->chain.n > INT32_MAX ? NULL : BIO_new_mem_buf(pair->chain.at, (int)pair->chain.n);
	X509 *own = bio == NULL ? NULL : tls_read_certificate(bio);
	EVP_PKEY *key = own == NULL ? NULL : far_key(own, pair->key);
	bool good = key != NULL && SSL_CTX_use_certificate(c, own) == 1 && SSL_CTX_use_PrivateKey(c, key) == 1 && SSL_CTX_clear_chain_certs(c) == 1;
	while (good) {
		X509 *more = tls_read_certificate(bio);
		if (more == NULL)
			break;
		good = SSL_CTX_add0_chain_cert(c, more) == 1;
	}
	EVP_PKEY_free(key);
	X509_free(own);
	BIO_free(bio);
	return good;
}

SSL_CTX *tls_server_context(const struct tls_pair *pairs, size_t n, const char *name, struct tls_tickets *tickets,
	const struct tls_levels *levels, struct complaint *why)
{
	SSL_CTX *c = tls_context(TLS_server_method(), levels, why);
	bool good = c != NULL;
	for (size_t i = 0; i < n && good; i++)
		good = use_pair(c, &pairs[i]);
	size_t name_n = strlen(name) < SSL_MAX_SID_CTX_LENGTH ? strlen(name) : SSL_MAX_SID_CTX_LENGTH;
	good = good && SSL_CTX_set_session_id_context(c, (const unsigned char *)name, (unsigned)name_n) == 1 &&
		SSL_CTX_set_tlsext_ticket_key_evp_cb(c, ticket_callback) == 1;
	if (good) {
		SSL_CTX_set_app_data(c, tickets);
		ERR_clear_error();
		return c;
	}
	if (c != NULL)
		complain(why, "tls_certificate_file", 0, "no usable certificate: %s", tls_error_text());
	SSL_CTX_free(c);
	return NULL;
}

/* libssl calls this for each ClientHello, with a name or without (RFC 6066 3). */
static int on_name(SSL *ssl, int *alert, void *context)
{
	const char *host = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	tls_chooser **choose = context;
	(void)alert;
	SSL_CTX *c = (*choose)(SSL_get_app_data(ssl), host == NULL ? "" : host);
	if (c != NULL)
		(void)SSL_set_SSL_CTX(ssl, c);
	return host == NULL ? SSL_TLSEXT_ERR_NOACK : SSL_TLSEXT_ERR_OK;
}

static tls_chooser *chooser;

void tls_choose_by_name(SSL_CTX *context, tls_chooser *choose)
{
	chooser = choose;
	(void)SSL_CTX_set_tlsext_servername_callback(context, on_name);
	(void)SSL_CTX_set_tlsext_servername_arg(context, &chooser);
}

SSL_CTX *tls_client_context(const struct tls_levels *levels, struct complaint *why)
{
	SSL_CTX *c = tls_context(TLS_client_method(), levels, why);
	if (c != NULL)
		SSL_CTX_set_verify(c, SSL_VERIFY_NONE, NULL); /* opportunistic: RFC 7435 */
	if (c != NULL && SSL_CTX_dane_enable(c) != 1) {
		SSL_CTX_free(c);
		return NULL;
	}
	return c;
}

SSL *tls_session(SSL_CTX *context, int fd, bool server, void *owner)
{
	SSL *s = SSL_new(context);
	if (s == NULL)
		return NULL;
	if (SSL_set_fd(s, fd) != 1) {
		SSL_free(s);
		return NULL;
	}
	SSL_set_app_data(s, owner);
	if (server)
		SSL_set_accept_state(s);
	else
		SSL_set_connect_state(s);
	if (server)
		(void)SSL_set_mode(s, SSL_MODE_ASYNC);
	return s;
}

void tls_free(SSL *ssl)
{
	if (ssl == NULL)
		return;
	ERR_clear_error();
	struct tls_signing *wait = tls_signing_of(ssl);
	if (wait != NULL) { /* its job ends first: a job that rests is never given back */
		wait->state = SIGNING_REFUSED;
		(void)SSL_do_handshake(ssl);
	} else if (SSL_is_init_finished(ssl)) {
		(void)SSL_shutdown(ssl);
	}
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
	case SSL_ERROR_WANT_ASYNC: return TLS_WANT_KEY;
	case SSL_ERROR_WANT_ASYNC_JOB: return TLS_WANT_JOB;
	default: return TLS_FAILED;
	}
}

enum tls_result tls_handshake(SSL *ssl)
{
	ERR_clear_error();
	tls_handshaking = ssl;
	enum tls_result r = result_of(ssl, SSL_do_handshake(ssl));
	tls_handshaking = NULL;
	if (r == TLS_OK)
		(void)SSL_clear_mode(ssl, SSL_MODE_ASYNC); /* reads and writes need no job */
	return r;
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
