/* A provider for OpenSSL whose keys are in another process: it has their public halves, and asks for signatures.  A handshake
 * runs as a job that rests while the answer is on its way. */
#include "tls/tls.h"

#include <openssl/async.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#define PARAM_ID "posthorn-key"

struct far {
	const char *type;
	EVP_PKEY *public; /* of the library aside: nothing asked of it comes back here */
	unsigned char id[TLS_KEY_ID];
	bool has_id;
};
struct far_signature {
	const struct far *key;
	char digest[32];
	bool pss;
};

static OSSL_LIB_CTX *aside;
static tls_signer *signer;
static int signing_index = -1;
SSL *tls_handshaking;

struct tls_signing *tls_signing_of(SSL *ssl)
{
	return signing_index < 0 ? NULL : SSL_get_ex_data(ssl, signing_index);
}

void tls_signed(SSL *ssl, struct span signature)
{
	struct tls_signing *s = tls_signing_of(ssl);
	if (s == NULL || s->state != SIGNING_ASKED)
		return;
	s->state = signature.n == 0 || signature.n > sizeof s->signature ? SIGNING_REFUSED : SIGNING_DONE;
	if (s->state == SIGNING_DONE)
		memcpy(s->signature, signature.at, signature.n);
	s->n = signature.n;
}

static struct far *make(const char *type)
{
	struct far *k = calloc(1, sizeof *k);
	if (k != NULL)
		k->type = type;
	return k;
}
static void *make_rsa(void *provider) { (void)provider; return make("RSA"); }
static void *make_ec(void *provider) { (void)provider; return make("EC"); }
static void *make_ed25519(void *provider) { (void)provider; return make("ED25519"); }

static void far_free(void *data)
{
	struct far *k = data;
	if (k != NULL)
		EVP_PKEY_free(k->public);
	free(k);
}

static int far_has(const void *data, int selection)
{
	const struct far *k = data;
	return k->public != NULL && ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0 || k->has_id);
}

static int far_match(const void *a, const void *b, int selection)
{
	const struct far *one = a, *other = b;
	(void)selection;
	return EVP_PKEY_eq(one->public, other->public) == 1;
}

static int far_import(void *data, int selection, const OSSL_PARAM params[])
{
	struct far *k = data;
	const OSSL_PARAM *id = OSSL_PARAM_locate_const(params, PARAM_ID);
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(aside, k->type, NULL);
	EVP_PKEY *public = NULL;
	(void)selection;
	bool good = c != NULL && EVP_PKEY_fromdata_init(c) == 1 && EVP_PKEY_fromdata(c, &public, EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)params) == 1;
	EVP_PKEY_CTX_free(c);
	if (good && id != NULL && id->data_type == OSSL_PARAM_OCTET_STRING && id->data_size == TLS_KEY_ID) {
		memcpy(k->id, id->data, TLS_KEY_ID);
		k->has_id = true;
	}
	EVP_PKEY_free(k->public);
	k->public = good ? public : NULL;
	return good;
}

/* Refusing the private half is what makes libssl sign by this provider. */
static int far_export(void *data, int selection, OSSL_CALLBACK *take, void *context)
{
	const struct far *k = data;
	OSSL_PARAM *params = NULL;
	if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 || EVP_PKEY_todata(k->public, EVP_PKEY_PUBLIC_KEY, &params) != 1)
		return 0;
	int r = take(params, context);
	OSSL_PARAM_free(params);
	return r;
}

static const OSSL_PARAM *far_types(int selection)
{
	static const OSSL_PARAM none[] = {OSSL_PARAM_END};
	(void)selection;
	return none;
}

static int far_get_params(void *data, OSSL_PARAM params[])
{
	return EVP_PKEY_get_params(((struct far *)data)->public, params);
}

static const OSSL_PARAM *far_gettable(void *provider)
{
	static const OSSL_PARAM list[] = {
		OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL), OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL), OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0), OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0), OSSL_PARAM_END,
	};
	(void)provider;
	return list;
}

static const char *name_rsa(int operation) { (void)operation; return "RSA"; }
static const char *name_ec(int operation) { return operation == OSSL_OP_SIGNATURE ? "ECDSA" : "EC"; }
static const char *name_ed25519(int operation) { (void)operation; return "ED25519"; }

#define FN(f) ((void (*)(void))(f))
#define KEYS_OF(maker, name) { \
	{OSSL_FUNC_KEYMGMT_NEW, FN(maker)}, {OSSL_FUNC_KEYMGMT_FREE, FN(far_free)}, {OSSL_FUNC_KEYMGMT_HAS, FN(far_has)}, \
	{OSSL_FUNC_KEYMGMT_MATCH, FN(far_match)}, {OSSL_FUNC_KEYMGMT_IMPORT, FN(far_import)}, {OSSL_FUNC_KEYMGMT_IMPORT_TYPES, FN(far_types)}, \
	{OSSL_FUNC_KEYMGMT_EXPORT, FN(far_export)}, {OSSL_FUNC_KEYMGMT_EXPORT_TYPES, FN(far_types)}, {OSSL_FUNC_KEYMGMT_GET_PARAMS, FN(far_get_params)}, \
	{OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, FN(far_gettable)}, {OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, FN(name)}, {0, NULL}}
static const OSSL_DISPATCH keys_rsa[] = KEYS_OF(make_rsa, name_rsa);
static const OSSL_DISPATCH keys_ec[] = KEYS_OF(make_ec, name_ec);
static const OSSL_DISPATCH keys_ed25519[] = KEYS_OF(make_ed25519, name_ed25519);

static void *signature_new(void *provider, const char *properties)
{
	(void)provider;
	(void)properties;
	return calloc(1, sizeof(struct far_signature));
}

static void *signature_copy(void *data)
{
	struct far_signature *s = malloc(sizeof *s);
	if (s != NULL)
		*s = *(const struct far_signature *)data;
	return s;
}

/* The padding comes as text or as a number. */
static int signature_set(void *data, const OSSL_PARAM params[])
{
	struct far_signature *s = data;
	const OSSL_PARAM *p = params == NULL ? NULL : OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE);
	int mode = 0;
	if (p == NULL)
		return 1;
	if (p->data_type == OSSL_PARAM_UTF8_STRING)
		s->pss = strcmp(p->data, OSSL_PKEY_RSA_PAD_MODE_PSS) == 0;
	else if (OSSL_PARAM_get_int(p, &mode) == 1)
		s->pss = mode == RSA_PKCS1_PSS_PADDING;
	else
		return 0;
	return 1;
}

static const OSSL_PARAM *signature_settable(void *data, void *provider)
{
	static const OSSL_PARAM list[] = {
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0), OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0), OSSL_PARAM_END,
	};
	(void)data;
	(void)provider;
	return list;
}

static int signature_begin(void *data, const char *digest, void *key, const OSSL_PARAM params[])
{
	struct far_signature *s = data;
	if (key != NULL)
		s->key = key;
	s->pss = false;
	(void)snprintf(s->digest, sizeof s->digest, "%s", digest == NULL ? "" : digest);
	return s->key != NULL && signature_set(s, params);
}

/* Rests until the answer is there, or the session has been given up. */
static bool wait_for_signature(SSL *ssl, struct tls_signing *wait, const struct far *k, uint16_t scheme, struct span text)
{
	if (ssl == NULL || ASYNC_get_current_job() == NULL || SSL_set_ex_data(ssl, signing_index, wait) != 1)
		return false;
	if (signer(SSL_get_app_data(ssl), k->id, scheme, text) != 0)
		wait->state = SIGNING_REFUSED;
	while (wait->state == SIGNING_ASKED && ASYNC_pause_job() == 1)
		;
	(void)SSL_set_ex_data(ssl, signing_index, NULL);
	return wait->state == SIGNING_DONE;
}

static int signature_make(void *data, unsigned char *out, size_t *n, size_t size, const unsigned char *text, size_t text_n)
{
	const struct far_signature *s = data;
	size_t most = (size_t)EVP_PKEY_get_size(s->key->public);
	if (out == NULL) {
		*n = most;
		return 1;
	}
	struct tls_signing wait = {.state = SIGNING_ASKED};
	uint16_t scheme = tls_scheme(s->key->type, s->digest, s->pss);
	if (scheme == 0 || !s->key->has_id || !wait_for_signature(tls_handshaking, &wait, s->key, scheme, (struct span){(const char *)text, text_n}) || wait.n > size)
		return 0;
	memcpy(out, wait.signature, wait.n);
	*n = wait.n;
	return 1;
}

static const OSSL_DISPATCH signatures[] = {
	{OSSL_FUNC_SIGNATURE_NEWCTX, FN(signature_new)}, {OSSL_FUNC_SIGNATURE_FREECTX, FN(free)}, {OSSL_FUNC_SIGNATURE_DUPCTX, FN(signature_copy)},
	{OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, FN(signature_begin)}, {OSSL_FUNC_SIGNATURE_DIGEST_SIGN, FN(signature_make)},
	{OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, FN(signature_set)}, {OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, FN(signature_settable)}, {0, NULL},
};

/* All of a key's names: libssl finds no place for a certificate otherwise. */
#define PROPERTY "provider=posthorn"
static const OSSL_ALGORITHM key_rows[] = {
	{"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTY, keys_rsa, NULL}, {"EC:id-ecPublicKey:1.2.840.10045.2.1", PROPERTY, keys_ec, NULL},
	{"ED25519:1.3.101.112", PROPERTY, keys_ed25519, NULL}, {NULL, NULL, NULL, NULL},
};
static const OSSL_ALGORITHM signature_rows[] = {
	{"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTY, signatures, NULL}, {"ECDSA", PROPERTY, signatures, NULL},
	{"ED25519:1.3.101.112", PROPERTY, signatures, NULL}, {NULL, NULL, NULL, NULL},
};

static const OSSL_ALGORITHM *rows_of(void *provider, int operation, int *no_cache)
{
	(void)provider;
	*no_cache = 0;
	return operation == OSSL_OP_KEYMGMT ? key_rows : operation == OSSL_OP_SIGNATURE ? signature_rows : NULL;
}

static int begin_provider(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **context)
{
	static const OSSL_DISPATCH functions[] = {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, FN(rows_of)}, {0, NULL}};
	(void)in;
	*out = functions;
	*context = (void *)(uintptr_t)handle;
	return 1;
}

int tls_use_signer(tls_signer *ask)
{
	signer = ask;
	if (signing_index >= 0)
		return 0;
	/* default by name and first: loading any other by hand would end its being there by itself */
	aside = OSSL_LIB_CTX_new();
	if (aside == NULL || OSSL_PROVIDER_load(NULL, "default") == NULL || OSSL_PROVIDER_load(aside, "default") == NULL ||
	    OSSL_PROVIDER_add_builtin(NULL, "posthorn", begin_provider) != 1 || OSSL_PROVIDER_load(NULL, "posthorn") == NULL || tickets_prepare() != 0 ||
	    ASYNC_init_thread(JOBS_MOST, 1) != 1)
		return EIO;
	signing_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	return signing_index < 0 ? EIO : 0;
}

EVP_PKEY *far_key(X509 *certificate, const unsigned char id[TLS_KEY_ID])
{
	EVP_PKEY *public = X509_get0_pubkey(certificate), *key = NULL;
	const char *type = public == NULL ? NULL : EVP_PKEY_get0_type_name(public);
	OSSL_PARAM own[] = {OSSL_PARAM_construct_octet_string(PARAM_ID, (void *)(uintptr_t)id, TLS_KEY_ID), OSSL_PARAM_construct_end()};
	OSSL_PARAM *params = NULL, *all = NULL;
	if (type != NULL && EVP_PKEY_todata(public, EVP_PKEY_PUBLIC_KEY, &params) == 1)
		all = OSSL_PARAM_merge(params, own);
	EVP_PKEY_CTX *c = all == NULL ? NULL : EVP_PKEY_CTX_new_from_name(NULL, type, PROPERTY);
	if (c != NULL && (EVP_PKEY_fromdata_init(c) != 1 || EVP_PKEY_fromdata(c, &key, EVP_PKEY_KEYPAIR, all) != 1))
		key = NULL;
	EVP_PKEY_CTX_free(c);
	OSSL_PARAM_free(all);
	OSSL_PARAM_free(params);
	return key;
}
