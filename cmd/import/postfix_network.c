/* From Postfix's names, addresses and services to Posthorn's. */
#include "cmd/import/postfix.h"

#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

/* The name that local addresses get, from myorigin or the file that it names; NULL: a row says why not. */
static const char *find_origin(struct postfix *pf)
{
	const char *origin = pf_get(pf, "myorigin");
	struct buffer b;
	if (origin[0] != '/')
		return origin;
	buffer_init(&b, 4096);
	int error = read_file_at(AT_FDCWD, origin, 4096, &b);
	struct span rest = buffer_span(&b);
	const char *name = arena_dup(&pf->arena, span_trim(span_until(&rest, '\n')));
	buffer_free(&b);
	if (error == 0 && name != NULL && name[0] != '\0')
		return name;
	import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "myorigin"), "%s: %s; myhostname is taken", origin, error == 0 ? "empty" : strerror(error));
	return pf_get(pf, "myhostname");
}

/* Is it one of the domains that are delivered here? */
static bool is_destination(struct postfix *pf, const char *name)
{
	struct span rest = span_of(pf_get(pf, "mydestination"));
	for (struct span word; (word = pf_word(&rest)).n > 0;)
		if (span_case_is(word, name))
			return true;
	return false;
}

/* default_domain is delivered here: a myorigin whose mail is elsewhere must not become it. */
static void translate_names(struct postfix *pf)
{
	const char *host = pf_get(pf, "myhostname"), *origin = find_origin(pf);
	import_take(&pf->im, pf_what(pf, "myhostname"), "default", "fqdn", host);
	if (is_destination(pf, origin)) {
		import_take(&pf->im, pf_what(pf, "myorigin"), "default", "default_domain", origin);
		return;
	}
	import_take(&pf->im, pf_what(pf, "myhostname"), "default", "default_domain", host);
	if (strcasecmp(origin, host) != 0)
		import_take(&pf->im, pf_what(pf, "myorigin"), "default", "masquerade_domain", origin);
	if (!is_destination(pf, host))
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "mydestination"), "mail for default_domain, %s, is delivered here, not sent on", host);
}

/* ---- master.cf ---- */

/* The hosts that a service without an address of its own listens on, as Posthorn writes them. */
static void put_hosts(struct postfix *pf, struct buffer *b, const char *port)
{
	struct span rest = span_of(pf_get(pf, "inet_interfaces")), word;
	const char *protocols = pf_get(pf, "inet_protocols");
	bool v4 = strcmp(protocols, "ipv6") != 0, v6 = strcmp(protocols, "ipv4") != 0;
	while ((word = pf_word(&rest)).n > 0) {
		bool loopback = span_is(word, "loopback-only") || span_is(word, "localhost");
		if (span_is(word, "all")) {
			buffer_printf(b, "%s%s:%s", b->n > 0 ? ", " : "", v4 && v6 ? "*" : v4 ? "0.0.0.0" : "[::]", port);
		} else if (loopback) {
			if (v4)
				buffer_printf(b, "%s127.0.0.1:%s", b->n > 0 ? ", " : "", port);
			if (v6)
				buffer_printf(b, "%s[::1]:%s", b->n > 0 ? ", " : "", port);
		} else {
			bool six = memchr(word.at, ':', word.n) != NULL && word.at[0] != '[';
			buffer_printf(b, "%s%s%.*s%s:%s", b->n > 0 ? ", " : "", six ? "[" : "", SPAN_ARG(word), six ? "]" : "", port);
		}
	}
}

static const char *option_of(const struct pf_service *s, const char *name)
{
	const char *value = NULL;
	for (size_t i = 0; i < s->options_n; i++)
		if (strcmp(s->options[i].name, name) == 0)
			value = s->options[i].value;
	return value;
}

static bool is_set_to(const struct pf_service *s, const char *name, const char *value)
{
	const char *is = option_of(s, name);
	return is != NULL && strcmp(is, value) == 0;
}

static const char *port_of(struct postfix *pf, const char *name)
{
	uint64_t port;
	if (parse_u64(span_of(name), 65535, &port) == 0)
		return name;
	const struct servent *e = getservbyname(name, "tcp");
	const char *known = strcmp(name, "smtp") == 0 ? "25" : strcmp(name, "submission") == 0 ? "587" : strcmp(name, "smtps") == 0 || strcmp(name, "submissions") == 0 ? "465" : NULL;
	return known != NULL ? known : e == NULL ? NULL : arena_printf(&pf->arena, "%u", (unsigned)(uint16_t)(e->s_port >> 8 | e->s_port << 8));
}

/* What each kind of Posthorn's listeners does by itself. */
static bool holds_already(const struct pf_service *s, const struct pf_setting *o, bool tls, bool submission)
{
	static const char *const everywhere[] = {"syslog_name", "smtpd_reject_unlisted_recipient", "milter_macro_daemon_name", "smtpd_tls_auth_only", "smtpd_sasl_type", "smtpd_sasl_path",
		"smtpd_sasl_security_options"};
	for (size_t i = 0; i < COUNT_OF(everywhere); i++)
		if (strcmp(o->name, everywhere[i]) == 0)
			return true;
	if (tls && strcmp(o->name, "smtpd_tls_wrappermode") == 0)
		return true;
	if (strcmp(o->name, "smtpd_sasl_auth_enable") == 0 && strcmp(o->value, "yes") == 0)
		return true;
	bool restricts = strncmp(o->name, "smtpd_", 6) == 0 && strstr(o->name, "_restrictions") != NULL;
	bool only_logins = strstr(o->value, "permit_sasl_authenticated") != NULL && strstr(o->value, "reject") != NULL;
	if (restricts && (o->value[0] == '\0' || (submission && only_logins)))
		return true;
	return submission && (is_set_to(s, "smtpd_tls_security_level", "encrypt") && strcmp(o->name, "smtpd_tls_security_level") == 0);
}

static void take_smtpd(struct postfix *pf, const struct pf_service *s, struct buffer kinds[LISTEN_KINDS])
{
	struct span rest = span_of(s->name), host = {"", 0};
	const char *what = arena_printf(&pf->arena, "master.cf: %s %s %s", s->name, s->type, s->command);
	const char *colon = strrchr(s->name, ':');
	if (colon != NULL) {
		host = (struct span){s->name, (size_t)(colon - s->name)};
		rest = span_of(colon + 1);
	}
	const char *name = arena_dup(&pf->arena, rest);
	const char *port = name == NULL ? NULL : port_of(pf, name);
	bool tls = is_set_to(s, "smtpd_tls_wrappermode", "yes") || (port != NULL && strcmp(port, "465") == 0);
	bool submission = !tls && ((port != NULL && strcmp(port, "587") == 0) || is_set_to(s, "smtpd_tls_security_level", "encrypt"));
	if (submission && what != NULL && !pf_has_logins(pf)) { /* Posthorn has it for logins alone */
		import_say(&pf->im, IMPORT_DIFFERS, what, "nobody can log in: it is an address as the others, where TLS is not a must");
		submission = false;
	}
	struct buffer *to = &kinds[tls ? LISTEN_TLS : submission ? LISTEN_SUBMISSION : LISTEN_PLAIN];
	if (what == NULL || port == NULL) {
		import_say(&pf->im, IMPORT_NONE, what == NULL ? s->name : what, "no port of this name is known here");
		return;
	}
	if (host.n > 0)
		buffer_printf(to, "%s%.*s:%s", to->n > 0 ? ", " : "", SPAN_ARG(host), port);
	else
		put_hosts(pf, to, port);
	import_say(&pf->im, IMPORT_TAKEN, what, "an address of %s", listen_parameter(tls ? LISTEN_TLS : submission ? LISTEN_SUBMISSION : LISTEN_PLAIN));
	for (size_t i = 0; i < s->options_n; i++)
		if (strcmp(s->options[i].name, "smtpd_upstream_proxy_protocol") == 0 && strcmp(s->options[i].value, "haproxy") == 0)
			import_say(&pf->im, IMPORT_DIFFERS, what, "smtpd_upstream_proxy_protocol: name the front ends' addresses in proxy_clients");
		else if (!holds_already(s, &s->options[i], tls, submission || tls))
			import_say(&pf->im, IMPORT_DIFFERS, what, "-o %s=%.200s: a parameter holds for all addresses of a server; another server may have its own", s->options[i].name, s->options[i].value);
}

/* Services that Postfix has always, and whose work others of Posthorn's processes do. */
static bool is_usual(const struct pf_service *s)
{
	static const char *const usual[] = {"pickup", "cleanup", "qmgr", "oqmgr", "tlsmgr", "trivial-rewrite", "bounce", "verify", "flush", "proxymap", "smtp", "relay", "showq", "error", "local",
		"virtual", "lmtp", "anvil", "scache", "postlogd", "discard", "dnsblog", "tlsproxy", "spawn"};
	for (size_t i = 0; i < COUNT_OF(usual); i++)
		if (strcmp(s->command, usual[i]) == 0 && (strcmp(s->command, "spawn") != 0 && strcmp(s->command, "dnsblog") != 0))
			return true;
	return false;
}

static void translate_services(struct postfix *pf)
{
	struct buffer kinds[LISTEN_KINDS];
	for (size_t i = 0; i < LISTEN_KINDS; i++)
		buffer_init(&kinds[i], 16 * 1024);
	for (size_t i = 0; i < pf->services_n; i++) {
		const struct pf_service *s = &pf->services[i];
		const char *what = arena_printf(&pf->arena, "master.cf: %s %s %s", s->name, s->type, s->command);
		if (what == NULL)
			continue;
		if (strcmp(s->type, "inet") == 0 && (strcmp(s->command, "smtpd") == 0 || strcmp(s->command, "postscreen") == 0))
			take_smtpd(pf, s, kinds);
		else if (strcmp(s->command, "pipe") == 0)
			import_say(&pf->im, IMPORT_NONE, what, "local_delivery = pipe:COMMAND runs a command, for a server or a local domain: %.300s", s->arguments);
		else if (!is_usual(s) && strcmp(s->type, "pass") != 0)
			import_say(&pf->im, IMPORT_NONE, what, "no such service");
		else if (s->options_n > 0)
			import_say(&pf->im, IMPORT_DIFFERS, what, "-o %s=%.200s: parameters are not set per process", s->options[0].name, s->options[0].value);
	}
	for (size_t i = 0; i < LISTEN_KINDS; i++) {
		const char *name = listen_parameter((enum listen_kind)i);
		if (kinds[i].n > 0)
			import_take(&pf->im, pf_what(pf, "inet_interfaces"), "default", name, buffer_cstr(&kinds[i]));
		buffer_free(&kinds[i]);
	}
	(void)pf_get(pf, "inet_protocols");
	if (pf_is_set(pf, "inet_protocols"))
		import_say(&pf->im, IMPORT_TAKEN, pf_what(pf, "inet_protocols"), "in the addresses of listen; mail leaves by what the machine has");
}

/* ---- where mail goes ---- */

static void translate_relayhost(struct postfix *pf)
{
	struct buffer b;
	const char *host = pf_get(pf, "relayhost"), *fallback = pf_get(pf, "smtp_fallback_relay");
	buffer_init(&b, 16 * 1024);
	struct span rest = span_of(host);
	for (struct span word; (word = pf_word(&rest)).n > 0;)
		buffer_printf(&b, "%s%.*s", b.n > 0 ? ", " : "", SPAN_ARG(word));
	if (b.n > 0)
		import_take(&pf->im, pf_what(pf, "relayhost"), "default", "smart_host", buffer_cstr(&b));
	else if (pf_is_set(pf, "relayhost"))
		import_say(&pf->im, IMPORT_TAKEN, pf_what(pf, "relayhost"), "empty: smart_host is not set");
	(void)pf_get(pf, "fallback_relay");
	if (fallback[0] != '\0' && b.n == 0) {
		import_take(&pf->im, pf_what(pf, "smtp_fallback_relay"), "default", "smart_host", fallback);
		import_take(&pf->im, pf_what(pf, "smtp_fallback_relay"), "default", "smart_host_direct_first", "yes");
	} else if (fallback[0] != '\0') {
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "smtp_fallback_relay"), "smart_host may name several hosts, in order of preference");
	}
	buffer_free(&b);
}

void pf_translate_network(struct postfix *pf)
{
	translate_names(pf);
	translate_services(pf);
	translate_relayhost(pf);
}
