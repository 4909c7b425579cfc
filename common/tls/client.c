/* Certificates of clients (RFC 8446 4.4.2.4). */
#include "tls/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

static X509_STORE *make_store(struct span pem, STACK_OF(X509_NAME) *names)
{
	BIO *bio = pem.n > INT32_MAX ? NULL : BIO_new_mem_buf(pem.at, (int)pem.n);
	X509_STORE *store = bio == NULL ? NULL : X509_STORE_new();
	X509 *one;
	int n = 0;
	while (store != NULL && (one = tls_read_certificate(bio)) != NULL) {
		n += X509_STORE_add_cert(store, one) == 1;
		X509_NAME *name = names == NULL ? NULL : X509_NAME_dup(X509_get_subject_name(one));
		if (name != NULL && sk_X509_NAME_push(names, name) <= 0)
			X509_NAME_free(name);
		X509_free(one);
	}
	BIO_free(bio);
	ERR_clear_error();
	if (n == 0) {
		X509_STORE_free(store);
		return NULL;
	}
	return store;
}

/* Whatever it is, the session goes on: it lets nobody in by itself. */
static int take_any(int good, X509_STORE_CTX *context)
{
	(void)good;
	(void)context;
	return 1;
}

int tls_ask_clients(SSL_CTX *context, struct span authorities)
{
	STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
	X509_STORE *store = names == NULL ? NULL : make_store(authorities, names);
	if (store == NULL) {
		sk_X509_NAME_pop_free(names, X509_NAME_free);
		return names == NULL ? ENOMEM : EINVAL;
	}
	(void)SSL_CTX_set1_verify_cert_store(context, store);
	X509_STORE_free(store);
	SSL_CTX_set_client_CA_list(context, names);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, take_any);
	return 0;
}

bool tls_has_client(const SSL *ssl)
{
	return SSL_get0_peer_certificate(ssl) != NULL && SSL_get_verify_result(ssl) == X509_V_OK;
}

static void put(struct buffer *out, const X509 *certificate)
{
	unsigned char *der = NULL;
	int n = i2d_X509(certificate, &der);
	if (n > 0)
		buffer_put_lspan(out, (struct span){(const char *)der, (size_t)n});
	OPENSSL_free(der);
}

void tls_put_client(SSL *ssl, struct buffer *out)
{
	const STACK_OF(X509) *more = SSL_get_peer_cert_chain(ssl);
	const X509 *own = SSL_get0_peer_certificate(ssl);
	if (own == NULL)
		return;
	put(out, own);
	for (int i = 0; i < sk_X509_num(more); i++)
		put(out, sk_X509_value(more, i));
}

static bool take_text(const ASN1_STRING *s, char name[TLS_CLIENT_NAME])
{
	const char *at = s == NULL ? NULL : (const char *)ASN1_STRING_get0_data(s);
	size_t n = s == NULL ? 0 : (size_t)ASN1_STRING_length(s);
	if (n == 0 || n >= TLS_CLIENT_NAME || memchr(at, '\0', n) != NULL)
		return false;
	memcpy(name, at, n);
	name[n] = '\0';
	return true;
}

/* Its e-mail address (RFC 5280 4.2.1.6), else its common name. */
static bool find_name(const X509 *own, char name[TLS_CLIENT_NAME])
{
	GENERAL_NAMES *all = X509_get_ext_d2i(own, NID_subject_alt_name, NULL, NULL);
	bool found = false;
	for (int i = 0; i < sk_GENERAL_NAME_num(all) && !found; i++) {
		const GENERAL_NAME *one = sk_GENERAL_NAME_value(all, i);
		found = one->type == GEN_EMAIL && take_text(one->d.rfc822Name, name);
	}
	GENERAL_NAMES_free(all);
	const X509_NAME *subject = X509_get_subject_name(own);
	int at = found ? -1 : X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	return found || (at >= 0 && take_text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), name));
}

static bool verify(X509 *own, STACK_OF(X509) *more, X509_STORE *store)
{
	X509_STORE_CTX *c = X509_STORE_CTX_new();
	bool good = c != NULL && X509_STORE_CTX_init(c, store, own, more) == 1 && X509_STORE_CTX_set_purpose(c, X509_PURPOSE_SSL_CLIENT) == 1 && X509_verify_cert(c) == 1;
	X509_STORE_CTX_free(c);
	ERR_clear_error();
	return good;
}

int tls_client_name(struct span certificates, struct span authorities, char name[TLS_CLIENT_NAME])
{
	STACK_OF(X509) *all = sk_X509_new_null();
	X509_STORE *store = make_store(authorities, NULL);
	struct span der;
	while (all != NULL && sk_X509_num(all) < 20 && take_lspan(&certificates, &der)) {
		const unsigned char *at = (const unsigned char *)der.at;
		X509 *one = d2i_X509(NULL, &at, (long)der.n);
		if (one == NULL || sk_X509_push(all, one) <= 0) {
			X509_free(one);
			break;
		}
	}
	bool good = store != NULL && sk_X509_num(all) > 0 && verify(sk_X509_value(all, 0), all, store) && find_name(sk_X509_value(all, 0), name);
	X509_STORE_free(store);
	sk_X509_pop_free(all, X509_free);
	ERR_clear_error();
	return good ? 0 : EACCES;
}
