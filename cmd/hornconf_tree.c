/* Domains as a whole. */
#include "cmd/hornconf.h"

#include <string.h>
#include <sysexits.h>

struct domain_job {
	const char *name, *fresh; /* fresh: the new name of a rename */
	char **settings;
	int n;
};

static int edit_add(void *context, struct span old, struct buffer *out)
{
	struct domain_job *job = context;
	char section[300];
	(void)snprintf(section, sizeof section, "domain %s", job->name);
	int error = config_add_section(old, section, out);
	for (int i = 0; i < job->n && error == 0; i++) {
		struct span value = span_of(job->settings[i]);
		struct span name = span_trim(span_until(&value, '='));
		buffer_printf(out, "%.*s = %.*s\n", SPAN_ARG(name), SPAN_ARG(span_trim(value)));
	}
	return error != 0 ? error : buffer_ok(out) ? 0 : ENOMEM;
}

static int edit_remove(void *context, struct span old, struct buffer *out)
{
	struct domain_job *job = context;
	char section[300];
	(void)snprintf(section, sizeof section, "domain %s", job->name);
	return config_remove_section(old, section, out);
}

static int edit_rename(void *context, struct span old, struct buffer *out)
{
	struct domain_job *job = context;
	bool found = false;
	while (old.n > 0) {
		struct span line = span_until(&old, '\n'), inner = span_trim(line);
		bool head = inner.n > 2 && inner.at[0] == '[' && inner.at[inner.n - 1] == ']';
		struct span rest = head ? (struct span){inner.at + 1, inner.n - 2} : inner;
		if (head && span_is(span_word(&rest, " \t"), "domain") && span_case_is(span_trim(rest), job->name)) {
			buffer_printf(out, "[domain %s]\n", job->fresh);
			found = true;
			continue;
		}
		buffer_put_span(out, line);
		buffer_putc(out, '\n');
	}
	return found ? 0 : ENOENT;
}

static int edit_rename_default(void *context, struct span old, struct buffer *out)
{
	const struct domain_job *job = context;
	return config_edit(old, NULL, SPAN_LIT("default_domain"), job->fresh, out);
}

static int edit_default(void *context, struct span old, struct buffer *out)
{
	struct domain_job *job = context;
	struct buffer without;
	char section[300];
	(void)snprintf(section, sizeof section, "domain %s", job->name);
	buffer_init(&without, out->limit);
	/* the new default is no section any more, the former one becomes an alias (MISSION E1) */
	int error = config_remove_section(old, section, &without);
	struct buffer with;
	buffer_init(&with, out->limit);
	if (error == 0)
		error = config_edit(buffer_span(&without), NULL, SPAN_LIT("default_domain"), job->name, &with);
	(void)snprintf(section, sizeof section, "domain %s", job->fresh);
	if (error == 0)
		error = config_add_section(buffer_span(&with), section, out);
	buffer_puts(out, "type = alias\n");
	buffer_free(&without);
	buffer_free(&with);
	return error;
}

static const struct domain *find_domain(const struct server *s, const char *name)
{
	for (size_t i = 0; i < s->domains_n; i++)
		if (span_case_is(span_of(name), s->domains[i].name))
			return &s->domains[i];
	return NULL;
}

static int list_domains(const struct server *s)
{
	static const char *const types[] = {"alias", "remote", "local"};
	(void)printf("%s default\n", s->p.default_domain);
	for (size_t i = 0; i < s->domains_n; i++)
		(void)printf("%s %s%s%s\n", s->domains[i].name, types[s->domains[i].p.type], s->domains[i].p.route[0] == '\0' ? "" : " ", s->domains[i].p.route);
	return EX_OK;
}

static int domain_add(struct cli *c, const struct server *s, const char *file, char **args, int n)
{
	struct domain_job job = {.name = n > 0 ? args[0] : NULL, .settings = args + 1, .n = n - 1};
	if (n < 1)
		return cli_fail(c, EX_USAGE, "domain add DOMAIN name=value...");
	if (find_domain(s, args[0]) != NULL)
		return cli_fail(c, EX_USAGE, "server %s has the domain '%s' already", s->name, args[0]);
	for (int i = 1; i < n; i++) {
		const struct param_row *row;
		const char *value;
		int status = conf_check_setting(c, SCOPE_DOMAIN, args[i], c->config.service.test_mode == 1, &row, &value);
		if (status != 0)
			return status;
	}
	return conf_checked_edit(c, file, edit_add, &job);
}

int conf_domain(struct cli *c, struct conf_options *o, char **args, int n)
{
	char file[200];
	int status = cli_load(c);
	if (status != 0)
		return status;
	const char *name = o->server == NULL ? "default" : o->server;
	const struct server *s = config_server(&c->config, span_of(name));
	if (s == NULL)
		return cli_fail(c, EX_USAGE, "no server '%s'", name);
	(void)snprintf(file, sizeof file, "servers/%s.conf", name);
	const char *verb = n > 0 ? args[0] : "";
	if (strcmp(verb, "list") == 0)
		return list_domains(s);
	if (strcmp(verb, "add") == 0)
		return domain_add(c, s, file, args + 1, n - 1);
	struct domain_job job = {.name = n > 1 ? args[1] : "", .fresh = n > 2 ? args[2] : s->p.default_domain};
	if (strcmp(verb, "remove") == 0 && n == 2 && span_case_is(span_of(args[1]), s->p.default_domain))
		return cli_fail(c, EX_USAGE, "'%s' is the default domain: make another one the default first (hornconf domain default)", args[1]);
	if (strcmp(verb, "remove") == 0 && n == 2)
		return conf_checked_edit(c, file, edit_remove, &job);
	if (strcmp(verb, "rename") == 0 && n == 3 && span_case_is(span_of(args[1]), s->p.default_domain))
		return conf_checked_edit(c, file, edit_rename_default, &job);
	if (strcmp(verb, "rename") == 0 && n == 3)
		return conf_checked_edit(c, file, edit_rename, &job);
	if (strcmp(verb, "default") == 0 && n == 2) {
		const struct domain *d = find_domain(s, args[1]);
		if (d == NULL || d->p.type != DOMAIN_ALIAS)
			return cli_fail(c, EX_USAGE, "'%s' is not an alias domain of server %s", args[1], name);
		return conf_checked_edit(c, file, edit_default, &job);
	}
	return cli_fail(c, EX_USAGE, "domain: add, remove, rename, list or default is needed, with its names");
}
