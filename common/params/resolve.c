/* From settings to values: defaults, $name, the system's own names, checks across parameters. */
#include "params/params.h"
#include "smtp/smtp.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int param_set(const struct param_row *row, const char *text, bool test_mode, void *params, struct arena *arena, struct complaint *why);
int config_resolve(struct config *c, bool ask_system, struct complaint *why);

struct scope_view {
	struct config *config;
	struct server *server;
	struct domain *domain;
	bool test_mode;
	struct complaint *why;
};

static bool is_set(const struct setting *list, const struct param_row *row)
{
	while (list != NULL && list->row != row)
		list = list->next;
	return list != NULL;
}

/* The unexpanded text that $name stands for, NULL: no such name. */
static const char *find_text(const struct scope_view *v, struct span name)
{
	const struct param_row *row;
	if (v->server != NULL && span_is(name, "server_name"))
		return v->server->name;
	if (v->domain != NULL && (row = param_find(name, SCOPE_DOMAIN)) != NULL && (row->inherits == INHERITS_NOT || is_set(v->domain->settings, row)))
		return setting_text(v->domain->settings, row);
	if (v->server != NULL && (row = param_find(name, SCOPE_SERVER)) != NULL)
		return setting_text(v->server->settings, row);
	row = param_find(name, SCOPE_SERVICE);
	return row == NULL ? NULL : setting_text(v->config->settings, row);
}

static size_t name_length(const char *p)
{
	size_t n = 0;
	while (islower((unsigned char)p[n]) || isdigit((unsigned char)p[n]) || p[n] == '_')
		n++;
	return n;
}

static int expand(const struct scope_view *v, const struct param_row *row, const char *text, struct buffer *out, unsigned depth)
{
	for (const char *p = text; *p != '\0'; p++) {
		if (*p != '$' || p[1] == '$') { /* $$ is a dollar sign: commands need some */
			buffer_putc(out, *p);
			p += *p == '$';
			continue;
		}
		struct span name = {p + 1, name_length(p + 1)};
		const char *value = find_text(v, name);
		if (value == NULL || depth > 8) {
			complain(v->why, v->why->file, v->why->line, "%s: $%.*s %s", row->name, SPAN_ARG(name),
				value == NULL ? "is not a parameter" : "refers to itself");
			return EINVAL;
		}
		int error = expand(v, row, value, out, depth + 1);
		if (error != 0)
			return error;
		p += name.n;
	}
	return buffer_ok(out) ? 0 : ENOMEM;
}

static int set_row(const struct scope_view *v, const struct param_row *row, const struct setting *list, void *params)
{
	struct buffer text;
	const char *file = v->why->file;
	unsigned line = 0;
	char kept[sizeof v->why->file];
	(void)snprintf(kept, sizeof kept, "%s", file);
	for (const struct setting *s = list; s != NULL; s = s->next) {
		if (s->row == row) {
			line = s->line;
			(void)snprintf(kept, sizeof kept, "%s", s->file);
		}
	}
	memcpy(v->why->file, kept, sizeof kept);
	v->why->line = line;
	buffer_init(&text, 65536);
	int error = expand(v, row, setting_text(list, row), &text, 0);
	if (error == 0)
		error = param_set(row, buffer_cstr(&text), v->test_mode, params, &v->config->arena, v->why);
	buffer_free(&text);
	return error;
}

/* What a domain does not say holds as for its server. */
static void inherit(const struct scope_view *v, const struct param_row *row)
{
	if (v->domain == NULL)
		return;
	const struct param_row *above = param_find(span_of(row->name), SCOPE_SERVER);
	size_t size = row->kind <= KIND_WORD ? sizeof(int64_t) : sizeof(const char *);
	memcpy((char *)&v->domain->p + row->offset, (const char *)&v->server->p + above->offset, size);
}

static int check_own(const struct scope_view *v, const struct param_row *row)
{
	enum domain_type needed = row->inherits == INHERITS_OUTBOUND ? DOMAIN_REMOTE : DOMAIN_LOCAL;
	if (v->domain == NULL)
		return 0;
	v->domain->has_own = v->domain->has_own || row->inherits == INHERITS_OUTBOUND;
	if (v->domain->p.type == (int64_t)needed)
		return 0;
	complain(v->why, v->domain->file, v->domain->line, "[domain %s]: %s needs type = %s", v->domain->name, row->name, needed == DOMAIN_REMOTE ? "remote" : "local");
	return EINVAL;
}

static int set_scope(const struct scope_view *v, enum param_scope scope, const struct setting *list, void *params)
{
	for (size_t i = 0; i < param_rows_n; i++) {
		const struct param_row *row = &param_rows[i];
		if (row->scope != scope)
			continue;
		if (row->inherits != INHERITS_NOT && !is_set(list, row)) {
			inherit(v, row);
			continue;
		}
		if (scope == SCOPE_DOMAIN && row->inherits == INHERITS_NOT && row->kind == KIND_WORD && setting_text(list, row)[0] == '\0') {
			complain(v->why, v->domain->file, v->domain->line, "[domain %s]: type is required: alias, remote or local", v->domain->name);
			return EINVAL;
		}
		int error = set_row(v, row, list, params);
		if (error == 0 && row->inherits != INHERITS_NOT)
			error = check_own(v, row);
		if (error != 0)
			return error;
	}
	return 0;
}

static const char *first_line_of(struct arena *a, const char *path)
{
	char text[300];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
	if (fd >= 0)
		(void)close(fd);
	if (n <= 0)
		return NULL;
	struct span rest = {text, (size_t)n};
	struct span line = span_trim(span_until(&rest, '\n'));
	return domain_is_valid(line, false) ? arena_dup(a, line) : NULL;
}

static void ask_system_names(struct config *c, struct server *s)
{
	char host[256] = "localhost";
	(void)gethostname(host, sizeof host - 1);
	if (!domain_is_valid(span_of(host), false))
		(void)snprintf(host, sizeof host, "localhost");
	if (s->p.fqdn[0] == '\0')
		s->p.fqdn = arena_dup(&c->arena, span_of(host));
	if (s->p.default_domain[0] == '\0')
		s->p.default_domain = first_line_of(&c->arena, "/etc/mailname");
	if (s->p.default_domain == NULL) {
		const char *dot = strchr(s->p.fqdn == NULL ? "" : s->p.fqdn, '.');
		s->p.default_domain = dot == NULL ? "localdomain" : arena_dup(&c->arena, span_of(dot + 1));
	}
}

static size_t words_in(const char *text)
{
	size_t n = 0;
	for (struct span rest = span_of(text); span_word(&rest, " \t,").n > 0; n++)
		;
	return n;
}

static bool sets(const struct setting *list, const char *name)
{
	for (; list != NULL; list = list->next)
		if (strcmp(list->row->name, name) == 0)
			return true;
	return false;
}

/* What is wrong with the credentials of a server, or with a domain's own; NULL: nothing. */
static const char *credentials_fault(const struct outbound_params *p, const struct setting *own, const struct domain *d)
{
	bool complete = p->outbound_user[0] != '\0' && words_in(p->outbound_password_file) == 1;
	if (d == NULL)
		return p->outbound_auth != AUTH_ANONYMOUS && !complete ? "outbound_auth = basic or integrated needs outbound_user and one outbound_password_file" : NULL;
	if (!sets(own, "outbound_auth"))
		return sets(own, "outbound_user") || sets(own, "outbound_password_file") ? "outbound_user and outbound_password_file need an outbound_auth of the domain's own" : NULL;
	if (p->outbound_auth == AUTH_ANONYMOUS)
		return NULL;
	if (d->p.type != DOMAIN_REMOTE || d->p.route[0] == '\0')
		return "outbound_auth = basic or integrated needs type = remote and a route: the login goes to that only";
	return complete && sets(own, "outbound_user") && sets(own, "outbound_password_file") ? NULL : "outbound_auth = basic or integrated needs an outbound_user and an outbound_password_file of the domain's own";
}

static bool backend_is_valid(const char *text)
{
	struct span path = span_of(text), kind = span_until(&path, ':');
	return strcmp(text, "file") == 0 || strcmp(text, "sql") == 0 || strcmp(text, "ldap") == 0 || strcmp(text, "pam") == 0 || (span_is(kind, "dovecot") && path.n > 1 && path.n < UNIX_PATH_MOST && path.at[0] == '/');
}

static bool map_suits_backend(const struct server *s)
{
	const char *type = strcmp(s->p.auth_backend, "sql") == 0 ? "odbc" : strcmp(s->p.auth_backend, "ldap") == 0 ? "ldap" : "";
	struct span rest = span_of(s->p.auth_map), spec;
	bool bad;
	if (!map_spec_next(&rest, &spec, &bad))
		return type[0] == '\0';
	return span_is(span_until(&spec, ':'), type) && !map_spec_next(&rest, &spec, &bad);
}

static int check_domain(const struct server *s, struct domain *d, struct complaint *why)
{
	d->has_own = d->has_own || d->p.ehlo == 0;
	const char *fault = credentials_fault(&d->p.out, d->settings, d);
	if (d->p.route[0] != '\0' && d->p.type != DOMAIN_REMOTE)
		fault = "route needs type = remote";
	else if (d->p.ehlo == 0 && d->p.type != DOMAIN_REMOTE)
		fault = "ehlo needs type = remote";
	else if (d->p.atrn_users[0] != '\0' && (d->p.type != DOMAIN_REMOTE || d->p.etrn != 1))
		fault = "atrn_users needs type = remote and etrn = yes: only mail that is held can be taken";
	if (span_case_is(span_of(d->name), s->p.default_domain) && d->p.type == DOMAIN_REMOTE)
		complain(why, d->file, d->line, "[domain %s] is the default domain and cannot be remote", d->name);
	else if (fault != NULL)
		complain(why, d->file, d->line, "[domain %s]: %s", d->name, fault);
	else
		return 0;
	return EINVAL;
}

static int check_server(struct config *c, struct server *s, struct complaint *why)
{
	char file[300];
	(void)snprintf(file, sizeof file, "servers/%s.conf", s->name);
	if (s->p.session_size_limit < s->p.message_size_limit) {
		complain(why, file, 0, "session_size_limit is smaller than message_size_limit: at least as much is needed");
		return EINVAL;
	}
	if (words_in(s->p.tls_certificate_file) != words_in(s->p.tls_key_file)) {
		complain(why, file, 0, "tls_certificate_file and tls_key_file go together: as many keys as certificates, or none of both");
		return EINVAL;
	}
	if (s->p.listen_submission[0] != '\0' && (s->p.auth_methods & ~INT64_C(1)) == 0) {
		complain(why, file, 0, "listen_submission: nobody could send there, as auth_methods is anonymous alone: add basic");
		return EINVAL;
	}
	if ((s->p.listen_submission[0] != '\0' || s->p.listen_tls[0] != '\0') && s->p.tls == 1) {
		complain(why, file, 0, "listen_tls and listen_submission need TLS: tls = none does not go with them");
		return EINVAL;
	}
	if (s->p.cluster == 1 && s->p.startup == STARTUP_AUTOMATIC) {
		complain(why, file, 0, "cluster = yes: the cluster manager starts the server on one node: set startup = manual");
		return EINVAL;
	}
	const char *fault = credentials_fault(&s->p.out, s->settings, NULL);
	if (fault == NULL && !backend_is_valid(s->p.auth_backend))
		fault = "auth_backend: write file, pam, sql, ldap or dovecot:/SOCKET";
	if (fault == NULL && !map_suits_backend(s))
		fault = "auth_backend = sql needs auth_map = odbc:FILE, ldap needs auth_map = ldap:FILE, and no other has one";
	if (fault != NULL) {
		complain(why, file, 0, "%s", fault);
		return EINVAL;
	}
	for (size_t i = 0; i < s->domains_n; i++)
		if (check_domain(s, &s->domains[i], why) != 0)
			return EINVAL;
	return c->arena.failed ? ENOMEM : 0;
}

static int same_listener(const struct config *c, size_t one, size_t other, const struct listen_walk *w, const struct endpoint *e, struct complaint *why)
{
	char file[300];
	struct buffer text;
	buffer_init(&text, 100);
	endpoint_format(&text, e);
	(void)snprintf(file, sizeof file, "servers/%s.conf", c->servers[one].name);
	complain(why, file, 0, "%s: %s is named by server %s and by server %s", listen_parameter(w->kind), buffer_cstr(&text), c->servers[other].name, c->servers[one].name);
	buffer_free(&text);
	return EADDRINUSE;
}

/* Each endpoint against all that come before it. */
static int check_listeners(const struct config *c, struct complaint *why)
{
	struct endpoint a, b;
	for (size_t i = 0; i < c->servers_n; i++) {
		size_t n = 0;
		for (struct listen_walk w = {0}; server_listen_next(&c->servers[i], &w, &a); n++) {
			for (size_t k = 0; k <= i; k++) {
				struct listen_walk others = {0};
				for (size_t m = 0; (k < i || m < n) && server_listen_next(&c->servers[k], &others, &b); m++)
					if (endpoint_same(&a, &b))
						return same_listener(c, i, k, &w, &a, why);
			}
		}
	}
	return 0;
}

/* What has been removed listens nowhere and does nothing. */
static int set_gone(const struct scope_view *v, struct server *s)
{
	int error = set_scope(v, SCOPE_SERVER, s->settings, &s->p);
	s->p.listen = s->p.listen_tls = s->p.listen_submission = "";
	s->p.tls = TLS_NONE;
	s->p.auth_methods = 1; /* anonymous */
	s->p.startup = STARTUP_DISABLED;
	s->p.fqdn = s->p.default_domain = "removed.invalid";
	return error;
}

/* A queue has one owner, and so has what picks files up. */
static int check_directories(const struct config *c, struct complaint *why)
{
	for (size_t i = 0; i < c->servers_n; i++) {
		const struct server *a = &c->servers[i];
		for (size_t k = 0; k < i; k++) {
			const struct server *b = &c->servers[k];
			bool queue = strcmp(a->p.queue_directory, b->p.queue_directory) == 0;
			if (a->gone || b->gone || (!queue && strcmp(a->p.pickup_directory, b->p.pickup_directory) != 0))
				continue;
			char file[300];
			(void)snprintf(file, sizeof file, "servers/%s.conf", a->name);
			complain(why, file, 0, "%s is server %s's too: each has its own", queue ? "queue_directory" : "pickup_directory", b->name);
			return EEXIST;
		}
	}
	return 0;
}

int config_resolve(struct config *c, bool ask_system, struct complaint *why)
{
	const struct param_row *mode = param_find(SPAN_LIT("test_mode"), SCOPE_SERVICE);
	struct scope_view v = {.config = c, .why = why};
	v.test_mode = strcmp(setting_text(c->settings, mode), "yes") == 0;
	int error = set_scope(&v, SCOPE_SERVICE, c->settings, &c->service);
	for (size_t i = 0; i < c->servers_n && error == 0; i++) {
		struct server *s = &c->servers[i];
		v.server = s;
		v.domain = NULL;
		if (s->gone) {
			error = set_gone(&v, s);
			continue;
		}
		error = set_scope(&v, SCOPE_SERVER, s->settings, &s->p);
		for (size_t k = 0; k < s->domains_n && error == 0; k++) {
			v.domain = &s->domains[k];
			error = set_scope(&v, SCOPE_DOMAIN, v.domain->settings, &v.domain->p);
		}
		if (error == 0 && ask_system)
			ask_system_names(c, s);
		if (error == 0)
			error = check_server(c, s, why);
	}
	if (error == 0)
		error = check_directories(c, why);
	return error == 0 ? check_listeners(c, why) : error;
}

struct warned {
	void (*say)(void *, const char *);
	void *context;
};

/* What a map needs and is not there, or is older than the text that it is made of: hornconf check looks at files. */
static void warn_of_map(const struct warned *w, const struct maps_place *place, struct span spec)
{
	char path[1200], source[1200], text[2600];
	struct stat made, of;
	struct span name = spec, type = span_until(&name, ':');
	map_spec_path(spec, path, sizeof path);
	(void)snprintf(source, sizeof source, "%.*s", SPAN_ARG(name));
	bool built = strcmp(path, source) != 0;
	const char *how = !built ? "" : strcmp(place->parameter, "alias_maps") == 0 ? ": newaliases makes it" : ": hornmap build makes it";
	text[0] = '\0';
	if (path[0] != '\0' && stat(path, &made) != 0)
		(void)snprintf(text, sizeof text, "%s: %s: %s%s; mail that needs it waits", place->parameter, path, strerror(errno), errno == ENOENT ? how : "");
	else if (path[0] != '\0' && built && stat(source, &of) == 0 && of.st_mtime > made.st_mtime)
		(void)snprintf(text, sizeof text, "%s: %s is newer than the %.*s table that is made of it%s", place->parameter, source, SPAN_ARG(type), how);
	if (text[0] != '\0')
		w->say(w->context, text);
}

static int warn_of_maps(void *context, const struct maps_place *place)
{
	struct span rest = span_of(place->texts), spec;
	bool bad;
	while (map_spec_next(&rest, &spec, &bad))
		warn_of_map(context, place, spec);
	return 0;
}

static bool lists_everybody(const char *clients)
{
	struct client_list list = {0};
	struct span bad;
	bool all = false;
	if (client_list_parse(span_of(clients), &list, &bad) != 0)
		return false;
	for (size_t i = 0; i < list.n; i++)
		all = all || list.masks[i].bits == 0 || (list.masks[i].bits == 96 && list.masks[i].addr[11] == 0xff);
	client_list_free(&list);
	return all;
}

static bool asks_tls(const struct server *s, int64_t level)
{
	bool found = s->p.out.outbound_tls == level;
	for (size_t i = 0; i < s->domains_n && !found; i++)
		found = s->domains[i].p.out.outbound_tls == level;
	return found;
}

static void warn_of_tls(const struct config *c, const struct server *s, const struct warned *w)
{
	char text[1400];
	if (asks_tls(s, OUT_TLS_DANE_ONLY) && c->service.dns_trust_anchor_file[0] == '\0') {
		(void)snprintf(text, sizeof text, "server %s: outbound_tls = dane-only and no dns_trust_anchor_file: nothing can be validated, that mail stays", s->name);
		w->say(w->context, text);
	}
	if (s->p.auth_mechanisms_extra != 0 && s->p.tls_client_ca_file[0] == '\0') {
		(void)snprintf(text, sizeof text, "server %s: auth_mechanisms_extra = external, and no tls_client_ca_file: clients are asked for no certificate, so nobody logs in by one", s->name);
		w->say(w->context, text);
	}
	if (asks_tls(s, OUT_TLS_VERIFY) && access(s->p.outbound_tls_ca_file, R_OK) != 0) {
		(void)snprintf(text, sizeof text, "server %s: outbound_tls = verify, and outbound_tls_ca_file %s: %s: nobody is trusted, that mail stays; the package ca-certificates has the usual ones",
			s->name, s->p.outbound_tls_ca_file, strerror(errno));
		w->say(w->context, text);
	}
}

void config_warnings(const struct config *c, void (*say)(void *, const char *), void *context)
{
	char text[400];
	struct warned w = {say, context};
	(void)config_each_maps(c, warn_of_maps, &w);
	if (c->service.test_mode == 1)
		say(context, "test_mode = yes: the lower bounds of times are lifted; never so on a live machine");
	for (size_t i = 0; i < c->servers_n; i++) {
		const struct server *s = &c->servers[i];
		if (s->p.relay == 1) {
			(void)snprintf(text, sizeof text, "server %s: relay = allow makes an open relay but for relay_exceptions", s->name);
			say(context, text);
		} else if (lists_everybody(s->p.relay_exceptions)) {
			(void)snprintf(text, sizeof text, "server %s: relay_exceptions hold every address: an open relay; name the clients that are meant", s->name);
			say(context, text);
		}
		if (s->p.access == 1 && s->p.access_exceptions[0] == '\0') {
			(void)snprintf(text, sizeof text, "server %s: access = deny and no access_exceptions: nobody can connect; name the clients that may", s->name);
			say(context, text);
		}
		warn_of_tls(c, s, &w);
		size_t spool_n = strlen(c->service.spool_directory);
		if (s->p.cluster == 1 && strncmp(s->p.home_directory, c->service.spool_directory, spool_n) == 0 && s->p.home_directory[spool_n] == '/') {
			(void)snprintf(text, sizeof text, "server %s: cluster = yes, but home_directory is below spool_directory, which is this node's own", s->name);
			say(context, text);
		}
		if (s->p.out.recipient_limit < 100) {
			(void)snprintf(text, sizeof text, "server %s: recipient_limit is below the 100 of RFC 5321 4.5.3.1.8", s->name);
			say(context, text);
		}
	}
}
