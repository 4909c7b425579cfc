/* Session tickets whose keys all workers of a server share (RFC 5077, RFC 8446 4.6.1). */
#include "tls/tls.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>

static EVP_CIPHER *cipher_of_tickets;

int tickets_prepare(void)
{
	if (cipher_of_tickets == NULL)
		cipher_of_tickets = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
	return cipher_of_tickets == NULL ? EIO : 0;
}

static bool set_mac(EVP_MAC_CTX *mac, unsigned char *key)
{
	char digest[] = "SHA256";
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key + TICKET_NAME + 32, 32),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end(),
	};
	return EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* -1: no handshake; 0: a whole one; 1: good; 2: good, and a new ticket is due. */
int ticket_callback(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypt)
{
	struct tls_tickets *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	if (t == NULL || t->n == 0)
		return 0;
	size_t i = 0;
	if (encrypt == 0)
		while (i < t->n && memcmp(t->keys[i], name, TICKET_NAME) != 0)
			i++;
	if (i == t->n)
		return 0;
	unsigned char *key = t->keys[i];
	if (encrypt != 0) {
		memcpy(name, key, TICKET_NAME);
		if (RAND_bytes(iv, 16) != 1)
			return -1;
	}
	if (!set_mac(mac, key) || EVP_CipherInit_ex(cipher, cipher_of_tickets, NULL, key + TICKET_NAME, iv, encrypt) != 1)
		return -1;
	/* a ticket of TLS 1.3 is used once (RFC 8446 C.4): who has none left would need a whole handshake every other time */
	return encrypt == 0 && (i > 0 || SSL_version(ssl) >= TLS1_3_VERSION) ? 2 : 1;
}
