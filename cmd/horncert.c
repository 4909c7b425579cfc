/* horncert: looks after the certificates of a server (MISSION C7). */
#include "cmd/horncert.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static const struct cli_option options[] = {
	{"-c", "DIR", "the configuration (/etc/posthorn)"},
	{"-s", "SERVER", "the virtual server (default)"},
	{"--key", "KIND", "self-signed, request: ec (P-256, the default), rsa (3072 bits) or ed25519"},
	{"--reuse", "", "request: for the key that is in use"},
	{"--days", "N", "self-signed: until it expires (3650)"},
	{"--force", "", "renew: also when more than 30 days are left"},
	{"--json", "", "show, check: JSON objects, one a line"},
	{"--help", "", "this text"},
};
static const char usage[] = "horncert [-c DIR] [-s SERVER] show | check | self-signed [NAME...] | request [NAME...] | install CHAIN [KEY] | renew";

/* ---- files ---- */

static int read_text(const char *path, struct buffer *text)
{
	buffer_init(text, 128 * 1024);
	return read_file_at(AT_FDCWD, path, 128 * 1024, text);
}

X509 *cert_read_file(const char *path, struct buffer *chain, char *fault, size_t size)
{
	struct buffer text;
	int error = read_text(path, &text);
	buffer_init(chain, 256 * 1024);
	if (error == 0)
		error = tls_put_chain(chain, buffer_span(&text));
	buffer_wipe(&text); /* it may have a key */
	BIO *bio = error != 0 ? NULL : BIO_new_mem_buf(chain->at, (int)chain->n);
	X509 *crt = bio == NULL ? NULL : tls_read_certificate(bio);
	BIO_free(bio);
	ERR_clear_error();
	if (crt == NULL)
		(void)snprintf(fault, size, "%s: %s", path, error != 0 && error != EINVAL ? strerror(error) : "no certificate in PEM");
	return crt;
}

EVP_PKEY *cert_read_key(const char *path, char *fault, size_t size)
{
	struct buffer text;
	int error = read_text(path, &text);
	EVP_PKEY *key = error != 0 ? NULL : tls_read_key(buffer_span(&text));
	buffer_wipe(&text);
	ERR_clear_error();
	if (key == NULL)
		(void)snprintf(fault, size, "%s: %s", path, error != 0 ? strerror(error) : "no key in PEM without a passphrase");
	return key;
}

const char *cert_kind(const EVP_PKEY *key)
{
	return EVP_PKEY_is_a(key, "EC") == 1 ? "ec" : EVP_PKEY_is_a(key, "RSA") == 1 ? "rsa" : EVP_PKEY_is_a(key, "ED25519") == 1 ? "ed25519" : "unknown";
}

static void take_names(struct cert *c)
{
	GENERAL_NAMES *list = X509_get_ext_d2i(c->crt, NID_subject_alt_name, NULL, NULL);
	size_t used = 0;
	for (int i = 0; i < sk_GENERAL_NAME_num(list); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(list, i);
		const ASN1_STRING *text = n->type == GEN_DNS ? n->d.dNSName : NULL;
		if (text == NULL || used + (size_t)ASN1_STRING_length(text) + 2 > sizeof c->names)
			continue;
		int put = snprintf(c->names + used, sizeof c->names - used, "%s%.*s", used > 0 ? " " : "", ASN1_STRING_length(text), (const char *)ASN1_STRING_get0_data(text));
		used += put > 0 ? (size_t)put : 0;
	}
	GENERAL_NAMES_free(list);
	for (char *p = c->names; *p != '\0'; p++)
		*p = *p > ' ' && *p < 0x7f ? *p : *p == ' ' ? ' ' : '?';
}

static void read_cert(struct cert *c)
{
	struct buffer text;
	int seconds = 0;
	c->crt = cert_read_file(c->file, &text, c->fault, sizeof c->fault);
	buffer_free(&text);
	if (c->crt == NULL)
		return;
	take_names(c);
	(void)ASN1_TIME_diff(&c->days, &seconds, NULL, X509_get0_notAfter(c->crt));
	c->days -= seconds < 0 ? 1 : 0;
	c->self_signed = X509_self_signed(c->crt, 0) == 1;
	c->key = cert_read_key(c->key_file, c->fault, sizeof c->fault);
	if (c->key != NULL && X509_check_private_key(c->crt, c->key) != 1)
		(void)snprintf(c->fault, sizeof c->fault, "%s: not the key of %s", c->key_file, c->file);
	ERR_clear_error();
}

void cert_free(struct cert *c)
{
	X509_free(c->crt);
	EVP_PKEY_free(c->key);
	c->crt = NULL;
	c->key = NULL;
}

int cert_each(const struct cert_request *r, int (*take)(void *, const struct cert *), void *context)
{
	struct pair_files f;
	int status = 0;
	for (struct pair_walk w = {0}; status == 0 && server_pair_next(r->server, &w, &f);) {
		struct cert c = {.days = 0};
		(void)snprintf(c.name, sizeof c.name, "%.*s", SPAN_ARG(f.name));
		server_pair_path(r->server, &f, r->cli.dir, "crt", c.file);
		server_pair_path(r->server, &f, r->cli.dir, "key", c.key_file);
		read_cert(&c);
		status = take(context, &c);
		cert_free(&c);
	}
	return status;
}

bool cert_covers(const struct cert *c, const char *name)
{
	const char *of = strncmp(name, "*.", 2) == 0 ? name + 1 : name;
	if (of != name) { /* as it stands in the certificate */
		struct span rest = span_of(c->names), word;
		while ((word = span_word(&rest, " ")).n > 0)
			if (span_case_is(word, name))
				return true;
		return false;
	}
	return X509_check_host(c->crt, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
}

/* ---- show and check ---- */

static void format_date(const ASN1_TIME *t, char out[40])
{
	struct tm tm;
	out[0] = '\0';
	if (ASN1_TIME_to_tm(t, &tm) == 1)
		(void)strftime(out, 40, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void put_member(struct buffer *b, const char *key, const char *text)
{
	buffer_printf(b, ",\"%s\":", key);
	buffer_put_json(b, span_of(text));
}

static int show(void *context, const struct cert *c)
{
	const struct cert_request *r = context;
	char from[40] = "", to[40] = "", issuer[300] = "";
	struct buffer b;
	buffer_init(&b, 16 * 1024);
	if (c->crt != NULL) {
		format_date(X509_get0_notBefore(c->crt), from);
		format_date(X509_get0_notAfter(c->crt), to);
		(void)X509_NAME_oneline(X509_get_issuer_name(c->crt), issuer, sizeof issuer);
	}
	const EVP_PKEY *key = c->crt == NULL ? NULL : X509_get0_pubkey(c->crt);
	if (r->json) {
		buffer_puts(&b, "{\"server\":");
		buffer_put_json(&b, span_of(r->server->name));
		put_member(&b, "for", c->name);
		put_member(&b, "file", c->file);
		put_member(&b, "key_file", c->key_file);
		put_member(&b, "names", c->names);
		put_member(&b, "key", key == NULL ? "" : cert_kind(key));
		buffer_printf(&b, ",\"bits\":%d,\"self_signed\":%s", key == NULL ? 0 : EVP_PKEY_get_bits(key), c->self_signed ? "true" : "false");
		put_member(&b, "issuer", issuer);
		put_member(&b, "from", from);
		put_member(&b, "until", to);
		buffer_printf(&b, ",\"days\":%d", c->days);
		put_member(&b, "fault", c->fault);
		buffer_puts(&b, "}\n");
	} else {
		buffer_printf(&b, "%s%s%s\n", c->file, c->name[0] == '\0' ? "" : " for ", c->name);
		if (key != NULL)
			buffer_printf(&b, "  names   %s\n  key     %s, %d bits\n  issuer  %s\n  valid   %s to %s, %d days\n", c->names, cert_kind(key), EVP_PKEY_get_bits(key),
				c->self_signed ? "itself" : issuer, from, to, c->days);
		if (c->fault[0] != '\0')
			buffer_printf(&b, "  fault   %s\n", c->fault);
	}
	(void)fwrite(buffer_cstr(&b), 1, b.n, stdout);
	buffer_free(&b);
	return 0;
}

struct checked {
	const struct cert_request *r;
	unsigned problems;
};

static void problem(struct checked *k, const struct cert *c, const char *what)
{
	struct buffer b;
	buffer_init(&b, 8192);
	if (k->r->json) {
		buffer_puts(&b, "{\"file\":");
		buffer_put_json(&b, span_of(c->file));
		put_member(&b, "problem", what);
		buffer_puts(&b, "}\n");
		(void)fwrite(buffer_cstr(&b), 1, b.n, stdout);
	} else {
		(void)printf("%s: %s\n", c->file, what);
	}
	buffer_free(&b);
	k->problems++;
}

static int check_one(void *context, const struct cert *c)
{
	struct checked *k = context;
	char text[400];
	const char *name = c->name[0] != '\0' ? c->name : k->r->server->p.fqdn;
	if (c->fault[0] != '\0')
		problem(k, c, c->fault);
	if (c->crt == NULL)
		return 0;
	const EVP_PKEY *key = X509_get0_pubkey(c->crt);
	if (c->days < 0)
		problem(k, c, "it has expired");
	else if (c->days < EXPIRY_DAYS) {
		(void)snprintf(text, sizeof text, "it expires in %d days", c->days);
		problem(k, c, text);
	}
	if (X509_cmp_current_time(X509_get0_notBefore(c->crt)) > 0)
		problem(k, c, "it is not valid yet");
	if (!cert_covers(c, name)) {
		(void)snprintf(text, sizeof text, "it is not for %s (%s)", name, c->name[0] != '\0' ? "tls_sni" : "fqdn");
		problem(k, c, text);
	}
	if (EVP_PKEY_is_a(key, "RSA") == 1 && EVP_PKEY_get_bits(key) < 2048)
		problem(k, c, "an RSA key of fewer than 2048 bits");
	return 0;
}

static int act_show(struct cert_request *r)
{
	return cert_each(r, show, r);
}

static int act_check(struct cert_request *r)
{
	struct checked k = {.r = r};
	(void)cert_each(r, check_one, &k);
	if (k.problems == 0 && !r->json)
		(void)printf("server %s: no problem found\n", r->server->name);
	return k.problems == 0 ? 0 : EX_DATAERR;
}

/* ---- the command line ---- */

static int run(struct cert_request *r)
{
	static const struct { const char *act; size_t least, most; int (*run)(struct cert_request *); } acts[] = {
		{"show", 0, 0, act_show}, {"check", 0, 0, act_check}, {"self-signed", 0, NAMES_MOST, cert_self_signed}, {"request", 0, NAMES_MOST, cert_request},
		{"install", 1, 2, cert_install}, {"renew", 0, 0, cert_renew}};
	for (size_t i = 0; r->act != NULL && i < COUNT_OF(acts); i++) {
		if (strcmp(r->act, acts[i].act) != 0 || r->n < acts[i].least || r->n > acts[i].most)
			continue;
		int status = cli_load(&r->cli);
		if (status != 0)
			return status;
		r->server = config_server(&r->cli.config, span_of(r->server_name));
		if (r->server == NULL)
			return cli_fail(&r->cli, EX_USAGE, "there is no server %s", r->server_name);
		if (r->server->p.tls == TLS_NONE)
			return cli_fail(&r->cli, EX_CONFIG, "server %s has tls = none", r->server_name);
		status = acts[i].run(r);
		return status == 0 && fflush(stdout) != 0 ? cli_fail(&r->cli, EX_IOERR, "standard output: %s", strerror(errno)) : status;
	}
	return cli_fail(&r->cli, EX_USAGE, "usage: %s", usage);
}

static int take_days(struct cert_request *r, const char *text)
{
	uint64_t days = 0;
	if (parse_u64(span_of(text), 36500, &days) != 0 || days == 0)
		return cli_fail(&r->cli, EX_USAGE, "--days %s: 1 to 36500", text);
	r->days = (long)days;
	return 0;
}

/* One option, or an argument; a sysexits code. */
static int take(struct cert_request *r, char **argv, int argc, int *i)
{
	const char *word = argv[*i];
	bool more = *i + 1 < argc;
	if (strcmp(word, "--json") == 0)
		r->json = true;
	else if (strcmp(word, "--force") == 0)
		r->force = true;
	else if (strcmp(word, "--reuse") == 0)
		r->reuse = true;
	else if (strcmp(word, "-c") == 0 && more)
		r->cli.dir = argv[++*i];
	else if (strcmp(word, "-s") == 0 && more)
		r->server_name = argv[++*i];
	else if (strcmp(word, "--key") == 0 && more)
		r->kind = argv[++*i];
	else if (strcmp(word, "--days") == 0 && more)
		return take_days(r, argv[++*i]);
	else if (word[0] == '-')
		return cli_fail(&r->cli, EX_USAGE, "%s: no such option; usage: %s", word, usage);
	else if (r->act == NULL)
		r->act = word;
	else if (r->n < NAMES_MOST)
		r->args[r->n++] = word;
	else
		return cli_fail(&r->cli, EX_USAGE, "more than %d names", NAMES_MOST);
	return 0;
}

int main(int argc, char **argv)
{
	struct cert_request r = {.cli = {.program = "horncert", .dir = "/etc/posthorn"}, .server_name = "default", .kind = "ec", .days = PAIR_DAYS};
	int status = 0;
	for (int i = 1; i < argc && status == 0; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			cli_help(usage, options, COUNT_OF(options));
			return 0;
		}
		status = take(&r, argv, argc, &i);
	}
	if (status == 0)
		status = run(&r);
	config_free(&r.cli.config);
	return status;
}
