/* horncert: the certificates of a server. */
#ifndef CMD_HORNCERT_H
#define CMD_HORNCERT_H

#include "cmd/common/pair.h"
#include "smtp/smtp.h"
#include "tls/tls.h"

enum { PATH_SIZE = PAIR_PATH, NAMES_MOST = 100, EXPIRY_DAYS = 30 };

struct cert_request {
	struct cli cli;
	const char *server_name, *act, *kind; /* kind: of a key */
	const struct server *server;
	bool json, force, reuse;
	long days;
	const char *args[NAMES_MOST];
	size_t n;
};

/* A certificate of the configuration with its key, as their files are now. */
struct cert {
	char name[256];        /* of tls_sni, "" for the others */
	char file[PATH_SIZE], key_file[PATH_SIZE];
	X509 *crt;             /* NULL: none can be read, fault says why */
	EVP_PKEY *key;
	char fault[PATH_SIZE * 2 + 100]; /* "": none */
	char names[2000];      /* that it is for, with blanks */
	int days;              /* until it expires */
	bool self_signed;
};
/* Each of the server's; take's first value that is not 0. */
int cert_each(const struct cert_request *r, int (*take)(void *context, const struct cert *c), void *context);
/* Of the server's certificates outside tls_sni the one with a key of this kind; false: none. */
bool cert_find(const struct cert_request *r, const EVP_PKEY *key, struct cert *out);
void cert_free(struct cert *c);
bool cert_covers(const struct cert *c, const char *name);
X509 *cert_read_file(const char *path, struct buffer *chain, char *fault, size_t size);
EVP_PKEY *cert_read_key(const char *path, char *fault, size_t size);
const char *cert_kind(const EVP_PKEY *key); /* "ec" */
/* horncert_make.c: acts that write */
int cert_self_signed(struct cert_request *r);
int cert_request(struct cert_request *r);
int cert_install(struct cert_request *r);
int cert_renew(struct cert_request *r);

#endif
