/* pair: certificates and keys that the commands make. */
#ifndef CMD_PAIR_H
#define CMD_PAIR_H

#include "cmd/common/cli.h"
#include <openssl/evp.h>
#include <openssl/x509.h>

/* Makes DIR/state/NAME.crt and NAME.key (P-256, ten years) where a server needs them and has none. */
MUST_CHECK int pair_make_missing(struct cli *c);

enum { PAIR_DAYS = 3650 };
EVP_PKEY *pair_make_key(const char *kind); /* "ec", "rsa" or "ed25519"; NULL: another kind, or no memory */
/* Self-signed, for these names.  NULL: no memory. */
X509 *pair_make_certificate(EVP_PKEY *key, const char *const *names, size_t n, long days);
X509_REQ *pair_make_request(EVP_PKEY *key, const char *const *names, size_t n);
/* PEM files, aside, synced, named.  0 or errno. */
MUST_CHECK int pair_store_key(const char *path, EVP_PKEY *key);
MUST_CHECK int pair_store_certificate(const char *path, X509 *crt);

#endif
