#include "cmd/hornconf.h"

#include <string.h>
#include <strings.h>
#include <sysexits.h>

/* The scopes that a print or an edit looks at, with their settings and values. */
struct view {
	enum param_scope scope;
	const struct setting *settings;
	const void *params;
	const struct setting *above; /* of the server, for what a domain inherits */
};

static int views_of(struct cli *c, const struct conf_options *o, struct view out[2], size_t *n)
{
	const struct server *s = config_server(&c->config, span_of(o->server == NULL ? "default" : o->server));
	*n = 0;
	if (o->server == NULL && o->domain == NULL)
		out[(*n)++] = (struct view){SCOPE_SERVICE, c->config.settings, &c->config.service, NULL};
	if (s == NULL)
		return o->server == NULL && o->domain == NULL ? 0 : cli_fail(c, EX_USAGE, "no server '%s'", o->server == NULL ? "default" : o->server);
	if (o->domain == NULL) {
		out[(*n)++] = (struct view){SCOPE_SERVER, s->settings, &s->p, NULL};
		return 0;
	}
	for (size_t i = 0; i < s->domains_n; i++) {
		if (strcasecmp(s->domains[i].name, o->domain) == 0) {
			out[(*n)++] = (struct view){SCOPE_DOMAIN, s->domains[i].settings, &s->domains[i].p, s->settings};
			return 0;
		}
	}
	return cli_fail(c, EX_USAGE, "server %s has no domain '%s'", s->name, o->domain);
}

static bool is_set(const struct setting *list, const struct param_row *row)
{
	for (; list != NULL; list = list->next)
		if (list->row == row)
			return true;
	return false;
}

/* As it is written: here, else above where that holds, else the default. */
static const char *text_of(const struct view *v, const struct param_row *row)
{
	if (row->inherits == INHERITS_NOT || is_set(v->settings, row))
		return setting_text(v->settings, row);
	return setting_text(v->above, param_find(span_of(row->name), SCOPE_SERVER));
}

static void print_row(struct buffer *b, const struct conf_options *o, const struct view *v, const struct param_row *row, bool *first)
{
	struct buffer value;
	buffer_init(&value, 65536);
	if (o->defaults)
		buffer_puts(&value, row->standard);
	else if (o->expanded)
		param_format(&value, row, v->params);
	else
		buffer_puts(&value, text_of(v, row));
	if (o->json) {
		buffer_puts(b, *first ? "" : ",");
		buffer_put_json(b, span_of(row->name));
		buffer_putc(b, ':');
		buffer_put_json(b, buffer_span(&value));
	} else if (o->values) {
		buffer_printf(b, "%.*s\n", SPAN_ARG(buffer_span(&value)));
	} else {
		buffer_printf(b, "%s = %.*s\n", row->name, SPAN_ARG(buffer_span(&value)));
	}
	*first = false;
	buffer_free(&value);
}

static bool is_wanted(const struct param_row *row, char **names, int n)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], row->name) == 0)
			return true;
	return n == 0;
}

static int check_names(struct cli *c, const struct view *views, size_t views_n, char **names, int n)
{
	for (int i = 0; i < n; i++) {
		bool known = false;
		for (size_t k = 0; k < views_n; k++)
			known = known || param_find(span_of(names[i]), views[k].scope) != NULL;
		if (known)
			continue;
		const char *near = views_n == 0 ? NULL : param_nearest(span_of(names[i]), views[views_n - 1].scope);
		return cli_fail(c, EX_USAGE, "unknown parameter '%s'%s%s", names[i], near == NULL ? "" : "; did you mean ", near == NULL ? "" : near);
	}
	return 0;
}

int conf_print(struct cli *c, struct conf_options *o, char **names, int n)
{
	struct view views[2] = {{SCOPE_SERVICE, NULL, NULL, NULL}, {SCOPE_SERVICE, NULL, NULL, NULL}};
	size_t views_n = 0;
	struct buffer out;
	bool first = true;
	int status = cli_load(c);
	if (status == 0)
		status = views_of(c, o, views, &views_n);
	if (status == 0)
		status = check_names(c, views, views_n, names, n);
	if (status != 0)
		return status;
	buffer_init(&out, 4 * 1024 * 1024);
	buffer_puts(&out, o->json ? "{" : "");
	for (size_t k = 0; k < views_n; k++)
		for (size_t i = 0; i < param_rows_n; i++)
			if (param_rows[i].scope == views[k].scope && is_wanted(&param_rows[i], names, n) &&
				(!o->changed || is_set(views[k].settings, &param_rows[i])))
				print_row(&out, o, &views[k], &param_rows[i], &first);
	buffer_puts(&out, o->json ? "}\n" : "");
	(void)fputs(buffer_cstr(&out), stdout);
	buffer_free(&out);
	return EX_OK;
}
