/* From Postfix's TLS and SASL to Posthorn's. */
#include "cmd/import/postfix.h"

#include <stdlib.h>
#include <string.h>

/* ---- to this server ---- */

static void translate_pairs(struct postfix *pf)
{
	static const char *const pairs[][2] = {{"smtpd_tls_cert_file", "smtpd_tls_key_file"}, {"smtpd_tls_eccert_file", "smtpd_tls_eckey_file"}};
	struct buffer crts, keys;
	buffer_init(&crts, 4096);
	buffer_init(&keys, 4096);
	for (size_t i = 0; i < COUNT_OF(pairs); i++) {
		const char *crt = pf_get(pf, pairs[i][0]), *key = pf_get(pf, pairs[i][1]);
		if (crt[0] == '\0')
			continue;
		buffer_printf(&crts, "%s%s", crts.n > 0 ? ", " : "", crt);
		buffer_printf(&keys, "%s%s", keys.n > 0 ? ", " : "", key);
	}
	struct span rest = span_of(pf_get(pf, "smtpd_tls_chain_files")), word;
	if (rest.n > 0) { /* each with its key and its certificates: it goes before the others */
		buffer_clear(&crts);
		buffer_clear(&keys);
		while ((word = pf_word(&rest)).n > 0) {
			buffer_printf(&crts, "%s%.*s", crts.n > 0 ? ", " : "", SPAN_ARG(word));
			buffer_printf(&keys, "%s%.*s", keys.n > 0 ? ", " : "", SPAN_ARG(word));
		}
	}
	const char *what = pf_what(pf, pf_is_set(pf, "smtpd_tls_chain_files") ? "smtpd_tls_chain_files" : pf_is_set(pf, "smtpd_tls_cert_file") ? "smtpd_tls_cert_file" : "smtpd_tls_eccert_file");
	if (crts.n > 0 && import_set(&pf->im, what, "default", NULL, "tls_certificate_file", buffer_cstr(&crts)) && import_set(&pf->im, what, "default", NULL, "tls_key_file", buffer_cstr(&keys)))
		import_say(&pf->im, IMPORT_TAKEN, what, "tls_certificate_file = %s, tls_key_file = %s", buffer_cstr(&crts), buffer_cstr(&keys));
	buffer_free(&crts);
	buffer_free(&keys);
}

static void translate_server_level(struct postfix *pf)
{
	const char *level = pf_get(pf, "smtpd_tls_security_level"), *name = "smtpd_tls_security_level";
	if (level[0] == '\0' && pf_is_yes(pf, "smtpd_enforce_tls"))
		level = "encrypt", name = "smtpd_enforce_tls";
	else if (level[0] == '\0' && pf_is_yes(pf, "smtpd_use_tls"))
		level = "may", name = "smtpd_use_tls";
	const char *ours = strcmp(level, "encrypt") == 0 ? "require" : "opportunistic";
	if (level[0] == '\0' || strcmp(level, "none") == 0)
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, name), "STARTTLS is offered all the same, with a certificate that is made at the first start where none is set; tls = none takes it away");
	else
		import_take(&pf->im, pf_what(pf, name), "default", "tls", ours);
}

/* The lowest version that "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1", ">=TLSv1.2" and the like leave. */
static void translate_versions(struct postfix *pf, const char *name)
{
	const char *value = pf_get(pf, name);
	if (!pf_is_set(pf, name))
		return;
	bool only_13 = strstr(value, ">=TLSv1.3") != NULL || strstr(value, "!TLSv1.2") != NULL || strcmp(value, "TLSv1.3") == 0;
	if (only_13)
		import_take(&pf->im, pf_what(pf, name), "default", "tls_minimum", "TLSv1.3");
	else
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, name), "tls_minimum = TLSv1.2 is the lowest that there is, in both directions");
}

bool pf_has_logins(struct postfix *pf)
{
	bool logins = pf_is_yes(pf, "smtpd_sasl_auth_enable");
	for (size_t i = 0; i < pf->services_n; i++)
		for (size_t k = 0; k < pf->services[i].options_n; k++)
			logins = logins || (strcmp(pf->services[i].options[k].name, "smtpd_sasl_auth_enable") == 0 && strcmp(pf->services[i].options[k].value, "yes") == 0);
	return logins;
}

static void translate_logins(struct postfix *pf)
{
	bool logins = pf_has_logins(pf);
	const char *type = pf_get(pf, "smtpd_sasl_type");
	if (!logins) {
		import_take(&pf->im, pf_what(pf, "smtpd_sasl_auth_enable"), "default", "auth_methods", "anonymous");
	} else {
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "smtpd_sasl_auth_enable"), "who may log in is not taken over from %s: auth_backend = file and hornpasswd(8), pam, sql or ldap", type);
		if (pf_is_set(pf, "smtpd_tls_auth_only") && !pf_is_yes(pf, "smtpd_tls_auth_only"))
			import_take(&pf->im, pf_what(pf, "smtpd_tls_auth_only"), "default", "auth_basic_cleartext", "yes");
	}
	if (pf_is_yes(pf, "smtpd_tls_auth_only"))
		import_say(&pf->im, IMPORT_TAKEN, pf_what(pf, "smtpd_tls_auth_only"), "auth_basic_cleartext = no, always the default");
	if (pf_is_set(pf, "smtpd_sasl_type"))
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "smtpd_sasl_type"), "auth_backend says who knows the passwords");
	if (pf_is_set(pf, "smtpd_sasl_security_options"))
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "smtpd_sasl_security_options"), "auth_methods and auth_basic_cleartext say what is offered");
	if (pf_is_set(pf, "smtpd_tls_CAfile") && pf_get(pf, "smtpd_tls_CAfile")[0] != '\0' && (pf_is_yes(pf, "smtpd_tls_ask_ccert") || pf_is_yes(pf, "smtpd_tls_req_ccert")))
		import_take(&pf->im, pf_what(pf, "smtpd_tls_CAfile"), "default", "tls_client_ca_file", pf_get(pf, "smtpd_tls_CAfile"));
	else if (pf_is_set(pf, "smtpd_tls_CAfile"))
		import_say(&pf->im, IMPORT_TAKEN, pf_what(pf, "smtpd_tls_CAfile"), "nothing is needed: clients are not asked for certificates");
}

/* ---- to others ---- */

struct level { const char *theirs, *tls, *dane; };
static const struct level *find_level(struct span name)
{
	static const struct level levels[] = {{"none", "none", "no"}, {"may", "opportunistic", "no"}, {"encrypt", "require", "no"}, {"dane", "opportunistic", "yes"}, {"dane-only", "dane-only", "yes"},
		{"verify", "verify", "no"}, {"secure", "verify", "no"}, {"fingerprint", NULL, NULL}};
	for (size_t i = 0; i < COUNT_OF(levels); i++)
		if (span_is(name, levels[i].theirs))
			return &levels[i];
	return NULL;
}

static void take_level(struct postfix *pf, const char *what, const char *domain, struct span name)
{
	const struct level *l = find_level(name);
	if (l == NULL || l->tls == NULL) {
		import_say(&pf->im, IMPORT_NONE, what, "no level %.*s", SPAN_ARG(name));
		return;
	}
	if (!import_set(&pf->im, what, "default", domain, "outbound_tls", l->tls) || !import_set(&pf->im, what, "default", domain, "outbound_dane", l->dane))
		return;
	import_say(&pf->im, IMPORT_TAKEN, what, "outbound_tls = %s, outbound_dane = %s", l->tls, l->dane);
}

/* "example.org encrypt" of smtp_tls_policy_maps. */
static void take_policy(void *context, struct span key, struct span value)
{
	struct postfix *pf = context;
	const char *what = arena_printf(&pf->arena, "smtp_tls_policy_maps: %.*s %.*s", SPAN_ARG(key), SPAN_ARG(value));
	bool below = key.n > 1 && key.at[0] == '.';
	const char *domain = below ? arena_printf(&pf->arena, "*%.*s", SPAN_ARG(key)) : arena_dup(&pf->arena, key);
	struct span level = span_word(&value, " \t");
	if (what == NULL || domain == NULL)
		return;
	const char *type = import_value(&pf->im, "default", domain, "type");
	if (strchr(domain, '[') != NULL || strchr(domain, ':') != NULL || strchr(domain, '.') == NULL || (type != NULL && strcmp(type, "remote") != 0)) {
		import_say(&pf->im, IMPORT_DIFFERS, what, "levels are for remote domains, not for hosts: outbound_tls of the domain, or of the server for its smart_host");
		return;
	}
	if (import_set(&pf->im, what, "default", domain, "type", "remote"))
		take_level(pf, what, domain, level);
	if (span_trim(value).n > 0)
		import_say(&pf->im, IMPORT_DIFFERS, what, "%.*s: attributes are not taken over", SPAN_ARG(span_trim(value)));
}

static void translate_client(struct postfix *pf)
{
	const char *level = pf_get(pf, "smtp_tls_security_level"), *name = "smtp_tls_security_level";
	struct span rest = span_of(pf_get(pf, "smtp_tls_policy_maps"));
	if (level[0] == '\0' && pf_is_yes(pf, "smtp_enforce_tls"))
		level = "encrypt", name = "smtp_enforce_tls";
	else if (level[0] == '\0' && pf_is_yes(pf, "smtp_use_tls"))
		level = "may", name = "smtp_use_tls";
	if (level[0] != '\0')
		take_level(pf, pf_what(pf, name), NULL, span_of(level));
	else
		import_say(&pf->im, IMPORT_DIFFERS, "smtp_tls_security_level (Postfix's default: none)", "outbound_tls = opportunistic: TLS is used where it can be had");
	if (pf_get(pf, "smtp_tls_CAfile")[0] != '\0')
		import_take(&pf->im, pf_what(pf, "smtp_tls_CAfile"), "default", "outbound_tls_ca_file", pf_get(pf, "smtp_tls_CAfile"));
	if (pf_is_set(pf, "smtp_tls_CApath"))
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "smtp_tls_CApath"), "outbound_tls_ca_file is one file, the system's by default");
	for (struct span word; (word = pf_word(&rest)).n > 0;)
		(void)pf_table(pf, pf_what(pf, "smtp_tls_policy_maps"), word, take_policy, pf);
}

/* ---- logins at other servers ---- */

struct login {
	struct postfix *pf;
	bool found;
};

/* "[relay.example]:587 user:password" of smtp_sasl_password_maps. */
static void take_login(void *context, struct span key, struct span value)
{
	struct login *l = context;
	struct postfix *pf = l->pf;
	const char *host = import_value(&pf->im, "default", NULL, "smart_host");
	const char *what = arena_printf(&pf->arena, "smtp_sasl_password_maps: %.*s", SPAN_ARG(key));
	struct span password = value, user = span_until(&password, ':');
	const char *name = arena_dup(&pf->arena, user);
	if (what == NULL || name == NULL)
		return;
	if (host == NULL || !span_case_is(key, host) || l->found) {
		import_say(&pf->im, IMPORT_DIFFERS, what, "not the relayhost's: a remote domain has outbound_auth, outbound_user and outbound_password_file of its own");
		return;
	}
	l->found = true;
	const char *path = import_secret(&pf->im, "smart_host.password", password);
	if (import_set(&pf->im, what, "default", NULL, "outbound_auth", "basic") && import_set(&pf->im, what, "default", NULL, "outbound_user", name) &&
		import_set(&pf->im, what, "default", NULL, "outbound_password_file", path))
		import_say(&pf->im, IMPORT_TAKEN, what, "outbound_auth = basic, outbound_user = %s, outbound_password_file = %s", name, path);
}

static void translate_out_logins(struct postfix *pf)
{
	struct login l = {.pf = pf};
	struct span rest = span_of(pf_get(pf, "smtp_sasl_password_maps"));
	if (pf_is_set(pf, "smtp_sasl_auth_enable"))
		import_say(&pf->im, IMPORT_TAKEN, pf_what(pf, "smtp_sasl_auth_enable"), "in what is said of smtp_sasl_password_maps");
	if (!pf_is_yes(pf, "smtp_sasl_auth_enable"))
		return;
	for (struct span word; (word = pf_word(&rest)).n > 0;)
		(void)pf_table(pf, pf_what(pf, "smtp_sasl_password_maps"), word, take_login, &l);
	if (pf_is_set(pf, "smtp_sasl_security_options"))
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "smtp_sasl_security_options"), "outbound_auth_cleartext = no: PLAIN and LOGIN only under TLS");
	(void)pf_get(pf, "smtp_sasl_tls_security_options");
	if (pf_is_set(pf, "smtp_sasl_mechanism_filter"))
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "smtp_sasl_mechanism_filter"), "the best that the peer offers is used");
}

void pf_translate_tls(struct postfix *pf)
{
	translate_pairs(pf);
	translate_server_level(pf);
	translate_versions(pf, "smtpd_tls_mandatory_protocols");
	translate_versions(pf, "smtpd_tls_protocols");
	translate_versions(pf, "smtp_tls_mandatory_protocols");
	translate_versions(pf, "smtp_tls_protocols");
	translate_logins(pf);
	translate_client(pf);
	translate_out_logins(pf);
}
