#include "cmd/hornconf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

int conf_check_setting(struct cli *c, enum param_scope scope, const char *setting, bool test_mode, const struct param_row **row, const char **value)
{
	struct span rest = span_of(setting);
	struct span name = span_trim(span_until(&rest, '='));
	struct complaint why = {.file = "command line"};
	if (strchr(setting, '=') == NULL)
		return cli_fail(c, EX_USAGE, "'%s': write name=value", setting);
	*row = param_find(name, scope);
	if (*row == NULL) {
		const char *near = param_nearest(name, scope);
		return cli_fail(c, EX_USAGE, "unknown parameter '%.*s'%s%s", SPAN_ARG(name), near == NULL ? "" : "; did you mean ", near == NULL ? "" : near);
	}
	*value = strchr(setting, '=') + 1;
	while (**value == ' ')
		(*value)++;
	if (param_check(*row, *value, test_mode, &why) != 0)
		return cli_fail(c, EX_USAGE, "%s", why.reason);
	return 0;
}

/* The old bytes come back when what was written is not good as a whole. */
int conf_checked_edit(struct cli *c, const char *file, int (*edit)(void *, struct span, struct buffer *), void *context)
{
	struct buffer old;
	struct complaint why;
	struct config fresh;
	buffer_init(&old, 16 * 1024 * 1024);
	int error = read_file_at(c->dir_fd, file, 16 * 1024 * 1024, &old);
	if (error == 0)
		error = cli_edit_file(c, file, edit, context);
	if (error != 0) {
		buffer_free(&old);
		return cli_fail(c, error == ESRCH ? EX_USAGE : error == EACCES ? EX_NOPERM : EX_CANTCREAT, "%s/%s: %s", c->dir, file,
			error == ESRCH ? "no such setting" : error == ENOENT ? "no such file or section" : strerror(error));
	}
	int status = 0;
	if (config_load(c->dir_fd, &fresh, &why) != 0) {
		status = cli_fail(c, EX_CONFIG, "%s%s%s; nothing was changed", why.file, why.file[0] == '\0' ? "" : ": ", why.reason);
		if (replace_file_at(c->dir_fd, file, buffer_span(&old), 0644) != 0)
			status = cli_fail(c, EX_IOERR, "%s/%s: the old text could not be put back", c->dir, file);
	} else {
		config_free(&fresh);
	}
	buffer_free(&old);
	return status;
}

struct edit_job {
	const char *section;
	struct edit {
		struct span name;
		const char *value; /* NULL: remove */
	} *edits;
	size_t n;
};

static int apply_edits(void *context, struct span old, struct buffer *out)
{
	struct edit_job *job = context;
	struct buffer a, b;
	int error = 0;
	buffer_init(&a, out->limit);
	buffer_init(&b, out->limit);
	buffer_put_span(&a, old);
	for (size_t i = 0; i < job->n && error == 0; i++) {
		buffer_clear(&b);
		error = config_edit(buffer_span(&a), job->section, job->edits[i].name, job->edits[i].value, &b);
		struct buffer swap = a;
		a = b;
		b = swap;
	}
	buffer_put_span(out, buffer_span(&a));
	buffer_free(&a);
	buffer_free(&b);
	return error != 0 ? error : buffer_ok(out) ? 0 : ENOMEM;
}

static enum param_scope scope_of_name(const struct conf_options *o, struct span name)
{
	if (o->domain != NULL)
		return SCOPE_DOMAIN;
	if (o->service || (o->server == NULL && param_find(name, SCOPE_SERVER) == NULL && param_find(name, SCOPE_SERVICE) != NULL))
		return SCOPE_SERVICE;
	return SCOPE_SERVER;
}

static bool test_mode_of(const struct cli *c, char **settings, int n)
{
	for (int i = 0; i < n; i++)
		if (strncmp(settings[i], "test_mode=", 10) == 0)
			return strcmp(settings[i] + 10, "yes") == 0;
	return c->config.service.test_mode == 1;
}

/* The settings of one scope go to its file in one edit. */
static int edit_scope(struct cli *c, struct conf_options *o, enum param_scope scope, char **settings, int n)
{
	char file[200], section[300];
	struct edit_job job = {.section = NULL, .edits = calloc((size_t)n + 1, sizeof *job.edits)};
	int status = job.edits == NULL ? EX_OSERR : 0;
	(void)snprintf(file, sizeof file, "servers/%s.conf", o->server == NULL ? "default" : o->server);
	if (scope == SCOPE_SERVICE)
		(void)snprintf(file, sizeof file, "posthorn.conf");
	if (scope == SCOPE_DOMAIN) {
		(void)snprintf(section, sizeof section, "domain %s", o->domain);
		job.section = section;
	}
	for (int i = 0; i < n && status == 0; i++) {
		struct span rest = span_of(settings[i]);
		const struct param_row *row;
		struct edit *e = &job.edits[job.n];
		e->name = span_trim(span_until(&rest, '='));
		if (scope_of_name(o, e->name) != scope)
			continue;
		job.n++;
		if (!o->remove)
			status = conf_check_setting(c, scope, settings[i], test_mode_of(c, settings, n), &row, &e->value);
	}
	if (status == 0 && job.n > 0)
		status = conf_checked_edit(c, file, apply_edits, &job);
	free(job.edits);
	return status;
}

/* May this user write the file of the server? */
static bool writes_itself(const struct cli *c, const struct conf_options *o)
{
	char file[200];
	(void)snprintf(file, sizeof file, "servers/%s.conf", o->server == NULL ? "default" : o->server);
	return faccessat(c->dir_fd, file, W_OK, AT_EACCESS) == 0 && faccessat(c->dir_fd, "servers", W_OK, AT_EACCESS) == 0;
}

/* By the running service, for an operator: what it takes is in force at once. */
static int edit_by_service(struct cli *c, const struct conf_options *o, char **settings, int n)
{
	struct buffer words, text;
	buffer_init(&words, 4000);
	buffer_init(&text, 64 * 1024);
	buffer_printf(&words, "%s %s ", o->server == NULL ? "default" : o->server, o->domain == NULL ? "-" : o->domain);
	for (int i = 0; i < n; i++)
		buffer_printf(&words, "%s%s%s", i > 0 ? "\t" : "", settings[i], o->remove ? "=" : "");
	bool good = buffer_ok(&words) && memchr(words.at, '\n', words.n) == NULL;
	int status = !good ? cli_fail(c, EX_USAGE, "too much for one edit") : cli_ask(c, "edit", "-", buffer_cstr(&words), NULL, NULL, &text);
	if (good && status != 0 && text.n > 0)
		(void)cli_fail(c, status, "%s", buffer_cstr(&text));
	else if (status == 0)
		(void)printf("%s\n", buffer_cstr(&text));
	buffer_free(&words);
	buffer_free(&text);
	return status;
}

/* Names that this machine does not know are no operators. */
static int check_operators(struct cli *c, char **settings, int n)
{
	for (int i = 0; i < n; i++) {
		struct server s = {.name = ""};
		struct config one = {.servers = &s, .servers_n = 1};
		char name[64];
		const char *server;
		if (strncmp(settings[i], "operators=", 10) != 0)
			continue;
		s.p.operators = settings[i] + 10;
		if (operators_are_valid(span_of(s.p.operators)) && config_unknown_operator(&one, name, &server))
			return cli_fail(c, EX_NOUSER, "operators: this machine has no %s %s; nothing was changed", name[0] == '@' ? "group" : "user", name[0] == '@' ? name + 1 : name);
	}
	return EX_OK;
}

int conf_edit(struct cli *c, struct conf_options *o, char **settings, int n)
{
	static const enum param_scope scopes[] = {SCOPE_SERVICE, SCOPE_SERVER, SCOPE_DOMAIN};
	int status = cli_load(c);
	if (status == 0 && n == 0)
		status = cli_fail(c, EX_USAGE, "-e and -X need names");
	if (status == 0 && !writes_itself(c, o) && cli_master(c) != 0)
		return edit_by_service(c, o, settings, n);
	if (status == 0)
		status = check_operators(c, settings, n);
	for (size_t i = 0; i < COUNT_OF(scopes) && status == 0; i++)
		status = edit_scope(c, o, scopes[i], settings, n);
	return status;
}

static int write_new(struct cli *c, int dir_fd, const char *name, const struct buffer *text)
{
	int error = replace_file_at(dir_fd, name, buffer_span(text), 0644);
	return error == 0 ? 0 : cli_fail(c, EX_CANTCREAT, "%s/%s: %s", c->dir, name, strerror(error));
}

static bool is_given(const char *name, char **settings, int n)
{
	size_t length = strlen(name);
	for (int i = 0; i < n; i++)
		if (strncmp(settings[i], name, length) == 0 && settings[i][length] == '=')
			return true;
	return false;
}

static int compose_init(struct cli *c, char **settings, int n, struct buffer *service, struct buffer *server)
{
	static const struct { const char *name, *tail; } beneath[] = {{"spool_directory", "spool"}, {"run_directory", "run"}, {"log_directory", "log"}};
	buffer_puts(service, "# Posthorn, service-wide parameters: posthorn.conf(5).\n");
	buffer_puts(server, "# The virtual server 'default': posthorn.conf(5).\n");
	bool system = strcmp(c->dir, "/etc/posthorn") == 0;
	for (size_t i = 0; !system && i < COUNT_OF(beneath); i++)
		if (!is_given(beneath[i].name, settings, n))
			buffer_printf(service, "%s = %s/%s\n", beneath[i].name, c->dir, beneath[i].tail);
	if (system && !is_given("alias_maps", settings, n) && access("/etc/aliases", R_OK) == 0)
		buffer_puts(server, "alias_maps = hash:/etc/aliases\n");
	for (int i = 0; i < n; i++) {
		struct span rest = span_of(settings[i]);
		struct span name = span_trim(span_until(&rest, '='));
		bool wide = param_find(name, SCOPE_SERVICE) != NULL;
		const struct param_row *row = NULL;
		const char *value;
		int status = conf_check_setting(c, wide ? SCOPE_SERVICE : SCOPE_SERVER, settings[i], test_mode_of(c, settings, n), &row, &value);
		if (status != 0 || row == NULL)
			return status;
		buffer_printf(wide ? service : server, "%s = %s\n", row->name, value);
	}
	return 0;
}

int conf_init(struct cli *c, struct conf_options *o, char **settings, int n)
{
	struct buffer service, server;
	char real[4096];
	(void)o;
	if (mkdir_chain(c->dir, 0755) != 0 && errno != EEXIST)
		return cli_fail(c, EX_CANTCREAT, "%s: %s", c->dir, strerror(errno));
	if (realpath(c->dir, real) != NULL)
		c->dir = real;
	int status = cli_open(c);
	if (status != 0)
		return status;
	if (faccessat(c->dir_fd, "posthorn.conf", F_OK, 0) == 0 || faccessat(c->dir_fd, "servers/default.conf", F_OK, 0) == 0)
		return cli_fail(c, EX_CANTCREAT, "%s holds a configuration already", c->dir);
	buffer_init(&service, 1024 * 1024);
	buffer_init(&server, 1024 * 1024);
	status = compose_init(c, settings, n, &service, &server);
	if (status == 0 && mkdirat(c->dir_fd, "servers", 0755) != 0 && errno != EEXIST)
		status = cli_fail(c, EX_CANTCREAT, "%s/servers: %s", c->dir, strerror(errno));
	if (status == 0)
		status = write_new(c, c->dir_fd, "servers/default.conf", &server);
	if (status == 0)
		status = write_new(c, c->dir_fd, "posthorn.conf", &service);
	if (status == 0)
		status = cli_load(c);
	if (status != 0) { /* what was refused leaves nothing behind */
		(void)unlinkat(c->dir_fd, "posthorn.conf", 0);
		(void)unlinkat(c->dir_fd, "servers/default.conf", 0);
		(void)unlinkat(c->dir_fd, "servers", AT_REMOVEDIR);
	}
	buffer_free(&service);
	buffer_free(&server);
	return status;
}
