/* tls: OpenSSL on non-blocking sockets, with keys that another process has. */
#ifndef TLS_TLS_H
#define TLS_TLS_H

#include "base/base.h"
#include <openssl/ssl.h>

enum tls_result {
	TLS_OK, TLS_WANT_READ, TLS_WANT_WRITE, TLS_CLOSED, TLS_FAILED,
	TLS_WANT_KEY, /* a handshake: whoever has the key has not signed yet; tls_signed, then tls_handshake again */
	TLS_WANT_JOB, /* a handshake: too many wait for their key; again when one of them has gone on */
};

/* MISSION C8: below it there is no TLS. */
enum tls_ciphers { CIPHERS_HIGH, CIPHERS_MODERN };
struct tls_levels {
	int64_t minimum; /* 0: TLS 1.2, 1: TLS 1.3, the words of tls_minimum */
	int64_t ciphers; /* tls_ciphers */
	int64_t bits;    /* of a cipher */
};
/* A key is known by the SHA-256 of its public half as the certificate has it (SubjectPublicKeyInfo). */
enum { TLS_KEY_ID = 32, TLS_SIGNATURE = 1024, TLS_TEXT = 512, JOBS_MOST = 64 };
struct tls_pair {
	struct span chain; /* PEM, the certificate first */
	unsigned char key[TLS_KEY_ID];
};
/* Keys of session tickets: the first is the one in use, the other is still taken. */
enum { TICKET_NAME = 16, TICKET_KEY = 80, TICKET_KEYS = 2 };
struct tls_tickets {
	unsigned char keys[TICKET_KEYS][TICKET_KEY]; /* name, AES-256, HMAC */
	size_t n;
};

/* Asks for a signature: text by the key, in that SignatureScheme (RFC 8446 4.2.3).  owner is tls_session's. */
typedef int tls_signer(void *owner, const unsigned char key[TLS_KEY_ID], uint16_t scheme, struct span text);
MUST_CHECK int tls_use_signer(tls_signer *ask); /* once, before the confinement.  0 or EIO */
void tls_signed(SSL *ssl, struct span signature); /* empty: it was refused */

/* Contexts.  NULL: *why says what was wrong. */
SSL_CTX *tls_context(const SSL_METHOD *method, const struct tls_levels *levels, struct complaint *why);
SSL_CTX *tls_client_context(const struct tls_levels *levels, struct complaint *why);
/* name: of the virtual server, for its tickets.  tickets stays the caller's. */
SSL_CTX *tls_server_context(const struct tls_pair *pairs, size_t n, const char *name, struct tls_tickets *tickets,
	const struct tls_levels *levels, struct complaint *why);
/* What a client demands of the other end's certificate, before its handshake; it fails where that is not met.  0 or EINVAL.
 * names: any of them will do; ".example.org" is what is below it; one that is an address is looked for as such. */
MUST_CHECK int tls_demand_names(SSL *ssl, const char *const *names, size_t n);
/* ENOENT: none of them is of use.  By TLSA records as dns_take_tlsa reads them; names as above, for those of usage DANE-TA (RFC 7672 3.2). */
MUST_CHECK int tls_demand_dane(SSL *ssl, const char *base, struct span records, const char *const *names, size_t n);
MUST_CHECK int tls_trust_file(SSL_CTX *context, const char *path); /* before the confinement.  0 or ENOENT */
/* Why a handshake failed: what the certificate lacks, else OpenSSL's error. */
const char *tls_failure_text(const SSL *ssl);
/* Lets choose say which context a client is served by; host "" where it names none.  NULL: this one. */
typedef SSL_CTX *tls_chooser(void *owner, const char *host);
void tls_choose_by_name(SSL_CTX *context, tls_chooser *choose);
/* Clients may show a certificate of these authorities (PEM); nobody has to, and none that is no good ends the handshake.  0, EINVAL: there is none, ENOMEM */
MUST_CHECK int tls_ask_clients(SSL_CTX *context, struct span authorities);
bool tls_has_client(const SSL *ssl);                                    /* it has shown one that is good */
void tls_put_client(SSL *ssl, struct buffer *certificates);             /* as lspans of DER, its own first */
/* The name in such certificates, verified once more.  0, EACCES: they are no good, or there is no name, ENOMEM */
enum { TLS_CLIENT_NAME = 256 };
MUST_CHECK int tls_client_name(struct span certificates, struct span authorities, char name[TLS_CLIENT_NAME]);
/* staple.c: lets find say what is sent with a certificate, which is known by the SHA-256 of its DER; an empty span: nothing. */
enum { TLS_CERTIFICATE_ID = 32 };
MUST_CHECK int tls_certificate_id(const X509 *certificate, unsigned char id[TLS_CERTIFICATE_ID]); /* 0 or EINVAL */
typedef struct span tls_stapler(void *owner, const unsigned char id[TLS_CERTIFICATE_ID]);
void tls_staple(SSL_CTX *context, tls_stapler *find);
SSL *tls_session(SSL_CTX *context, int fd, bool server, void *owner);
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

/* chain.c: certificates as PEM.  The owner frees. */
X509 *tls_read_certificate(BIO *bio); /* NULL: there is none (any more) */
MUST_CHECK int tls_put_chain(struct buffer *out, struct span pem); /* its certificates, and nothing else that is there.  0, EINVAL: none, ENOMEM */
EVP_PKEY *tls_read_key(struct span pem);
MUST_CHECK int tls_key_id(EVP_PKEY *key, unsigned char id[TLS_KEY_ID]); /* 0 or EINVAL */

/* signing.c: what a key signs, and nothing else (RFC 8446 4.4.3, RFC 8422 5.4). */
bool tls_text_is_signable(uint16_t scheme, struct span text);
uint16_t tls_scheme(const char *type, const char *digest, bool pss); /* type "RSA", "EC" or "ED25519"; 0: none */
MUST_CHECK int tls_sign(EVP_PKEY *key, uint16_t scheme, struct span text, unsigned char out[TLS_SIGNATURE], size_t *n); /* 0 or EINVAL */

/* far.c: OpenSSL's provider of keys that are elsewhere */
struct tls_signing {
	enum { SIGNING_ASKED, SIGNING_DONE, SIGNING_REFUSED } state;
	unsigned char signature[TLS_SIGNATURE];
	size_t n;
};
extern SSL *tls_handshaking;         /* whose handshake runs just now */
struct tls_signing *tls_signing_of(SSL *ssl); /* NULL: it waits for none */
EVP_PKEY *far_key(X509 *certificate, const unsigned char id[TLS_KEY_ID]); /* NULL: OpenSSL's error says why */
int ticket_callback(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypt);
MUST_CHECK int tickets_prepare(void);

#endif
