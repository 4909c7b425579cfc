#include "params/params.h"
#include "smtp/smtp.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static bool copy_text(struct span s, char *out, size_t size)
{
	if (s.n >= size)
		return false;
	memcpy(out, s.at, s.n);
	out[s.n] = '\0';
	return true;
}

static int parse_port(struct span s, uint16_t *out)
{
	uint64_t port;
	if (parse_u64(s, 65535, &port) != 0 || port == 0)
		return EINVAL;
	*out = (uint16_t)port;
	return 0;
}

static bool is_bare_v6(struct span text)
{
	char copy[64];
	struct in6_addr addr;
	return copy_text(text, copy, sizeof copy) && inet_pton(AF_INET6, copy, &addr) == 1;
}

/* "HOST:PORT" or "[HOST]:PORT" or either without a port; HOST keeps its brackets. */
static int split_port(struct span text, struct span *host, uint16_t *port)
{
	size_t i = 0;
	*port = 0;
	if (is_bare_v6(text)) {
		*host = text;
		return 0;
	}
	if (text.n > 0 && text.at[0] == '[')
		while (i < text.n && text.at[i] != ']')
			i++;
	while (i < text.n && text.at[i] != ':')
		i++;
	*host = (struct span){text.at, i};
	if (i == text.n)
		return 0;
	return parse_port((struct span){text.at + i + 1, text.n - i - 1}, port);
}

static struct span without_brackets(struct span s)
{
	if (s.n >= 2 && s.at[0] == '[' && s.at[s.n - 1] == ']')
		return (struct span){s.at + 1, s.n - 2};
	return s;
}

static bool set_address(struct span host, uint16_t port, struct sockaddr_storage *out, socklen_t *n)
{
	char text[64];
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
	memset(out, 0, sizeof *out);
	if (!copy_text(host, text, sizeof text))
		return false;
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		*n = sizeof *v4;
		return true;
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		*n = sizeof *v6;
		return true;
	}
	return false;
}

bool listen_next(struct span *rest, struct endpoint *out, bool *bad)
{
	struct span word = span_word(rest, " \t,"), host;
	struct endpoint e = {0};
	*bad = false;
	if (word.n == 0)
		return false;
	if (split_port(word, &host, &e.port) != 0 || e.port == 0) {
		*bad = true;
		return false;
	}
	e.any = span_is(host, "*");
	if (!e.any && !set_address(without_brackets(host), e.port, &e.addr, &e.addr_n)) {
		*bad = true;
		return false;
	}
	*out = e;
	return true;
}

static const char *listen_text(const struct server *s, enum listen_kind kind)
{
	return kind == LISTEN_PLAIN ? s->p.listen : kind == LISTEN_TLS ? s->p.listen_tls : s->p.listen_submission;
}

bool server_listen_next(const struct server *s, struct listen_walk *w, struct endpoint *out)
{
	bool bad;
	if (w->rest.at == NULL)
		w->rest = span_of(listen_text(s, LISTEN_PLAIN));
	while (!listen_next(&w->rest, out, &bad)) {
		if (w->kind + 1 == LISTEN_KINDS)
			return false;
		w->kind++;
		w->rest = span_of(listen_text(s, w->kind));
	}
	return true;
}

const char *listen_parameter(enum listen_kind kind)
{
	return kind == LISTEN_PLAIN ? "listen" : kind == LISTEN_TLS ? "listen_tls" : "listen_submission";
}

void endpoint_format(struct buffer *b, const struct endpoint *e)
{
	char text[INET6_ADDRSTRLEN] = "";
	if (e->any) {
		buffer_printf(b, "*:%u", e->port);
		return;
	}
	if (e->addr.ss_family == AF_INET) {
		(void)inet_ntop(AF_INET, &((const struct sockaddr_in *)&e->addr)->sin_addr, text, sizeof text);
		buffer_printf(b, "%s:%u", text, e->port);
	} else {
		(void)inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)&e->addr)->sin6_addr, text, sizeof text);
		buffer_printf(b, "[%s]:%u", text, e->port);
	}
}

bool endpoint_same(const struct endpoint *a, const struct endpoint *b)
{
	if (a->port != b->port || a->any != b->any)
		return false;
	return a->any || (a->addr_n == b->addr_n && memcmp(&a->addr, &b->addr, a->addr_n) == 0);
}

int sockaddr_to_v6(const struct sockaddr *sa, unsigned char out[16])
{
	if (sa->sa_family == AF_INET6) {
		memcpy(out, &((const struct sockaddr_in6 *)sa)->sin6_addr, 16);
		return 0;
	}
	if (sa->sa_family != AF_INET)
		return EAFNOSUPPORT;
	memset(out, 0, 10);
	out[10] = out[11] = 0xff;
	memcpy(out + 12, &((const struct sockaddr_in *)sa)->sin_addr, 4);
	return 0;
}

int literal_to_sockaddr(struct span literal, uint16_t port, struct sockaddr_storage *out, socklen_t *n)
{
	struct span inner = without_brackets(literal);
	if (inner.n > 5 && span_case_eq((struct span){inner.at, 5}, SPAN_LIT("IPv6:"))) {
		inner.at += 5;
		inner.n -= 5;
	}
	return set_address(inner, port, out, n) ? 0 : EINVAL;
}

static bool lmtp_is_valid(struct span text)
{
	struct nexthop h;
	if (text.n > 5 && memcmp(text.at, "unix:", 5) == 0)
		return text.at[5] == '/' && text.n <= UNIX_PATH_MOST;
	return nexthop_parse(text, &h) == 0 && h.kind != NEXTHOP_MX;
}

int delivery_parse(struct span text, struct delivery *out)
{
	static const struct { const char *word; enum delivery_kind kind; } words[] = {
		{"drop", DELIVERY_DROP}, {"maildir", DELIVERY_MAILDIR}, {"mbox", DELIVERY_MBOX}};
	for (size_t i = 0; i < COUNT_OF(words); i++) {
		if (span_is(text, words[i].word)) {
			*out = (struct delivery){.kind = words[i].kind, .argument = {"", 0}};
			return 0;
		}
	}
	if (text.n <= 5 || (memcmp(text.at, "pipe:", 5) != 0 && memcmp(text.at, "lmtp:", 5) != 0))
		return EINVAL;
	struct span argument = span_trim((struct span){text.at + 5, text.n - 5});
	*out = (struct delivery){.kind = text.at[0] == 'p' ? DELIVERY_PIPE : DELIVERY_LMTP, .argument = argument};
	return argument.n > 0 && (out->kind == DELIVERY_PIPE || lmtp_is_valid(argument)) ? 0 : EINVAL;
}

bool resolvers_are_valid(struct span text)
{
	for (struct span word; (word = span_word(&text, " \t,")).n > 0;) {
		struct sockaddr_storage sa;
		socklen_t n;
		uint64_t port = 0;
		struct span host = span_until(&word, '@');
		bool has_port = word.at != host.at + host.n;
		if (!set_address(host, 0, &sa, &n) || (has_port && (parse_u64(word, UINT16_MAX, &port) != 0 || port == 0)))
			return false;
	}
	return true;
}

/* No top-level domain is a number (RFC 3696 2): a name that ends so is a slip in an address. */
bool name_looks_like_address(struct span name)
{
	size_t i = name.n;
	while (i > 0 && name.at[i - 1] >= '0' && name.at[i - 1] <= '9')
		i--;
	return i < name.n && (i == 0 || name.at[i - 1] == '.');
}

int nexthop_parse(struct span text, struct nexthop *out)
{
	struct nexthop h = {0};
	struct span host;
	struct sockaddr_storage sa;
	socklen_t n;
	if (split_port(text, &host, &h.port) != 0 || host.n == 0)
		return EINVAL;
	h.name = without_brackets(host);
	bool bracketed = h.name.n != host.n, address = set_address(h.name, 0, &sa, &n);
	if (!address && (!domain_is_valid(h.name, false) || name_looks_like_address(h.name)))
		return EINVAL;
	h.kind = bracketed && address ? NEXTHOP_ADDRESS : bracketed ? NEXTHOP_HOST : NEXTHOP_MX;
	*out = h;
	return 0;
}

bool nexthop_next(struct span *rest, struct nexthop *out, bool *equal, bool *bad)
{
	*equal = *bad = false;
	bool any = false;
	while (rest->n > 0 && strchr(" \t,|", rest->at[0]) != NULL) {
		any = any || rest->at[0] == ',' || rest->at[0] == '|';
		*bad = *bad || (*equal && rest->at[0] == '|');
		*equal = *equal || rest->at[0] == '|';
		rest->at++;
		rest->n--;
	}
	size_t n = 0;
	while (n < rest->n && strchr(" \t,|", rest->at[n]) == NULL)
		n++;
	if (n == 0) {
		*bad = *bad || any; /* a comma or bar with nothing behind it */
		return false;
	}
	*bad = *bad || nexthop_parse((struct span){rest->at, n}, out) != 0;
	rest->at += n;
	rest->n -= n;
	return !*bad;
}

int port_list_add(struct port_list *l, uint16_t port)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->ports[i] == port)
			return 0;
	uint16_t *more = realloc(l->ports, (l->n + 1) * sizeof *more);
	if (more == NULL)
		return ENOMEM;
	l->ports = more;
	more[l->n++] = port;
	return 0;
}

bool port_list_has(const struct port_list *l, uint16_t port)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->ports[i] == port)
			return true;
	return false;
}

static int add_lmtp_port(const char *text, struct port_list *l)
{
	struct delivery how;
	struct nexthop n;
	if (delivery_parse(span_of(text), &how) != 0 || how.kind != DELIVERY_LMTP || nexthop_parse(how.argument, &n) != 0)
		return 0;
	return port_list_add(l, n.port != 0 ? n.port : LMTP_PORT);
}

static int add_ports_of(const char *nexthops, struct port_list *l)
{
	struct span rest = span_of(nexthops);
	struct nexthop n;
	bool equal, bad;
	int error = 0;
	while (error == 0 && nexthop_next(&rest, &n, &equal, &bad))
		if (n.port != 0)
			error = port_list_add(l, n.port);
	return error;
}

int config_ports(const struct config *c, struct port_list *l)
{
	int error = 0;
	for (size_t i = 0; i < c->servers_n && error == 0; i++) {
		const struct server *s = &c->servers[i];
		error = port_list_add(l, (uint16_t)s->p.out.outbound_port);
		if (error == 0)
			error = add_ports_of(s->p.smart_host, l);
		if (error == 0)
			error = add_lmtp_port(s->p.local.local_delivery, l);
		for (size_t k = 0; k < s->domains_n && error == 0; k++) {
			error = add_ports_of(s->domains[k].p.route, l);
			if (error == 0)
				error = port_list_add(l, (uint16_t)s->domains[k].p.out.outbound_port);
			if (error == 0)
				error = add_lmtp_port(s->domains[k].p.local.local_delivery, l);
		}
	}
	return error;
}

/* ---- maps ---- */

static const struct map_type {
	const char *name, *tail; /* of the file beside FILE that is read, "" for FILE itself, NULL: no file */
} map_types[] = {{"hash", ".db"}, {"btree", ".db"}, {"cdb", ".cdb"}, {"regexp", ""}, {"pcre", ""}, {"odbc", ""}, {"ldap", ""}, {"inline", NULL}};

static const struct map_type *map_type(struct span spec, struct span *name)
{
	struct span type = span_until(&spec, ':');
	*name = spec;
	for (size_t i = 0; i < COUNT_OF(map_types); i++)
		if (span_is(type, map_types[i].name))
			return &map_types[i];
	return NULL;
}

void map_spec_path(struct span spec, char *out, size_t size)
{
	struct span name;
	const struct map_type *t = map_type(spec, &name);
	out[0] = '\0';
	if (t != NULL && t->tail != NULL)
		(void)snprintf(out, size, "%.*s%s", SPAN_ARG(name), t->tail);
}

static size_t spec_length(struct span text)
{
	size_t n = 0;
	int depth = 0;
	while (n < text.n && (depth > 0 || (text.at[n] != ' ' && text.at[n] != '\t' && text.at[n] != ','))) {
		depth += text.at[n] == '{' ? 1 : text.at[n] == '}' ? -1 : 0;
		n++;
	}
	return depth == 0 ? n : SIZE_MAX;
}

bool map_spec_next(struct span *rest, struct span *out, bool *bad)
{
	*bad = false;
	while (rest->n > 0 && (rest->at[0] == ' ' || rest->at[0] == '\t' || rest->at[0] == ',')) {
		rest->at++;
		rest->n--;
	}
	if (rest->n == 0)
		return false;
	size_t n = spec_length(*rest);
	*bad = true;
	if (n == SIZE_MAX)
		return false;
	*out = (struct span){rest->at, n};
	struct span name;
	const struct map_type *t = map_type(*out, &name);
	bool is_inline = t != NULL && t->tail == NULL;
	if (t == NULL || name.n < 2 || name.at[0] != (is_inline ? '{' : '/') || (is_inline && name.at[name.n - 1] != '}'))
		return false;
	rest->at += n;
	rest->n -= n;
	*bad = false;
	return true;
}
