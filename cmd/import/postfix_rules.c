/* From Postfix's access rules to Posthorn's. */
#include "cmd/import/postfix.h"

#include <stdlib.h>
#include <string.h>

static const char *const lists[] = {"smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions", "smtpd_relay_restrictions", "smtpd_recipient_restrictions",
	"smtpd_end_of_data_restrictions"};

/* Words that Posthorn's own order of rules says as well (MISSION C5). */
static bool holds_already(struct span word)
{
	static const char *const words[] = {"permit_mynetworks", "permit_sasl_authenticated", "reject_unauth_destination", "defer_unauth_destination", "permit_auth_destination", "reject_unauth_pipelining",
		"reject_non_fqdn_sender", "reject_non_fqdn_recipient", "reject_unlisted_recipient", "reject_sender_login_mismatch", "reject_authenticated_sender_login_mismatch",
		"reject_invalid_helo_hostname", "permit", "reject", "defer"};
	for (size_t i = 0; i < COUNT_OF(words); i++)
		if (span_is(word, words[i]))
			return true;
	return false;
}

/* check_client_access TABLE and the like. */
static bool take_check(struct postfix *pf, const char *what, struct span word, struct span table)
{
	static const struct { const char *theirs, *ours; } checks[] = {{"check_client_access", "client_access_maps"}, {"check_sender_access", "sender_access_maps"}, {"check_recipient_access", "recipient_access_maps"}};
	char value[4096];
	for (size_t i = 0; i < COUNT_OF(checks); i++) {
		if (!span_is(word, checks[i].theirs))
			continue;
		struct span rest = table, kind = span_until(&rest, ':');
		if (span_is(kind, "cidr")) {
			import_say(&pf->im, IMPORT_DIFFERS, what, "%.*s %.*s: no tables of the kind cidr: access and access_exceptions take networks, and the keys of %s may be the leading parts of an address",
				SPAN_ARG(word), SPAN_ARG(table), checks[i].ours);
			return true;
		}
		const char *before = import_value(&pf->im, "default", NULL, checks[i].ours);
		(void)snprintf(value, sizeof value, "%s%s%.*s", before == NULL ? "" : before, before == NULL ? "" : ", ", SPAN_ARG(table));
		import_take(&pf->im, what, "default", checks[i].ours, value);
		return true;
	}
	return false;
}

static void translate_list(struct postfix *pf, const char *name)
{
	const char *what = pf_what(pf, name);
	struct span rest = span_of(pf_get(pf, name));
	bool all = true;
	for (struct span word; (word = pf_word(&rest)).n > 0;) {
		if (span_is(word, "reject") && strcmp(name, "smtpd_client_restrictions") == 0) {
			all = false;
			import_say(&pf->im, IMPORT_DIFFERS, what, "reject: who may connect is said by access = deny with access_exceptions");
		}
		if (holds_already(word))
			continue;
		bool takes_argument = (word.n > 6 && memcmp(word.at, "check_", 6) == 0) || (word.n > 10 && (memcmp(word.at, "reject_rbl", 10) == 0 || memcmp(word.at, "reject_rhs", 10) == 0));
		struct span argument = takes_argument ? pf_word(&rest) : (struct span){"", 0};
		all = false;
		if (!take_check(pf, what, word, argument))
			import_say(&pf->im, IMPORT_NONE, what, "%.*s%s%.*s", SPAN_ARG(word), argument.n > 0 ? " " : "", SPAN_ARG(argument));
	}
	if (all && pf_is_set(pf, name))
		import_say(&pf->im, IMPORT_TAKEN, what, "holds already: own domains, then remote ones as they say, logins, relay_exceptions");
}

/* May mynetworks, or logins, relay?  smtpd_relay_restrictions says it, smtpd_recipient_restrictions where that is empty; what stands
 * behind a refusal does not count. */
static bool permits(struct postfix *pf, const char *rule)
{
	static const char *const ends[] = {"reject_unauth_destination", "defer_unauth_destination", "reject", "defer"};
	const char *list = pf_get(pf, "smtpd_relay_restrictions");
	struct span rest = span_of(list[0] != '\0' ? list : pf_get(pf, "smtpd_recipient_restrictions"));
	for (struct span word; (word = pf_word(&rest)).n > 0;) {
		if (span_is(word, rule))
			return true;
		for (size_t i = 0; i < COUNT_OF(ends); i++)
			if (span_is(word, ends[i]))
				return false;
	}
	return false;
}

static void translate_networks(struct postfix *pf)
{
	const char *style = pf_get(pf, "mynetworks_style");
	const char *networks = pf_get(pf, "mynetworks"), *what = pf_what(pf, pf_is_set(pf, "mynetworks") ? "mynetworks" : "mynetworks_style");
	struct buffer b;
	if (!pf_is_set(pf, "mynetworks")) {
		networks = "127.0.0.0/8 [::1]/128";
		what = "mynetworks (Postfix's default)";
		if (strcmp(style, "subnet") == 0 || strcmp(style, "class") == 0)
			import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "mynetworks_style"), "the networks of this machine are not taken: name them in relay_exceptions");
	}
	buffer_init(&b, 64 * 1024);
	struct span rest = span_of(networks);
	for (struct span word; (word = pf_word(&rest)).n > 0;)
		if (word.at[0] == '!' || word.at[0] == '/' || (memchr(word.at, ':', word.n) != NULL && word.at[0] != '[' && memchr(word.at, '/', word.n) != NULL))
			import_say(&pf->im, IMPORT_NONE, what, "%.*s: only addresses and networks", SPAN_ARG(word));
		else
			buffer_printf(&b, "%s%.*s", b.n > 0 ? " " : "", SPAN_ARG(word));
	if (b.n > 0 && permits(pf, "permit_mynetworks"))
		import_take(&pf->im, what, "default", "relay_exceptions", buffer_cstr(&b));
	const char *exempt = pf_get(pf, "smtpd_client_event_limit_exceptions");
	if (strcmp(exempt, pf_get(pf, "mynetworks")) == 0 && b.n > 0)
		import_take(&pf->im, what, "default", "trusted_networks", buffer_cstr(&b));
	else if (pf_is_set(pf, "smtpd_client_event_limit_exceptions"))
		import_take(&pf->im, pf_what(pf, "smtpd_client_event_limit_exceptions"), "default", "trusted_networks", exempt);
	buffer_free(&b);
}

void pf_translate_rules(struct postfix *pf)
{
	translate_networks(pf);
	import_take(&pf->im, pf_what(pf, "smtpd_relay_restrictions"), "default", "relay_authenticated", permits(pf, "permit_sasl_authenticated") ? "yes" : "no");
	for (size_t i = 0; i < COUNT_OF(lists); i++)
		translate_list(pf, lists[i]);
	if (pf_is_set(pf, "default_privs"))
		import_take(&pf->im, pf_what(pf, "default_privs"), "default", "alias_user", pf_get(pf, "default_privs"));
}
