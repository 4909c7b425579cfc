/* The acts of horncert that write. */
#include "cmd/horncert.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

/* ---- the place of a certificate ---- */

struct search {
	const EVP_PKEY *key; /* NULL: any */
	struct cert *out;
	bool found;
};

static int is_it(void *context, const struct cert *c)
{
	struct search *s = context;
	const EVP_PKEY *there = c->crt == NULL ? NULL : X509_get0_pubkey(c->crt);
	if (c->name[0] != '\0' || (s->key != NULL && there != NULL && strcmp(cert_kind(there), cert_kind(s->key)) != 0))
		return 0;
	*s->out = *c;
	s->out->crt = c->crt;
	s->out->key = c->key;
	if (c->crt != NULL)
		(void)X509_up_ref(c->crt);
	if (c->key != NULL)
		(void)EVP_PKEY_up_ref(c->key);
	s->found = true;
	return EEXIST;
}

bool cert_find(const struct cert_request *r, const EVP_PKEY *key, struct cert *out)
{
	struct search s = {.key = key, .out = out};
	(void)cert_each(r, is_it, &s);
	return s.found;
}

/* Where a new one goes: in the place of one with the same kind of key; where the configuration names none of its own, in the place of the
 * pair that was made at the first start, whatever its kind. */
static int place_of(const struct cert_request *r, const EVP_PKEY *key, struct cert *out)
{
	bool own = r->server->p.tls_certificate_file[0] == '\0';
	if (cert_find(r, own ? NULL : key, out))
		return 0;
	return cli_fail(&r->cli, EX_CONFIG, "tls_certificate_file names no certificate with a key of this kind (%s): add a file for it and for its key; nothing was changed", cert_kind(key));
}

static int take_up(struct cert_request *r)
{
	struct buffer text;
	if (cli_master(&r->cli) == 0) {
		(void)printf("taken up at the next start\n");
		return 0;
	}
	buffer_init(&text, 4096);
	int status = cli_ask(&r->cli, "reload", "-", "", NULL, NULL, &text);
	if (status != 0)
		(void)cli_fail(&r->cli, status, "it is in place, but the service could not reload: %s", buffer_cstr(&text));
	else
		(void)printf("taken up; sessions go on\n");
	buffer_free(&text);
	return status;
}

static int cannot_write(const struct cert_request *r, const char *path, int error)
{
	return cli_fail(&r->cli, error == EACCES ? EX_NOPERM : EX_CANTCREAT, "%s: %s", path, strerror(error));
}

/* Names of the command line, else the server's own. */
static int take_names(struct cert_request *r)
{
	if (r->n == 0)
		r->args[r->n++] = r->server->p.fqdn;
	for (size_t i = 0; i < r->n; i++) {
		struct span name = span_of(r->args[i]);
		bool wild = name.n > 2 && name.at[0] == '*' && name.at[1] == '.';
		if (!name_looks_like_address(name) && !domain_is_valid(span_from(name, wild ? 2 : 0), false))
			return cli_fail(&r->cli, EX_USAGE, "'%s': a host name is needed", r->args[i]);
	}
	return 0;
}

static EVP_PKEY *new_key(const struct cert_request *r)
{
	EVP_PKEY *key = pair_make_key(r->kind);
	if (key == NULL)
		(void)cli_fail(&r->cli, EX_USAGE, "--key %s: ec, rsa or ed25519", r->kind);
	return key;
}

/* ---- acts ---- */

static int put_self_signed(struct cert_request *r, EVP_PKEY *key, const char *file, const char *key_file)
{
	X509 *crt = pair_make_certificate(key, r->args, r->n, r->days);
	int error = crt == NULL ? ENOMEM : pair_store_key(key_file, key);
	const char *at = key_file;
	if (error == 0) {
		at = file;
		error = pair_store_certificate(file, crt);
	}
	X509_free(crt);
	if (error != 0)
		return cannot_write(r, at, error);
	(void)printf("%s: self-signed, for %ld days\n", file, r->days);
	return take_up(r);
}

int cert_self_signed(struct cert_request *r)
{
	struct cert place;
	int status = take_names(r);
	EVP_PKEY *key = status == 0 ? new_key(r) : NULL;
	if (key == NULL)
		return EX_USAGE;
	if (r->server->p.tls_certificate_file[0] == '\0' && mkdirat(r->cli.dir_fd, "state", 0755) != 0 && errno != EEXIST)
		status = cannot_write(r, "state", errno);
	if (status == 0)
		status = place_of(r, key, &place);
	if (status == 0) {
		status = put_self_signed(r, key, place.file, place.key_file);
		cert_free(&place);
	}
	EVP_PKEY_free(key);
	return status;
}

static int put_request(struct cert_request *r, EVP_PKEY *key)
{
	X509_REQ *request = pair_make_request(key, r->args, r->n);
	bool good = request != NULL && PEM_write_X509_REQ(stdout, request) == 1;
	X509_REQ_free(request);
	return good ? 0 : cli_fail(&r->cli, EX_OSERR, "the request cannot be made");
}

int cert_request(struct cert_request *r)
{
	struct cert place = {.days = 0};
	char path[PATH_SIZE + 8] = "";
	int status = take_names(r);
	EVP_PKEY *key = status == 0 && !r->reuse ? new_key(r) : NULL;
	if (status != 0 || (key == NULL && !r->reuse))
		return EX_USAGE;
	status = r->reuse ? (cert_find(r, NULL, &place) ? 0 : EX_CONFIG) : place_of(r, key, &place);
	if (status == 0 && r->reuse && place.key == NULL)
		status = cli_fail(&r->cli, EX_NOINPUT, "%s", place.fault);
	if (status == 0 && !r->reuse) { /* in use only once its certificate is installed */
		(void)snprintf(path, sizeof path, "%s.new", place.key_file);
		int error = pair_store_key(path, key);
		status = error == 0 ? 0 : cannot_write(r, path, error);
	}
	if (status == 0)
		status = put_request(r, r->reuse ? place.key : key);
	if (status == 0 && !r->reuse)
		(void)fprintf(stderr, "its key is %s until horncert install has the certificate\n", path);
	cert_free(&place);
	EVP_PKEY_free(key);
	return status;
}

/* The key of a new certificate: the one that is named, else that of the last request, else the one in use. */
static EVP_PKEY *find_key(const struct cert_request *r, X509 *crt, const struct cert *place, char *used, char *fault)
{
	char fresh[PATH_SIZE + 8];
	(void)snprintf(fresh, sizeof fresh, "%s.new", place->key_file);
	const char *paths[] = {r->n > 1 ? r->args[1] : fresh, r->n > 1 ? NULL : place->key_file};
	for (size_t i = 0; i < COUNT_OF(paths) && paths[i] != NULL; i++) {
		EVP_PKEY *key = cert_read_key(paths[i], fault, 2 * PATH_SIZE);
		(void)snprintf(used, PATH_SIZE + 8, "%s", paths[i]);
		if (key != NULL && X509_check_private_key(crt, key) == 1)
			return key;
		if (key != NULL)
			(void)snprintf(fault, 2 * PATH_SIZE, "%s: not the key of this certificate", paths[i]);
		EVP_PKEY_free(key);
	}
	ERR_clear_error();
	return NULL;
}

/* Key first: a crash between the two leaves a pair that keyd does not take, and it keeps the one that it has. */
static int put_pair(struct cert_request *r, const struct buffer *chain, EVP_PKEY *key, const char *used, const struct cert *place)
{
	char fresh[PATH_SIZE + 8], folder[PATH_SIZE];
	(void)snprintf(fresh, sizeof fresh, "%s.new", place->key_file);
	int error = strcmp(used, place->key_file) == 0 ? 0 : pair_store_key(place->key_file, key);
	if (error != 0)
		return cannot_write(r, place->key_file, error);
	(void)snprintf(folder, sizeof folder, "%s", place->file);
	char *name = strrchr(folder, '/');
	if (name == NULL)
		return cannot_write(r, place->file, EINVAL);
	*name++ = '\0';
	error = cli_replace(folder, name, buffer_span(chain), 0644);
	if (error != 0)
		return cannot_write(r, place->file, error);
	if (strcmp(used, fresh) == 0)
		(void)unlink(fresh);
	(void)printf("%s: installed\n", place->file);
	return take_up(r);
}

int cert_install(struct cert_request *r)
{
	char fault[2 * PATH_SIZE] = "", used[PATH_SIZE + 8] = "";
	struct buffer chain;
	struct cert place = {.days = 0}, fresh = {.days = 0};
	X509 *crt = cert_read_file(r->args[0], &chain, fault, sizeof fault);
	int status = crt == NULL ? cli_fail(&r->cli, EX_DATAERR, "%s; nothing was changed", fault) : place_of(r, X509_get0_pubkey(crt), &place);
	EVP_PKEY *key = status == 0 ? find_key(r, crt, &place, used, fault) : NULL;
	if (status == 0 && key == NULL)
		status = cli_fail(&r->cli, EX_DATAERR, "%s; nothing was changed", fault);
	if (status == 0 && X509_cmp_current_time(X509_get0_notAfter(crt)) < 0)
		status = cli_fail(&r->cli, EX_DATAERR, "%s: it has expired; nothing was changed", r->args[0]);
	fresh.crt = crt;
	if (status == 0 && !cert_covers(&fresh, r->server->p.fqdn))
		(void)fprintf(stderr, "horncert: %s is not for %s (fqdn)\n", r->args[0], r->server->p.fqdn);
	if (status == 0)
		status = put_pair(r, &chain, key, used, &place);
	EVP_PKEY_free(key);
	X509_free(crt);
	cert_free(&place);
	buffer_free(&chain);
	return status;
}

struct renewal {
	struct cert_request *r;
	unsigned done;
};

static int renew_one(void *context, const struct cert *c)
{
	struct renewal *w = context;
	char names[sizeof c->names];
	size_t n = 0;
	if (c->crt == NULL || c->key == NULL)
		return cli_fail(&w->r->cli, EX_NOINPUT, "%s", c->fault);
	if (!w->r->force && c->days >= EXPIRY_DAYS)
		return 0;
	(void)snprintf(names, sizeof names, "%s", c->names);
	for (char *at = names, *name; n < NAMES_MOST && (name = strsep(&at, " ")) != NULL;)
		if (name[0] != '\0')
			w->r->args[n++] = name;
	w->r->n = n;
	w->done++;
	if (n == 0)
		return cli_fail(&w->r->cli, EX_DATAERR, "%s: it names no host", c->file);
	if (!c->self_signed) {
		(void)fprintf(stderr, "%s: for its authority; then horncert install CHAIN\n", c->file);
		return put_request(w->r, c->key);
	}
	EVP_PKEY *key = pair_make_key(cert_kind(c->key));
	int status = key == NULL ? cli_fail(&w->r->cli, EX_OSERR, "not enough memory") : put_self_signed(w->r, key, c->file, c->key_file);
	EVP_PKEY_free(key);
	return status;
}

int cert_renew(struct cert_request *r)
{
	struct renewal w = {.r = r};
	int status = cert_each(r, renew_one, &w);
	if (status == 0 && w.done == 0)
		(void)printf("nothing to renew: each has %d days or more\n", EXPIRY_DAYS);
	return status;
}
