/* From properties of the metabase to Posthorn's parameters. */
#include "cmd/import/iis.h"
#include "smtp/smtp.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum how { COUNT, PLAIN, BYTES, SECONDS, MINUTES, TEXT, FLAG, RETRIES, LISTEN, STARTUP, SMART, SMART_TYPE, METHODS, TLS, TLS_OUT, RELAY_AUTH, PATH, NONE };

static const struct rule { const char *name; enum how how; const char *ours, *note; } rules[] = {
#define IIS(name, how, ours, note) {name, how, ours, note},
#include "cmd/import/iis_params.def"
#undef IIS
};

struct property {
	struct iis *x;
	const struct iis_server *s;
	const struct rule *rule;
	const char *value, *what;
};

static void take(const struct property *p, const char *name, const char *value)
{
	import_take(&p->x->im, p->what, p->s->name, name, value);
}

static bool is_true(const char *value)
{
	return strcasecmp(value, "TRUE") == 0 || strcmp(value, "1") == 0 || strcmp(value, "-1") == 0;
}

static void take_number(const struct property *p)
{
	static const char *const suffix[] = {[COUNT] = "", [PLAIN] = "", [BYTES] = "B", [SECONDS] = "s", [MINUTES] = "m"};
	uint64_t n;
	char text[40];
	if (parse_u64(span_of(p->value), UINT32_MAX, &n) != 0 && strcmp(p->value, "-1") != 0) {
		import_say(&p->x->im, IMPORT_DIFFERS, p->what, "not a number: %s stays as it is", p->rule->ours);
		return;
	}
	bool unlimited = strcmp(p->value, "-1") == 0 || ((p->rule->how == COUNT || p->rule->how == BYTES) && (n == 0 || n >= 2000000000)); /* 2,000,000,000 is what IIS writes for none */
	(void)snprintf(text, sizeof text, "%llu%s", (unsigned long long)n, suffix[p->rule->how]);
	take(p, p->rule->ours, unlimited ? "unlimited" : text);
}

/* "15,30,60,240": minutes */
static void take_retries(const struct property *p)
{
	static const char *const names[] = {"retry_first", "retry_second", "retry_third", "retry_subsequent"};
	struct span rest = span_of(p->value);
	char text[40];
	uint64_t n;
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		struct span one = span_trim(span_until(&rest, ','));
		if (parse_u64(one, 1000000, &n) != 0)
			return;
		(void)snprintf(text, sizeof text, "%llum", (unsigned long long)n);
		take(p, names[i], text);
	}
}

/* "192.0.2.1:25:" each, the address empty for all of them. */
static void take_bindings(const struct property *p)
{
	struct buffer b;
	struct span rest = span_of(p->value);
	buffer_init(&b, 16 * 1024);
	for (struct span word; (word = span_word(&rest, " \t\r\n,")).n > 0;) {
		struct span port = word, address = span_until(&port, ':');
		port = span_until(&port, ':');
		buffer_printf(&b, "%s%.*s:%.*s", b.n > 0 ? ", " : "", address.n > 0 ? (int)address.n : 1, address.n > 0 ? address.at : "*", SPAN_ARG(port));
	}
	take(p, "listen", buffer_cstr(&b));
	buffer_free(&b);
}

/* "AuthAnonymous | AuthBasic | AuthNTLM", or 1, 2, 4. */
static void take_methods(const struct property *p)
{
	uint64_t n = 0;
	char text[60];
	(void)!parse_u64(span_of(p->value), UINT32_MAX, &n);
	bool anonymous = (n & 1) != 0 || strcasestr(p->value, "AuthAnonymous") != NULL, basic = (n & 2) != 0 || strcasestr(p->value, "AuthBasic") != NULL,
		integrated = (n & 4) != 0 || strcasestr(p->value, "AuthNTLM") != NULL;
	(void)snprintf(text, sizeof text, "%s%s%s", anonymous ? "anonymous " : "", basic ? "basic " : "", integrated ? "integrated" : "");
	size_t length = strlen(text);
	if (length > 0 && text[length - 1] == ' ')
		text[length - 1] = '\0';
	take(p, "auth_methods", text);
	if (basic)
		import_say(&p->x->im, IMPORT_DIFFERS, p->what, "who may log in are Windows accounts: auth_backend = file and hornpasswd(8), pam, sql or ldap");
}

static void take_tls(const struct property *p)
{
	uint64_t n = 0;
	(void)!parse_u64(span_of(p->value), UINT32_MAX, &n);
	bool must = (n & 8) != 0 || strcasestr(p->value, "AccessSSL") != NULL;
	take(p, "tls", must ? "require" : "opportunistic");
}

/* Names stand bare, addresses in brackets; a name there is a host or a domain with MX. */
static void take_smart_host(const struct property *p)
{
	if (p->value[0] != '\0')
		take(p, "smart_host", p->value);
}

static void apply(const struct property *p)
{
	struct import *im = &p->x->im;
	switch (p->rule->how) {
	case COUNT: case PLAIN: case BYTES: case SECONDS: case MINUTES: take_number(p); return;
	case TEXT:
		if (p->value[0] != '\0')
			take(p, p->rule->ours, p->value);
		return;
	case FLAG: case RELAY_AUTH: take(p, p->rule->ours, is_true(p->value) ? "yes" : "no"); return;
	case RETRIES: take_retries(p); return;
	case LISTEN: take_bindings(p); return;
	case STARTUP: take(p, p->rule->ours, is_true(p->value) ? "automatic" : "manual"); return;
	case SMART: take_smart_host(p); return;
	case SMART_TYPE: take(p, p->rule->ours, strcmp(p->value, "1") == 0 ? "yes" : "no"); return;
	case METHODS: take_methods(p); return;
	case TLS: take_tls(p); return;
	case TLS_OUT: take(p, p->rule->ours, is_true(p->value) ? "require" : "opportunistic"); return;
	case PATH: import_say(im, IMPORT_DIFFERS, p->what, "%s stays what it is by default, below the server's home_directory", p->rule->ours); return;
	case NONE: import_say(im, IMPORT_NONE, p->what, "%s", p->rule->note); return;
	}
}

static const struct rule *find_rule(const char *name)
{
	for (size_t i = 0; i < COUNT_OF(rules); i++)
		if (strcasecmp(rules[i].name, name) == 0)
			return &rules[i];
	return NULL;
}

/* Secrets are not repeated in a report. */
static const char *what_of(struct iis *x, const struct iis_server *s, const char *name, const char *value)
{
	bool secret = strcasestr(name, "Password") != NULL;
	const char *text = arena_printf(&x->im.arena, "%s: %s = %.200s", s->name, name, secret ? "..." : value);
	return text == NULL ? name : text;
}

static void tell_unknown(struct iis *x, const struct iis_server *s)
{
	static const char *const quiet[] = {"Location", "KeyType", "ServerState", "ServerSize", "ServerListenBacklog", "AdminACLBin"};
	for (const xmlAttr *a = s->node->properties; a != NULL; a = a->next) {
		const char *name = (const char *)a->name;
		bool known = find_rule(name) != NULL;
		for (size_t i = 0; i < COUNT_OF(quiet); i++)
			known = known || strcasecmp(name, quiet[i]) == 0;
		const char *value = known ? NULL : iis_get(x, s->node, name);
		if (value != NULL)
			import_say(&x->im, IMPORT_NONE, what_of(x, s, name, value), "no such thing");
	}
}

void iis_translate(struct iis *x, const struct iis_server *s)
{
	for (size_t i = 0; i < COUNT_OF(rules); i++) {
		const char *value = iis_get(x, s->node, rules[i].name);
		if (value == NULL)
			continue;
		struct property p = {.x = x, .s = s, .rule = &rules[i], .value = value, .what = what_of(x, s, rules[i].name, value)};
		apply(&p);
	}
	tell_unknown(x, s);
}

/* ---- domains ---- */

static bool says(const char *action, const char *word)
{
	return action != NULL && strcasestr(action, word) != NULL;
}

static void take_remote(struct iis *x, const struct iis_server *s, const char *what, const char *domain, const char *route, const char *action)
{
	struct import *im = &x->im;
	if (!import_set(im, what, s->name, domain, "type", "remote"))
		return;
	if (route[0] != '\0' && !import_set(im, what, s->name, domain, "route", route))
		return;
	if (says(action, "HELO"))
		(void)import_set(im, what, s->name, domain, "ehlo", "no");
	if (says(action, "ETRN"))
		(void)import_set(im, what, s->name, domain, "etrn", "yes");
	import_say(im, IMPORT_TAKEN, what, "a remote domain%s%s", route[0] != '\0' ? ", route = " : "", route);
}

/* What the numbers of RouteAction mean is not documented well enough to go by; it is told, not guessed: mail for a domain that is not in
 * the configuration is refused, one of the wrong type would swallow it. */
void iis_translate_domain(struct iis *x, const struct iis_server *s, const xmlNode *node, const char *domain)
{
	const char *action = iis_own(x, node, "RouteAction"), *route = iis_own(x, node, "RouteActionString"), *main = iis_get(x, s->node, "DefaultDomain");
	const char *what = arena_printf(&x->im.arena, "%s: domain %s (RouteAction %s)", s->name, domain, action == NULL ? "not said" : action);
	if (what == NULL || !domain_is_valid(strncmp(domain, "*.", 2) == 0 ? span_of(domain + 2) : span_of(domain), true)) {
		import_say(&x->im, IMPORT_NONE, what == NULL ? domain : what, "no name of a domain");
		return;
	}
	if (main != NULL && strcasecmp(domain, main) == 0)
		import_say(&x->im, IMPORT_TAKEN, what, "the default domain");
	else if (route != NULL && route[0] != '\0')
		take_remote(x, s, what, domain, route, action);
	else if (says(action, "ALIAS")) {
		if (import_set(&x->im, what, s->name, domain, "type", "alias"))
			import_say(&x->im, IMPORT_TAKEN, what, "an alias domain");
	} else if (iis_own(x, node, "CSideEtrnDomains") != NULL || says(action, "SMTP"))
		take_remote(x, s, what, domain, "", action);
	else
		import_say(&x->im, IMPORT_DIFFERS, what, "alias or remote? Not added: hornconf -s %s domain add %s type=alias (or type=remote)", s->name, domain);
}
