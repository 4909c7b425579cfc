#include "tls/tls.h"
#include "unit.h"

#include <openssl/evp.h>
#include <string.h>

enum { PSS = 0x0804, PKCS1 = 0x0401, ECDSA = 0x0403, ED25519 = 0x0807 };
enum form { SERVER_13, CLIENT_13, SHORT_13, LONG_13, NO_BLANKS, P256, X25519, WRONG_POINT, EXPLICIT_CURVE, UNKNOWN_CURVE, MORE_12, DIGEST, NOTHING };

static struct span make(enum form f, char text[TLS_TEXT])
{
	static const char server[] = "TLS 1.3, server CertificateVerify", client[] = "TLS 1.3, client CertificateVerify";
	size_t hash = f == SHORT_13 ? 31 : f == LONG_13 ? 49 : 32;
	memset(text, 0x5a, TLS_TEXT);
	switch (f) {
	case SERVER_13: case CLIENT_13: case SHORT_13: case LONG_13: case NO_BLANKS:
		memset(text, f == NO_BLANKS ? 'x' : ' ', 64);
		memcpy(text + 64, f == CLIENT_13 ? client : server, sizeof server);
		return (struct span){text, 64 + sizeof server + hash};
	case P256: case WRONG_POINT: case EXPLICIT_CURVE: case UNKNOWN_CURVE: case MORE_12:
		memcpy(text + 64, (char[]){f == EXPLICIT_CURVE ? 1 : 3, 0, f == UNKNOWN_CURVE ? 22 : 23, 65}, 4);
		return (struct span){text, 64 + 4 + 65 + (f == MORE_12 ? 1 : 0) - (f == WRONG_POINT ? 33 : 0)};
	case X25519:
		memcpy(text + 64, (char[]){3, 0, 29, 32}, 4);
		return (struct span){text, 64 + 4 + 32};
	case DIGEST:
		return (struct span){text, 32};
	case NOTHING:
		return (struct span){text, 0};
	}
	return (struct span){text, 0};
}

/* What a server's key signs: RFC 8446 4.4.3, RFC 8422 5.4; RSA of TLS 1.2 signs nothing of 1.3 (RFC 8446 4.2.3). */
static const struct { const char *rule; enum form form; uint16_t scheme; bool good; } texts[] = {
	{"1.3", SERVER_13, PSS, true}, {"1.3", SERVER_13, ECDSA, true}, {"1.3", SERVER_13, ED25519, true},
	{"1.3 knows no PKCS1", SERVER_13, PKCS1, false}, {"an unknown scheme", SERVER_13, 0x0201, false},
	{"what a client proves with", CLIENT_13, PSS, false}, {"no hash", SHORT_13, ECDSA, false}, {"more than a hash", LONG_13, ECDSA, false},
	{"a prefix of somebody's choice", NO_BLANKS, ECDSA, false},
	{"1.2, P-256", P256, PKCS1, true}, {"1.2, P-256", P256, ECDSA, true}, {"1.2, X25519", X25519, PSS, true},
	{"a point of another size", WRONG_POINT, PKCS1, false}, {"a curve that the text makes up", EXPLICIT_CURVE, PKCS1, false},
	{"an unknown curve", UNKNOWN_CURVE, PKCS1, false}, {"bytes behind it", MORE_12, PKCS1, false},
	{"a bare digest", DIGEST, PKCS1, false}, {"nothing", NOTHING, ECDSA, false},
};

START_TEST(a_key_signs_lines_of_handshakes_alone)
{
	char text[TLS_TEXT];
	ck_assert_msg(tls_text_is_signable(texts[_i].scheme, make(texts[_i].form, text)) == texts[_i].good, "%s, %#x", texts[_i].rule, texts[_i].scheme);
}
END_TEST

static const struct { const char *type, *digest; bool pss; uint16_t scheme; } names[] = {
	{"EC", "SHA256", false, 0x0403}, {"EC", "SHA2-384", false, 0x0503}, {"EC", "SHA512", false, 0x0603}, {"EC", "SHA1", false, 0},
	{"RSA", "SHA256", false, 0x0401}, {"RSA", "SHA256", true, 0x0804}, {"RSA", "SHA384", true, 0x0805}, {"RSA", "SHA512", false, 0x0601}, {"RSA", "MD5-SHA1", false, 0},
	{"ED25519", "", false, 0x0807}, {"ED25519", "SHA256", false, 0}, {"EC", "SHA256", true, 0}, {"ED448", "", false, 0},
};

START_TEST(schemes_have_the_numbers_of_rfc_8446_4_2_3)
{
	ck_assert_uint_eq(tls_scheme(names[_i].type, names[_i].digest, names[_i].pss), names[_i].scheme);
}
END_TEST

/* Each kind of key signs what its public half verifies, in its own schemes and in no others. */
static const struct { const char *type; uint16_t scheme; const char *digest; } kinds[] = {{"EC", ECDSA, "SHA256"}, {"RSA", PSS, "SHA256"}, {"RSA", PKCS1, "SHA256"}, {"ED25519", ED25519, NULL}};

START_TEST(signatures_are_those_of_the_scheme)
{
	char text[TLS_TEXT];
	unsigned char out[TLS_SIGNATURE];
	size_t n;
	struct span line = make(X25519, text);
	EVP_PKEY *key = strcmp(kinds[_i].type, "EC") == 0 ? EVP_EC_gen("P-256") : strcmp(kinds[_i].type, "RSA") == 0 ? EVP_RSA_gen(2048) : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	ck_assert_int_eq(tls_sign(key, kinds[_i].scheme, line, out, &n), 0);
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	EVP_PKEY_CTX *p = NULL;
	ck_assert_int_eq(EVP_DigestVerifyInit_ex(c, &p, kinds[_i].digest, NULL, NULL, key, NULL), 1);
	if (kinds[_i].scheme == PSS)
		ck_assert(EVP_PKEY_CTX_ctrl_str(p, "rsa_padding_mode", "pss") == 1 && EVP_PKEY_CTX_ctrl_str(p, "rsa_pss_saltlen", "digest") == 1);
	ck_assert_int_eq(EVP_DigestVerify(c, out, n, (unsigned char *)text, line.n), 1);
	for (size_t i = 0; i < COUNT_OF(kinds); i++)
		ck_assert((tls_sign(key, kinds[i].scheme, line, out, &n) == 0) == (strcmp(kinds[i].type, kinds[_i].type) == 0));
	ck_assert_int_eq(tls_sign(key, kinds[_i].scheme, make(DIGEST, text), out, &n), EINVAL);
	ck_assert_uint_eq(n, 0);
	EVP_MD_CTX_free(c);
	EVP_PKEY_free(key);
}
END_TEST

Suite *suite_tls(void)
{
	Suite *s = suite_create("tls");
	TCase *c = tcase_create("tls");
	tcase_add_loop_test(c, a_key_signs_lines_of_handshakes_alone, 0, (int)COUNT_OF(texts));
	tcase_add_loop_test(c, schemes_have_the_numbers_of_rfc_8446_4_2_3, 0, (int)COUNT_OF(names));
	tcase_add_loop_test(c, signatures_are_those_of_the_scheme, 0, (int)COUNT_OF(kinds));
	suite_add_tcase(s, c);
	return s;
}
