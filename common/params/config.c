#include "params/params.h"
#include "smtp/smtp.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int param_set(const struct param_row *row, const char *text, bool test_mode, void *params, struct arena *arena, struct complaint *why);

enum { FILE_LIMIT = 16 * 1024 * 1024 };

/* Where lines of the file being read go. */
struct reader {
	struct config *config;
	struct server *server; /* NULL: posthorn.conf */
	struct domain *domain; /* NULL: the top of the file */
	const char *file;
	struct complaint *why;
	bool lenient; /* what is unknown is passed over: an older build reads what a newer one wrote */
	const char *other; /* a file whose text is taken from here, NULL: none */
	struct span other_text;
};

static int refuse(struct reader *r, unsigned line, const char *format, struct span word, const char *near)
{
	char text[300];
	(void)snprintf(text, sizeof text, format, SPAN_ARG(word));
	if (near != NULL)
		complain(r->why, r->file, line, "%s; did you mean %s?", text, near);
	else
		complain(r->why, r->file, line, "%s", text);
	return EINVAL;
}

static enum param_scope scope_of(const struct reader *r)
{
	return r->domain != NULL ? SCOPE_DOMAIN : r->server != NULL ? SCOPE_SERVER : SCOPE_SERVICE;
}

static int take_setting(struct reader *r, unsigned line, struct span name, struct span value)
{
	struct arena *arena = &r->config->arena;
	const struct param_row *row = param_find(name, scope_of(r));
	if (row == NULL && r->lenient)
		return 0;
	if (row == NULL)
		return refuse(r, line, "unknown parameter '%.*s'", name, param_nearest(name, scope_of(r)));
	struct setting **list = r->domain != NULL ? &r->domain->settings : r->server != NULL ? &r->server->settings : &r->config->settings;
	for (struct setting *s = *list; s != NULL; s = s->next)
		if (s->row == row)
			return refuse(r, line, "'%.*s' is set twice", name, NULL);
	struct setting *s = arena_alloc(arena, sizeof *s);
	if (s == NULL)
		return ENOMEM;
	*s = (struct setting){.row = row, .text = arena_dup(arena, value), .file = arena_dup(arena, span_of(r->file)), .line = line, .next = *list};
	*list = s;
	return arena->failed ? ENOMEM : 0;
}

static bool domain_name_is_valid(struct span name)
{
	if (name.n > 2 && name.at[0] == '*' && name.at[1] == '.')
		return domain_is_valid((struct span){name.at + 2, name.n - 2}, false);
	return domain_is_valid(name, false);
}

static char *lower_copy(struct arena *a, struct span s)
{
	char *copy = arena_dup(a, s);
	for (char *p = copy; p != NULL && *p != '\0'; p++)
		*p = (char)tolower((unsigned char)*p);
	return copy;
}

static int begin_domain(struct reader *r, unsigned line, struct span name)
{
	struct server *s = r->server;
	if (s == NULL)
		return refuse(r, line, "section '%.*s': sections belong into a server's file", name, NULL);
	if (!domain_name_is_valid(name))
		return refuse(r, line, "'%.*s' is no domain name (a wildcard is *.example.org)", name, NULL);
	for (size_t i = 0; i < s->domains_n; i++)
		if (span_case_is(name, s->domains[i].name))
			return refuse(r, line, "domain '%.*s' is there twice", name, NULL);
	if ((s->domains_n & (s->domains_n + 1)) == 0 || s->domains == NULL) { /* grow at 0, 1, 3, 7, ... */
		struct domain *more = arena_alloc(&r->config->arena, (2 * s->domains_n + 1) * sizeof *more);
		if (more == NULL)
			return ENOMEM;
		if (s->domains_n > 0)
			memcpy(more, s->domains, s->domains_n * sizeof *more);
		s->domains = more;
	}
	r->domain = &s->domains[s->domains_n++];
	*r->domain = (struct domain){.name = lower_copy(&r->config->arena, name), .file = arena_dup(&r->config->arena, span_of(r->file)), .line = line};
	return r->config->arena.failed ? ENOMEM : 0;
}

static int take_section(struct reader *r, unsigned line, struct span text)
{
	struct span inner = text;
	if (text.n < 2 || text.at[text.n - 1] != ']')
		return refuse(r, line, "'%.*s': a section is [domain NAME]", text, NULL);
	inner.at++;
	inner.n -= 2;
	struct span kind = span_word(&inner, " \t");
	if (!span_is(kind, "domain"))
		return refuse(r, line, "'%.*s': a section is [domain NAME]", text, NULL);
	return begin_domain(r, line, span_trim(inner));
}

static int take_line(struct reader *r, unsigned line, struct span text)
{
	text = span_trim(text);
	if (text.n == 0)
		return 0;
	if (text.at[0] == '[')
		return take_section(r, line, text);
	struct span value = text;
	struct span name = span_until(&value, '=');
	if (name.n == text.n)
		return refuse(r, line, "'%.*s': write name = value", text, NULL);
	return take_setting(r, line, span_trim(name), span_trim(value));
}

/* Physical lines to logical ones: comments dropped, lines that start with a blank join the one before. */
static int read_lines(struct reader *r, struct span text)
{
	struct buffer logical;
	unsigned number = 0, first = 0;
	int error = 0;
	buffer_init(&logical, FILE_LIMIT);
	while (text.n > 0 && error == 0) {
		struct span line = span_until(&text, '\n');
		number++;
		if (line.n > 0 && line.at[line.n - 1] == '\r')
			line.n--;
		struct span bare = span_trim(line);
		if (bare.n == 0 || bare.at[0] == '#')
			continue;
		if (line.at[0] != ' ' && line.at[0] != '\t') {
			error = take_line(r, first, buffer_span(&logical));
			buffer_clear(&logical);
			first = number;
		} else if (logical.n == 0) {
			error = refuse(r, number, "'%.*s': a continuation line needs a line to continue", bare, NULL);
		} else {
			buffer_putc(&logical, ' ');
		}
		buffer_put_span(&logical, bare);
		if (!buffer_ok(&logical))
			error = ENOMEM;
	}
	if (error == 0)
		error = take_line(r, first, buffer_span(&logical));
	buffer_free(&logical);
	return error;
}

static int read_config_file(struct reader *r, int dir_fd, const char *name)
{
	struct buffer text;
	buffer_init(&text, FILE_LIMIT);
	bool given = r->other != NULL && strcmp(name, r->other) == 0;
	if (given)
		buffer_put_span(&text, r->other_text);
	int error = given ? 0 : read_file_at(dir_fd, name, FILE_LIMIT, &text);
	if (error != 0)
		complain(r->why, r->file, 0, "cannot read: %s", strerror(error));
	else if (text.n > 0 && memchr(text.at, '\0', text.n) != NULL)
		error = refuse(r, 1, "%.*sholds a NUL byte", (struct span){"", 0}, NULL);
	else
		error = read_lines(r, buffer_span(&text));
	buffer_free(&text);
	return error;
}

bool server_name_is_valid(struct span name)
{
	for (size_t i = 0; i < name.n; i++)
		if (!isalnum((unsigned char)name.at[i]) && name.at[i] != '-' && name.at[i] != '_')
			return false;
	return name.n > 0 && name.n <= 64;
}

static int add_server(struct config *c, struct span name)
{
	if ((c->servers_n & (c->servers_n + 1)) == 0) { /* grow at 0, 1, 3, 7, ... */
		struct server *more = arena_alloc(&c->arena, (2 * c->servers_n + 1) * sizeof *more);
		if (more == NULL)
			return ENOMEM;
		if (c->servers_n > 0)
			memcpy(more, c->servers, c->servers_n * sizeof *more);
		c->servers = more;
	}
	c->servers[c->servers_n++] = (struct server){.name = arena_dup(&c->arena, name)};
	return c->arena.failed ? ENOMEM : 0;
}

static int is_server_file(const struct dirent *d)
{
	struct span name = span_of(d->d_name);
	return name.n > 5 && span_ends_case(name, SPAN_LIT(".conf")) && server_name_is_valid((struct span){name.at, name.n - 5});
}

static int read_servers(const struct reader *all, struct config *c, int dir_fd, struct complaint *why)
{
	struct dirent **list = NULL;
	int n = scandirat(dir_fd, "servers", &list, is_server_file, alphasort), error = 0;
	if (n < 0) {
		complain(why, "servers", 0, "cannot read the directory: %s", strerror(errno));
		return errno;
	}
	for (int i = 0; i < n && error == 0; i++) {
		char file[300];
		struct span name = span_of(list[i]->d_name);
		(void)snprintf(file, sizeof file, "servers/%s", list[i]->d_name);
		error = add_server(c, (struct span){name.at, name.n - 5});
		struct reader r = {.config = c, .file = file, .why = why, .other = all->other, .other_text = all->other_text};
		if (error == 0) {
			r.server = &c->servers[c->servers_n - 1];
			error = read_config_file(&r, dir_fd, file);
		}
	}
	for (int i = 0; i < n; i++)
		free(list[i]);
	free(list);
	if (error == 0 && c->servers_n > SERVERS_MOST) {
		complain(why, "servers", 0, "%zu servers; %d is the most", c->servers_n, SERVERS_MOST);
		error = E2BIG;
	}
	if (error == 0 && c->servers_n == 0) {
		complain(why, "servers", 0, "no server is configured: hornconf server add makes one");
		error = ENOENT;
	}
	return error;
}

int config_resolve(struct config *c, bool ask_system, struct complaint *why);

int config_load(int dir_fd, struct config *out, struct complaint *why)
{
	return config_load_with(dir_fd, NULL, (struct span){"", 0}, out, why);
}

int config_load_with(int dir_fd, const char *file, struct span text, struct config *out, struct complaint *why)
{
	struct config c = {0};
	*why = (struct complaint){0};
	struct reader r = {.config = &c, .file = "posthorn.conf", .why = why, .other = file, .other_text = text};
	int error = read_config_file(&r, dir_fd, "posthorn.conf");
	if (error == 0)
		error = read_servers(&r, &c, dir_fd, why);
	if (error == 0)
		error = config_resolve(&c, true, why);
	if (error != 0) {
		if (why->reason[0] == '\0')
			complain(why, "posthorn.conf", 0, "%s", strerror(error));
		config_free(&c);
		return error;
	}
	*out = c;
	return 0;
}

/* Snapshot lines: "!server NAME" or "!gone NAME", then as in the files; no comments, no continuations. */
int config_parse_snapshot(struct span text, struct config *out, struct complaint *why)
{
	struct config c = {0};
	struct reader r = {.config = &c, .file = "snapshot", .why = why, .lenient = true};
	int error = 0;
	*why = (struct complaint){0};
	while (text.n > 0 && error == 0) {
		struct span line = span_until(&text, '\n');
		struct span word = line;
		if (line.n > 0 && line.at[0] == '!') {
			struct span kind = span_until(&word, ' ');
			error = add_server(&c, word);
			if (error == 0)
				c.servers[c.servers_n - 1].gone = span_is(kind, "!gone");
			r.server = error == 0 ? &c.servers[c.servers_n - 1] : NULL;
			r.domain = NULL;
			continue;
		}
		error = take_line(&r, 0, line);
	}
	if (error == 0)
		error = config_resolve(&c, false, why);
	if (error != 0)
		config_free(&c);
	else
		*out = c;
	return error;
}

static bool is_set(const struct setting *list, const struct param_row *row)
{
	while (list != NULL && list->row != row)
		list = list->next;
	return list != NULL;
}

/* The value is expanded already: a dollar sign in it is meant. */
static void put_escaped(struct buffer *b, const struct param_row *row, const void *params)
{
	struct buffer value;
	buffer_init(&value, 65536);
	param_format(&value, row, params);
	for (size_t i = 0; i < value.n; i++) {
		if (value.at[i] == '$')
			buffer_putc(b, '$');
		buffer_putc(b, value.at[i]);
	}
	b->failed = b->failed || !buffer_ok(&value);
	buffer_free(&value);
}

static void put_settings(struct buffer *b, enum param_scope scope, const struct setting *list, const void *params)
{
	for (size_t i = 0; i < param_rows_n; i++) {
		if (param_rows[i].scope != scope || (param_rows[i].inherits != INHERITS_NOT && !is_set(list, &param_rows[i])))
			continue;
		buffer_printf(b, "%s=", param_rows[i].name);
		put_escaped(b, &param_rows[i], params);
		buffer_putc(b, '\n');
	}
}

void config_put_snapshot(struct buffer *b, const struct config *c)
{
	put_settings(b, SCOPE_SERVICE, c->settings, &c->service);
	for (size_t i = 0; i < c->servers_n; i++) {
		const struct server *s = &c->servers[i];
		buffer_printf(b, "%s %s\n", s->gone ? "!gone" : "!server", s->name);
		if (s->gone)
			continue;
		put_settings(b, SCOPE_SERVER, s->settings, &s->p);
		for (size_t k = 0; k < s->domains_n; k++) {
			buffer_printf(b, "[domain %s]\n", s->domains[k].name);
			put_settings(b, SCOPE_DOMAIN, s->domains[k].settings, &s->domains[k].p);
		}
	}
}

void config_free(struct config *c)
{
	arena_free(&c->arena);
	*c = (struct config){0};
}

const struct outbound_params *outbound_of(const struct server *s, const struct domain *d)
{
	return d != NULL && d->p.type == DOMAIN_REMOTE ? &d->p.out : &s->p.out;
}

const struct local_params *local_of(const struct server *s, const struct domain *d)
{
	return d != NULL && d->p.type == DOMAIN_LOCAL ? &d->p.local : &s->p.local;
}

static bool runs_as_user(const struct delivery *d)
{
	return d->kind != DELIVERY_DROP && d->kind != DELIVERY_LMTP;
}

static bool uses_unix_lmtp(const struct delivery *d)
{
	return d->kind == DELIVERY_LMTP && d->argument.n > 5 && memcmp(d->argument.at, "unix:", 5) == 0;
}

/* Is there a server or local domain whose way of delivery is so? */
static bool delivers_somewhere(const struct config *c, bool (*so)(const struct delivery *))
{
	struct delivery how;
	for (size_t i = 0; i < c->servers_n; i++) {
		const struct server *s = &c->servers[i];
		if (delivery_parse(span_of(s->p.local.local_delivery), &how) == 0 && so(&how))
			return true;
		for (size_t k = 0; k < s->domains_n; k++)
			if (delivery_parse(span_of(local_of(s, &s->domains[k])->local_delivery), &how) == 0 && so(&how))
				return true;
	}
	return false;
}

bool config_runs_deliveries(const struct config *c)
{
	if (delivers_somewhere(c, runs_as_user))
		return true;
	for (size_t i = 0; i < c->servers_n; i++) {
		if (local_is_expanded(&c->servers[i].p.local))
			return true;
		for (size_t k = 0; k < c->servers[i].domains_n; k++)
			if (local_is_expanded(local_of(&c->servers[i], &c->servers[i].domains[k])))
				return true;
	}
	return false;
}

bool local_is_expanded(const struct local_params *p)
{
	return p->virtual_alias_maps[0] != '\0' || p->alias_maps[0] != '\0' || p->catch_all[0] != '\0';
}

static const char *text_at(const void *params, const struct param_row *row)
{
	const char *text;
	memcpy(&text, (const char *)params + row->offset, sizeof text);
	return text;
}

/* above: the server's parameters, for a domain; what it has from there is left out. */
static int each_of(const struct maps_place *p, enum param_scope scope, const void *params, const void *above, int (*take)(void *, const struct maps_place *), void *context)
{
	int error = 0;
	for (size_t i = 0; i < param_rows_n && error == 0; i++) {
		struct maps_place place = *p;
		if (param_rows[i].scope != scope || param_rows[i].kind != KIND_MAPS)
			continue;
		place.texts = text_at(params, &param_rows[i]);
		place.parameter = param_rows[i].name;
		bool inherited = above != NULL && text_at(above, param_find(span_of(place.parameter), SCOPE_SERVER)) == place.texts;
		if (place.texts[0] != '\0' && !inherited)
			error = take(context, &place);
	}
	return error;
}

int config_each_maps(const struct config *c, int (*take)(void *context, const struct maps_place *place), void *context)
{
	int error = 0;
	for (size_t i = 0; i < c->servers_n && error == 0; i++) {
		const struct server *s = &c->servers[i];
		error = each_of(&(struct maps_place){.server = s->name, .domain = ""}, SCOPE_SERVER, &s->p, NULL, take, context);
		for (size_t k = 0; k < s->domains_n && error == 0; k++)
			error = each_of(&(struct maps_place){.server = s->name, .domain = s->domains[k].name}, SCOPE_DOMAIN, &s->domains[k].p, &s->p, take, context);
	}
	return error;
}

static int is_there(void *context, const struct maps_place *place)
{
	(void)context;
	(void)place;
	return EEXIST;
}

static bool asks_who_exists(const struct local_params *p)
{
	struct delivery how;
	bool users = delivery_parse(span_of(p->local_delivery), &how) == 0 && runs_as_user(&how);
	return (p->recipient_check == 1 && users) || p->catch_all[0] != '\0';
}

bool config_uses_maps(const struct config *c)
{
	bool asks = config_each_maps(c, is_there, NULL) != 0;
	for (size_t i = 0; i < c->servers_n && !asks; i++) {
		asks = c->servers[i].p.operators[0] != '\0' || asks_who_exists(&c->servers[i].p.local);
		for (size_t k = 0; k < c->servers[i].domains_n && !asks; k++)
			asks = asks_who_exists(local_of(&c->servers[i], &c->servers[i].domains[k]));
	}
	return asks;
}

static bool is_readable(const char *path)
{
	return path[0] != '\0' && access(path, R_OK) == 0;
}

bool config_uses_gss(const struct config *c)
{
	enum { METHOD_INTEGRATED = 4, EXTRA_EXTERNAL = 1 };
	/* what was set by hand and is not there is gssd's to complain of */
	bool set = strcmp(c->service.auth_keytab_file, param_find(SPAN_LIT("auth_keytab_file"), SCOPE_SERVICE)->standard) != 0 || c->service.auth_ntlm_file[0] != '\0';
	bool keys = set || is_readable(c->service.auth_keytab_file), any = false;
	for (size_t i = 0; i < c->servers_n; i++) {
		const struct server_params *p = &c->servers[i].p;
		any = any || (keys && (p->auth_methods & METHOD_INTEGRATED) != 0) || (p->tls_client_ca_file[0] != '\0' && (p->auth_mechanisms_extra & EXTRA_EXTERNAL) != 0);
	}
	return any;
}

bool config_logs_in_integrated(const struct config *c)
{
	bool any = false;
	for (size_t i = 0; i < c->servers_n; i++) {
		any = any || c->servers[i].p.out.outbound_auth == AUTH_INTEGRATED;
		for (size_t k = 0; k < c->servers[i].domains_n; k++)
			any = any || c->servers[i].domains[k].p.out.outbound_auth == AUTH_INTEGRATED;
	}
	return any;
}

bool config_reports_tls(const struct config *c)
{
	bool any = false;
	for (size_t i = 0; i < c->servers_n; i++)
		any = any || c->servers[i].p.tls_report == TLS_REPORT_YES;
	return any;
}

bool config_uses_pam(const struct config *c)
{
	bool any = false;
	for (size_t i = 0; i < c->servers_n; i++)
		any = any || strcmp(c->servers[i].p.auth_backend, "pam") == 0;
	return any;
}

bool config_uses_unix_lmtp(const struct config *c)
{
	return delivers_somewhere(c, uses_unix_lmtp);
}

const struct domain *server_domain(const struct server *s, struct span name)
{
	for (size_t i = 0; i < s->domains_n; i++)
		if (span_case_is(name, s->domains[i].name))
			return &s->domains[i];
	return NULL;
}

struct server *config_server(const struct config *c, struct span name)
{
	for (size_t i = 0; i < c->servers_n; i++)
		if (span_is(name, c->servers[i].name))
			return &c->servers[i];
	return NULL;
}
