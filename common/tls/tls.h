/* tls: OpenSSL on non-blocking sockets. */
#ifndef TLS_TLS_H
#define TLS_TLS_H

#include "base/base.h"
#include <openssl/ssl.h>

enum tls_result { TLS_OK, TLS_WANT_READ, TLS_WANT_WRITE, TLS_CLOSED, TLS_FAILED };

/* Contexts.  NULL: *why says what was wrong.  Certificate and key are PEM texts. */
SSL_CTX *tls_server_context(struct span certificate, struct span key, struct complaint *why);
SSL_CTX *tls_client_context(struct complaint *why);
SSL *tls_session(SSL_CTX *context, int fd, bool server);
/* The session is freed without a close_notify being waited for. */
void tls_free(SSL *ssl);
enum tls_result tls_handshake(SSL *ssl);
enum tls_result tls_read(SSL *ssl, char *bytes, size_t size, size_t *n);
enum tls_result tls_write(SSL *ssl, const char *bytes, size_t size, size_t *n);
/* "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)" */
void tls_describe(struct buffer *b, const SSL *ssl);
/* What only the two ends of this connection know, for a login to be bound to it: of TLS 1.3 that of RFC 9266, of 1.2 that of
 * RFC 5929 3, where the extended master secret makes it safe (RFC 7627).  What there is none of stays empty. */
void tls_put_bindings(SSL *ssl, struct buffer *exporter, struct buffer *unique);
const char *tls_error_text(void);

#endif
