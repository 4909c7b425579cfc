/* From Postfix's domain classes, transports and mailboxes to Posthorn's domains. */
#include "cmd/import/postfix.h"
#include "smtp/smtp.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>

static bool is_domain(struct span s)
{
	return s.n > 0 && memchr(s.at, '.', s.n) != NULL && memchr(s.at, '@', s.n) == NULL && domain_is_valid(s, true);
}

static const char *default_domain(const struct postfix *pf)
{
	const char *name = import_value(&pf->im, "default", NULL, "default_domain");
	return name == NULL ? "" : name;
}

/* One more domain; an own one is a section of its own unless it is the default. */
static const char *add_domain(struct postfix *pf, const char *what, struct span name, const char *type)
{
	char ascii[256];
	const char *domain = domain_to_ascii(name, ascii) == 0 ? arena_dup(&pf->arena, span_of(ascii)) : arena_dup(&pf->arena, name);
	if (domain == NULL || strcasecmp(domain, default_domain(pf)) == 0)
		return NULL;
	const char *before = import_value(&pf->im, "default", domain, "type");
	if (before != NULL && strcmp(before, type) != 0) {
		import_say(&pf->im, IMPORT_DIFFERS, what, "%s is of type %s already", domain, before);
		return NULL;
	}
	return import_set(&pf->im, what, "default", domain, "type", type) ? domain : NULL;
}

struct job {
	struct postfix *pf;
	const char *what, *type;
	bool relayed; /* anybody may send there, and below it */
	unsigned n;
};

static void add_one(struct job *j, struct span name)
{
	if (name.n > 1 && name.at[0] == '.')
		name = span_from(name, 1);
	if (span_is(name, "localhost") || !is_domain(name) || span_ends_case(name, SPAN_LIT(".localdomain")) || (name.n > 10 && memcmp(name.at, "localhost.", 10) == 0))
		return;
	const char *domain = add_domain(j->pf, j->what, name, j->type);
	j->n += domain != NULL;
	if (domain == NULL || !j->relayed || !import_set(&j->pf->im, j->what, "default", domain, "relay", "yes"))
		return;
	const char *below = arena_printf(&j->pf->arena, "*.%s", domain);
	const char *all = below == NULL || strncmp(domain, "*.", 2) == 0 ? NULL : add_domain(j->pf, j->what, span_of(below), j->type);
	if (all != NULL)
		(void)import_set(&j->pf->im, j->what, "default", all, "relay", "yes");
}

static void add_key(void *context, struct span key, struct span value)
{
	(void)value;
	add_one(context, key);
}

/* A list of domains, files of them, and tables whose keys are domains.  Returns how many. */
static unsigned add_list(struct postfix *pf, const char *name, const char *type)
{
	struct job j = {.pf = pf, .what = pf_what(pf, name), .type = type, .relayed = strcmp(name, "relay_domains") == 0};
	struct span rest = span_of(pf_get(pf, name));
	for (struct span word; (word = pf_word(&rest)).n > 0;) {
		if (word.at[0] == '/') {
			const char *file = arena_printf(&pf->arena, "hash:%.*s", SPAN_ARG(word));
			(void)pf_table(pf, j.what, span_of(file), add_key, &j);
		} else if (memchr(word.at, ':', word.n) != NULL) {
			(void)pf_table(pf, j.what, word, add_key, &j);
		} else {
			add_one(&j, word);
		}
	}
	if (j.n > 0)
		import_say(&pf->im, IMPORT_TAKEN, j.what, "%u domain%s of type %s", j.n, j.n == 1 ? "" : "s", type);
	else if (pf_is_set(pf, name))
		import_say(&pf->im, IMPORT_TAKEN, j.what, "no domain beside default_domain");
	return j.n;
}

/* ---- transports ---- */

static void take_lmtp(struct postfix *pf, const char *what, const char *domain, struct span target)
{
	struct span path = target, kind = span_until(&path, ':');
	const char *text;
	if (span_is(kind, "unix") && path.n > 0 && path.at[0] != '/')
		text = arena_printf(&pf->arena, "lmtp:unix:%s/%.*s", pf_get(pf, "queue_directory"), SPAN_ARG(path));
	else if (span_is(kind, "unix"))
		text = arena_printf(&pf->arena, "lmtp:unix:%.*s", SPAN_ARG(path));
	else
		text = arena_printf(&pf->arena, "lmtp:%.*s", SPAN_ARG(span_is(kind, "inet") ? path : target));
	if (text != NULL && import_set(&pf->im, what, "default", domain, "local_delivery", text))
		import_say(&pf->im, IMPORT_TAKEN, what, "%s%slocal_delivery = %s", domain == NULL ? "" : domain, domain == NULL ? "" : ": ", text);
}

/* "example.org smtp:[mx.example.org]:26" of transport_maps, transport(5). */
static void take_transport(void *context, struct span key, struct span value)
{
	struct job *j = context;
	struct postfix *pf = j->pf;
	char name[300];
	struct span hop = value, kind = span_until(&hop, ':');
	const char *what = arena_printf(&pf->arena, "transport_maps: %.*s %.*s", SPAN_ARG(key), SPAN_ARG(value));
	bool below = key.n > 1 && key.at[0] == '.', smtp = span_is(kind, "smtp") || span_is(kind, "relay") || kind.n == 0;
	(void)snprintf(name, sizeof name, "%s%.*s", below ? "*" : "", SPAN_ARG(key));
	if (what == NULL)
		return;
	if (span_is(key, "*") && smtp && hop.n > 0) {
		import_take(&pf->im, what, "default", "smart_host", arena_dup(&pf->arena, hop));
		return;
	}
	if (!is_domain(below ? span_from(key, 1) : key)) {
		import_say(&pf->im, IMPORT_NONE, what, "routes go by domains");
		return;
	}
	if (span_is(kind, "lmtp")) {
		const char *domain = add_domain(pf, what, span_of(name), "local");
		if (domain != NULL || strcasecmp(name, default_domain(pf)) == 0)
			take_lmtp(pf, what, domain, hop);
	} else if (smtp) {
		const char *domain = add_domain(pf, what, span_of(name), "remote");
		if (domain != NULL && (hop.n == 0 || import_set(&pf->im, what, "default", domain, "route", arena_dup(&pf->arena, hop))))
			import_say(&pf->im, IMPORT_TAKEN, what, "a remote domain%s", hop.n == 0 ? "" : ", its route");
	} else {
		import_say(&pf->im, IMPORT_NONE, what, "no such transport");
	}
}

static void translate_transports(struct postfix *pf)
{
	struct job j = {.pf = pf, .what = pf_what(pf, "transport_maps")};
	struct span rest = span_of(pf_get(pf, "transport_maps"));
	for (struct span word; (word = pf_word(&rest)).n > 0;)
		if (pf_table(pf, j.what, word, take_transport, &j))
			import_say(&pf->im, IMPORT_TAKEN, j.what, "%.*s: its rows, each told for itself", SPAN_ARG(word));
}

static void translate_relay_domains(struct postfix *pf)
{
	add_list(pf, "relay_domains", "remote");
	if (pf_get(pf, "relay_recipient_maps")[0] != '\0' && pf_maps(pf, "relay_recipient_maps")[0] != '\0')
		import_take(&pf->im, pf_what(pf, "relay_recipient_maps"), "default", "relay_recipient_maps", pf_maps(pf, "relay_recipient_maps"));
}

/* ---- mailboxes ---- */

struct shapes {
	const char *fits; /* the pattern of every value so far */
	bool any, bad;
};

/* user@domain to path: which pattern made it? */
static void look_at_shape(void *context, struct span key, struct span value)
{
	static const char *const patterns[] = {"%d/%u/", "%d/%u/Maildir/", "%u/", "%d/%u", "%u"};
	struct shapes *s = context;
	struct span domain = key, user = span_until(&domain, '@');
	for (size_t i = 0; i < COUNT_OF(patterns); i++) {
		char made[600];
		size_t n = 0;
		for (const char *p = patterns[i]; *p != '\0' && n < sizeof made - 300; p++)
			n += (size_t)(*p != '%' ? snprintf(made + n, 2, "%c", *p) : *++p == 'd' ? snprintf(made + n, 256, "%.*s", SPAN_ARG(domain)) : snprintf(made + n, 256, "%.*s", SPAN_ARG(user)));
		if (span_is(value, made) && (s->fits == NULL || s->fits == patterns[i])) {
			s->fits = patterns[i];
			s->any = true;
			return;
		}
	}
	s->bad = true;
}

/* Delivery of virtual mailboxes by their path's pattern; false: there is none for all. */
static bool mailbox_pattern(struct postfix *pf, char delivery[20], char path[700])
{
	struct shapes s = {.fits = NULL};
	struct span rest = span_of(pf_get(pf, "virtual_mailbox_maps"));
	const char *base = pf_get(pf, "virtual_mailbox_base");
	for (struct span word; (word = pf_word(&rest)).n > 0;)
		if (!pf_table(pf, pf_what(pf, "virtual_mailbox_maps"), word, look_at_shape, &s))
			return false;
	if (!s.any || s.bad)
		return false;
	bool maildir = s.fits[strlen(s.fits) - 1] == '/';
	(void)snprintf(delivery, 20, "%s", maildir ? "maildir" : "mbox");
	(void)snprintf(path, 700, "%s/%s", base, s.fits);
	if (maildir)
		path[strlen(path) - 1] = '\0';
	return true;
}

static void translate_mailboxes(struct postfix *pf, const char *domain)
{
	char delivery[20], path[700];
	const char *what = pf_what(pf, "virtual_mailbox_maps"), *uid = pf_get(pf, "virtual_uid_maps");
	uint64_t number;
	if (!mailbox_pattern(pf, delivery, path)) {
		import_say(&pf->im, IMPORT_NONE, what, "%s: mailboxes whose paths follow no one pattern: maildir and mbox of the domain take %%u and %%d", domain);
		return;
	}
	if (import_set(&pf->im, what, "default", domain, "local_delivery", delivery) && import_set(&pf->im, what, "default", domain, delivery, path))
		import_say(&pf->im, IMPORT_TAKEN, what, "%s: %s = %s", domain, delivery, path);
	const char *maps = pf_maps(pf, "virtual_mailbox_maps");
	if (maps[0] != '\0')
		(void)import_set(&pf->im, what, "default", domain, "local_recipient_maps", maps);
	const struct passwd *pw = strncmp(uid, "static:", 7) == 0 && parse_u64(span_of(uid + 7), UINT32_MAX, &number) == 0 ? getpwuid((uid_t)number) : NULL;
	if (pw != NULL)
		(void)import_set(&pf->im, what, "default", domain, "mailbox_user", pw->pw_name);
	else
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "virtual_uid_maps"), "%s: mailbox_user names the one user that owns the mailboxes; set it", domain);
}

static void translate_virtual(struct postfix *pf)
{
	const char *transport = pf_get(pf, "virtual_transport");
	unsigned n = add_list(pf, "virtual_mailbox_domains", "local");
	struct span target = span_of(transport), kind = span_until(&target, ':');
	size_t before = pf->im.settings_n;
	for (size_t i = 0; n > 0 && i < before; i++) {
		struct import_setting s = pf->im.settings[i];
		if (s.domain == NULL || strcmp(s.name, "type") != 0 || strcmp(s.value, "local") != 0 || import_value(&pf->im, "default", s.domain, "local_delivery") != NULL)
			continue; /* the latter: transport_maps has said it */
		if (span_is(kind, "lmtp"))
			take_lmtp(pf, pf_what(pf, "virtual_transport"), s.domain, target);
		else if (span_is(kind, "virtual"))
			translate_mailboxes(pf, s.domain);
		else
			import_say(&pf->im, IMPORT_NONE, pf_what(pf, "virtual_transport"), "%s: set its local_delivery", s.domain);
		if (span_is(kind, "lmtp") && pf_get(pf, "virtual_mailbox_maps")[0] != '\0')
			(void)import_set(&pf->im, pf_what(pf, "virtual_mailbox_maps"), "default", s.domain, "local_recipient_maps", pf_maps(pf, "virtual_mailbox_maps"));
	}
	if (add_list(pf, "virtual_alias_domains", "alias") > 0)
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "virtual_alias_domains"), "users and aliases of this machine are known in these domains too, as in default_domain");
	if (pf_get(pf, "virtual_alias_maps")[0] != '\0' && pf_maps(pf, "virtual_alias_maps")[0] != '\0')
		import_take(&pf->im, pf_what(pf, "virtual_alias_maps"), "default", "virtual_alias_maps", pf_maps(pf, "virtual_alias_maps"));
	if (pf_is_set(pf, "virtual_alias_maps"))
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "virtual_alias_maps"), "only addresses of own domains are looked up");
	for (size_t i = 0; i < 4; i++) {
		static const char *const parts[] = {"virtual_gid_maps", "virtual_minimum_uid", "virtual_maps", "virtual_mailbox_base"};
		if (pf_is_set(pf, parts[i]))
			import_say(&pf->im, IMPORT_TAKEN, pf_what(pf, parts[i]), "in what is said of virtual_mailbox_maps and virtual_alias_maps");
	}
}

static void translate_local(struct postfix *pf)
{
	const char *home = pf_get(pf, "home_mailbox"), *command = pf_get(pf, "mailbox_command"), *transport = pf_get(pf, "mailbox_transport"), *spool = pf_get(pf, "mail_spool_directory");
	struct span target = span_of(transport[0] != '\0' ? transport : pf_get(pf, "local_transport")), kind = span_until(&target, ':');
	size_t n = strlen(home);
	bool maildir = n > 1 && home[n - 1] == '/';
	char path[600];
	if (span_is(kind, "lmtp")) {
		take_lmtp(pf, pf_what(pf, transport[0] != '\0' ? "mailbox_transport" : "local_transport"), NULL, target);
	} else if (transport[0] != '\0') {
		import_say(&pf->im, IMPORT_NONE, pf_what(pf, "mailbox_transport"), "local_delivery takes lmtp:, pipe:, maildir and mbox");
	} else if (command[0] != '\0') {
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "mailbox_command"), "local_delivery = pipe:COMMAND; its environment is told in posthorn-child(8)");
		import_take(&pf->im, pf_what(pf, "mailbox_command"), "default", "local_delivery", arena_printf(&pf->arena, "pipe:%s", command));
	} else if (n > 0) {
		(void)snprintf(path, sizeof path, "%.*s", (int)(maildir ? n - 1 : n), home);
		import_take(&pf->im, pf_what(pf, "home_mailbox"), "default", "local_delivery", maildir ? "maildir" : "mbox");
		import_take(&pf->im, pf_what(pf, "home_mailbox"), "default", maildir ? "maildir" : "mbox", path);
	} else {
		bool directory = strlen(spool) > 1 && spool[strlen(spool) - 1] == '/';
		(void)snprintf(path, sizeof path, "%.*s/%%u", (int)(strlen(spool) - directory), spool);
		import_take(&pf->im, pf_what(pf, "mail_spool_directory"), "default", "local_delivery", directory ? "maildir" : "mbox");
		import_take(&pf->im, pf_what(pf, "mail_spool_directory"), "default", directory ? "maildir" : "mbox", path);
	}
}

static void translate_users(struct postfix *pf)
{
	const char *delimiter = pf_get(pf, "recipient_delimiter"), *luser = pf_get(pf, "luser_relay");
	char first[2] = {delimiter[0], '\0'};
	import_take(&pf->im, pf_what(pf, "recipient_delimiter"), "default", "recipient_delimiter", first);
	if (delimiter[0] != '\0' && delimiter[1] != '\0')
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "recipient_delimiter"), "only %s is one", first);
	const char *aliases = pf_get(pf, "alias_maps")[0] == '\0' ? "" : pf_maps(pf, "alias_maps");
	if (aliases[0] != '\0')
		import_take(&pf->im, pf_what(pf, "alias_maps"), "default", "alias_maps", aliases);
	if (luser[0] != '\0' && strchr(luser, '$') == NULL)
		import_take(&pf->im, pf_what(pf, "luser_relay"), "default", "catch_all", luser);
	else if (luser[0] != '\0')
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "luser_relay"), "catch_all is one address");
	if (!pf_is_set(pf, "local_recipient_maps"))
		return;
	if (pf_get(pf, "local_recipient_maps")[0] == '\0')
		import_take(&pf->im, pf_what(pf, "local_recipient_maps"), "default", "recipient_check", "no");
	else
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "local_recipient_maps"), "users and aliases are known; local_recipient_maps names further ones");
}

void pf_translate_domains(struct postfix *pf)
{
	add_list(pf, "mydestination", "alias");
	translate_transports(pf);
	translate_relay_domains(pf);
	translate_virtual(pf);
	translate_local(pf);
	translate_users(pf);
}
