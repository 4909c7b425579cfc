/* What a server's key signs in TLS: one line of a handshake, whose shape is known. */
#include "tls/tls.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>
#include <strings.h>

static const struct scheme {
	uint16_t number;
	const char *type, *digest;
	bool pss, in_13; /* in_13: TLS 1.3 has it for its handshake */
} schemes[] = {
	{0x0403, "EC", "SHA256", false, true}, {0x0503, "EC", "SHA384", false, true}, {0x0603, "EC", "SHA512", false, true},
	{0x0804, "RSA", "SHA256", true, true}, {0x0805, "RSA", "SHA384", true, true}, {0x0806, "RSA", "SHA512", true, true},
	{0x0401, "RSA", "SHA256", false, false}, {0x0501, "RSA", "SHA384", false, false}, {0x0601, "RSA", "SHA512", false, false},
	{0x0807, "ED25519", "", false, true},
};

static const struct scheme *find(uint16_t number)
{
	for (size_t i = 0; i < COUNT_OF(schemes); i++)
		if (schemes[i].number == number)
			return &schemes[i];
	return NULL;
}

uint16_t tls_scheme(const char *type, const char *digest, bool pss)
{
	const char *plain = strncasecmp(digest, "SHA2-", 5) == 0 ? digest + 5 : strncasecmp(digest, "SHA", 3) == 0 ? digest + 3 : digest;
	for (size_t i = 0; i < COUNT_OF(schemes); i++) {
		const struct scheme *s = &schemes[i];
		bool same = s->digest[0] == '\0' ? digest[0] == '\0' : strcmp(s->digest + 3, plain) == 0;
		if (strcmp(s->type, type) == 0 && same && s->pss == pss)
			return s->number;
	}
	return 0;
}

/* CertificateVerify of a server: RFC 8446 4.4.3. */
static bool is_13(struct span text)
{
	static const char context[] = "TLS 1.3, server CertificateVerify"; /* and its NUL */
	if (text.n != 64 + sizeof context + 32 && text.n != 64 + sizeof context + 48)
		return false;
	for (size_t i = 0; i < 64; i++)
		if (text.at[i] != ' ')
			return false;
	return memcmp(text.at + 64, context, sizeof context) == 0;
}

/* ServerKeyExchange: two randoms, and a named curve with a point of its size (RFC 8422 5.4). */
static bool is_12(struct span text)
{
	static const struct { unsigned char curve; size_t point; } curves[] = {{23, 65}, {24, 97}, {25, 133}, {29, 32}, {30, 56}};
	const unsigned char *p = (const unsigned char *)text.at + 64;
	if (text.n < 64 + 4 || p[0] != 3 || p[1] != 0)
		return false;
	for (size_t i = 0; i < COUNT_OF(curves); i++)
		if (p[2] == curves[i].curve)
			return p[3] == curves[i].point && text.n == 64 + 4 + curves[i].point;
	return false;
}

bool tls_text_is_signable(uint16_t scheme, struct span text)
{
	const struct scheme *s = find(scheme);
	return s != NULL && ((s->in_13 && is_13(text)) || is_12(text));
}

int tls_sign(EVP_PKEY *key, uint16_t scheme, struct span text, unsigned char out[TLS_SIGNATURE], size_t *n)
{
	const struct scheme *s = find(scheme);
	*n = 0;
	if (!tls_text_is_signable(scheme, text) || EVP_PKEY_is_a(key, s->type) != 1 || EVP_PKEY_get_size(key) > TLS_SIGNATURE)
		return EINVAL;
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	EVP_PKEY_CTX *p = NULL;
	size_t size = TLS_SIGNATURE;
	bool good = c != NULL && EVP_DigestSignInit_ex(c, &p, s->digest[0] == '\0' ? NULL : s->digest, NULL, NULL, key, NULL) == 1;
	if (good && s->pss)
		good = EVP_PKEY_CTX_set_rsa_padding(p, RSA_PKCS1_PSS_PADDING) == 1 && EVP_PKEY_CTX_set_rsa_pss_saltlen(p, RSA_PSS_SALTLEN_DIGEST) == 1;
	good = good && EVP_DigestSign(c, out, &size, (const unsigned char *)text.at, text.n) == 1;
	EVP_MD_CTX_free(c);
	*n = good ? size : 0;
	return good ? 0 : EINVAL;
}
