/* ldap:FILE: a directory.  FILE holds "server = ldap://HOST", "base", "filter" with %s for the key (escaped as RFC 4515 has
 * it), "attribute", and where they are wanted "bind_dn", "bind_password" and "starttls = yes".  Values are joined by commas. */
#include "map/map.h"

#include <ldap.h>
#include <stdlib.h>
#include <string.h>

enum { FILTER_MOST = 64 * 1024, LIMIT_S = 10, ENTRIES_MOST = 10000 };

struct directory {
	char *server, *base, *filter, *attribute, *bind_dn, *bind_password, *starttls;
	LDAP *connection; /* NULL: none now */
};

static void hang_up(struct directory *d)
{
	if (d->connection != NULL)
		(void)ldap_unbind_ext(d->connection, NULL, NULL);
	d->connection = NULL;
}

static void close_ldap(struct map *m)
{
	struct directory *d = m->state;
	hang_up(d);
	char *const texts[] = {d->server, d->base, d->filter, d->attribute, d->bind_dn, d->starttls};
	for (size_t i = 0; i < COUNT_OF(texts); i++)
		free(texts[i]);
	if (d->bind_password != NULL)
		explicit_bzero(d->bind_password, strlen(d->bind_password));
	free(d->bind_password);
	free(d);
}

static int open_ldap(struct map *m, struct complaint *why)
{
	struct directory *d = calloc(1, sizeof *d);
	m->state = d;
	if (d == NULL)
		return ENOMEM;
	const struct map_setting known[] = {{"server", true, &d->server}, {"base", true, &d->base}, {"filter", true, &d->filter},
		{"attribute", true, &d->attribute}, {"bind_dn", false, &d->bind_dn}, {"bind_password", false, &d->bind_password}, {"starttls", false, &d->starttls}};
	int error = map_read_settings(m->path, known, COUNT_OF(known), why);
	if (error == 0 && strstr(d->filter, "%s") == NULL) {
		complain(why, m->path, 0, "the filter has no %%s for the key");
		error = EINVAL;
	}
	if (error == 0 && d->starttls != NULL && strcmp(d->starttls, "yes") != 0 && strcmp(d->starttls, "no") != 0) {
		complain(why, m->path, 0, "starttls: write yes or no");
		error = EINVAL;
	}
	if (error != 0) {
		close_ldap(m);
		m->state = NULL;
	}
	return error;
}

static int connect_now(struct directory *d)
{
	int version = LDAP_VERSION3;
	const struct timeval limit = {.tv_sec = LIMIT_S};
	if (d->connection != NULL)
		return LDAP_SUCCESS;
	int r = ldap_initialize(&d->connection, d->server);
	if (r != LDAP_SUCCESS)
		return r;
	(void)ldap_set_option(d->connection, LDAP_OPT_PROTOCOL_VERSION, &version);
	(void)ldap_set_option(d->connection, LDAP_OPT_NETWORK_TIMEOUT, &limit);
	(void)ldap_set_option(d->connection, LDAP_OPT_TIMEOUT, &limit);
	(void)ldap_set_option(d->connection, LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
	if (d->starttls != NULL && strcmp(d->starttls, "yes") == 0)
		r = ldap_start_tls_s(d->connection, NULL, NULL);
	char none[] = "";
	struct berval password = {.bv_val = d->bind_password == NULL ? none : d->bind_password};
	password.bv_len = strlen(password.bv_val);
	if (r == LDAP_SUCCESS && d->bind_dn != NULL)
		r = ldap_sasl_bind_s(d->connection, d->bind_dn, LDAP_SASL_SIMPLE, &password, NULL, NULL, NULL);
	return r;
}

/* Each character that a filter gives a meaning, and all that is not plain ASCII, as \XX (RFC 4515 3). */
static void put_filter(struct buffer *b, const char *filter, struct span key)
{
	for (const char *p = filter; *p != '\0'; p++) {
		if (p[0] != '%' || p[1] != 's') {
			buffer_putc(b, *p);
			continue;
		}
		p++;
		for (size_t i = 0; i < key.n; i++) {
			unsigned char c = (unsigned char)key.at[i];
			if (c < 0x20 || c > 0x7e || strchr("*()\\", c) != NULL)
				buffer_printf(b, "\\%02x", c);
			else
				buffer_putc(b, (char)c);
		}
	}
}

static size_t take_entries(const struct directory *d, LDAPMessage *found, struct buffer *value)
{
	size_t n = 0;
	for (LDAPMessage *e = ldap_first_entry(d->connection, found); e != NULL; e = ldap_next_entry(d->connection, e)) {
		struct berval **values = ldap_get_values_len(d->connection, e, d->attribute);
		for (size_t i = 0; values != NULL && values[i] != NULL; i++) {
			if (values[i]->bv_len == 0)
				continue;
			buffer_puts(value, n++ > 0 ? "," : "");
			buffer_put(value, values[i]->bv_val, values[i]->bv_len);
		}
		ldap_value_free_len(values);
	}
	return n;
}

static enum map_status query_ldap(struct map *m, struct span key, struct buffer *value, struct complaint *why)
{
	struct directory *d = m->state;
	LDAPMessage *found = NULL;
	struct buffer filter;
	struct timeval limit = {.tv_sec = LIMIT_S};
	char *attributes[] = {d->attribute, NULL};
	size_t n = 0;
	buffer_init(&filter, FILTER_MOST);
	put_filter(&filter, d->filter, key);
	int r = connect_now(d);
	if (r == LDAP_SUCCESS)
		r = ldap_search_ext_s(d->connection, d->base, LDAP_SCOPE_SUBTREE, buffer_cstr(&filter), attributes, 0, NULL, NULL, &limit, ENTRIES_MOST, &found);
	if (r == LDAP_SUCCESS)
		n = take_entries(d, found, value);
	if (found != NULL)
		(void)ldap_msgfree(found);
	buffer_free(&filter);
	if (r == LDAP_SUCCESS)
		return n == 0 ? MAP_NONE : MAP_FOUND;
	complain(why, m->path, 0, "%s: %s", d->server, ldap_err2string(r));
	hang_up(d); /* the next question makes a new connection */
	return MAP_FAILED;
}

const struct map_kind map_ldap = {"ldap", true, true, open_ldap, close_ldap, query_ldap, NULL};
