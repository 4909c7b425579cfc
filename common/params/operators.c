/* Operators (MISSION A8): who they are, and what they may set. */
#include "params/params.h"

#include <ctype.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

enum { NAME_MOST = 32 };

bool operators_are_valid(struct span text)
{
	for (struct span word; (word = span_word(&text, " \t,")).n > 0;) {
		struct span name = word.at[0] == '@' ? (struct span){word.at + 1, word.n - 1} : word;
		if (name.n == 0 || name.n > NAME_MOST || name.at[0] == '-')
			return false;
		for (size_t i = 0; i < name.n; i++)
			if (!isalnum((unsigned char)name.at[i]) && strchr("._-$", name.at[i]) == NULL)
				return false;
	}
	return true;
}

bool config_unknown_operator(const struct config *c, char name[64], const char **server)
{
	for (size_t i = 0; i < c->servers_n; i++) {
		struct span rest = span_of(c->servers[i].p.operators), word;
		while ((word = span_word(&rest, " \t,")).n > 0) {
			(void)snprintf(name, 64, "%.*s", SPAN_ARG(word));
			*server = c->servers[i].name;
			if (name[0] == '@' ? getgrnam(name + 1) == NULL : getpwnam(name) == NULL)
				return true;
		}
	}
	return false;
}

/* The text of a file as it is; *why is filled. */
static int read_old(int dir_fd, const char *file, struct buffer *out, struct complaint *why)
{
	int error = read_file_at(dir_fd, file, 16 * 1024 * 1024, out);
	if (error != 0)
		complain(why, file, 0, "cannot read: %s", strerror(error));
	return error;
}

static const struct setting *settings_of(const struct server *s, const char *domain)
{
	const struct domain *d = domain[0] == '\0' ? NULL : server_domain(s, span_of(domain));
	return domain[0] == '\0' ? s->settings : d == NULL ? NULL : d->settings;
}

/* One setting of an edit; "name=" without a value is the default again. */
static int edit_one(const struct config *old, const struct server *s, const char *domain, struct span setting, struct buffer *text, struct buffer *changes, struct complaint *why)
{
	enum param_scope scope = domain[0] == '\0' ? SCOPE_SERVER : SCOPE_DOMAIN;
	char section[300], value[4100];
	struct span rest = setting, name = span_trim(span_until(&rest, '='));
	const struct param_row *row = param_find(name, scope);
	struct buffer next;
	(void)snprintf(section, sizeof section, "domain %s", domain);
	(void)snprintf(value, sizeof value, "%.*s", SPAN_ARG(span_trim(rest)));
	if (row == NULL) {
		const char *near = param_nearest(name, scope);
		complain(why, NULL, 0, "unknown parameter '%.*s'%s%s", SPAN_ARG(name), near == NULL ? "" : "; did you mean ", near == NULL ? "" : near);
		return EINVAL;
	}
	if (row->who != SET_BY_OPERATOR) {
		complain(why, "operators", 0, "%s is set by root alone", row->name);
		return EPERM;
	}
	int error = param_check(row, value[0] == '\0' ? row->standard : value, old->service.test_mode == 1, why);
	if (error != 0)
		return error;
	buffer_init(&next, 16 * 1024 * 1024);
	error = config_edit(buffer_span(text), scope == SCOPE_SERVER ? NULL : section, name, value[0] == '\0' ? NULL : value, &next);
	if (error != 0 && error != ESRCH)
		complain(why, NULL, 0, "%s: %s", row->name, error == ENOENT ? "there is no such domain" : strerror(error));
	else if (error == 0) {
		buffer_clear(text);
		buffer_put_span(text, buffer_span(&next));
	}
	buffer_printf(changes, "%s%s: %s -> %s", changes->n > 0 ? "; " : "", row->name, setting_text(settings_of(s, domain), row), value[0] == '\0' ? row->standard : value);
	buffer_free(&next);
	return error == ESRCH ? 0 : error;
}

int config_operator_edit(int dir_fd, const char *server, const char *domain, struct span settings, struct buffer *file, struct buffer *changes, struct complaint *why)
{
	struct config old, fresh;
	char name[200];
	*why = (struct complaint){0};
	int error = config_load(dir_fd, &old, why);
	if (error != 0)
		return error;
	const struct server *s = config_server(&old, span_of(server));
	(void)snprintf(name, sizeof name, "servers/%s.conf", server);
	if (s == NULL) {
		complain(why, NULL, 0, "no server '%s'", server);
		error = ENOENT;
	}
	if (error == 0)
		error = read_old(dir_fd, name, file, why);
	while (error == 0 && settings.n > 0)
		error = edit_one(&old, s, domain, span_until(&settings, '\t'), file, changes, why);
	if (error == 0)
		error = config_load_with(dir_fd, name, buffer_span(file), &fresh, why);
	if (error == 0)
		config_free(&fresh);
	config_free(&old);
	return error;
}
