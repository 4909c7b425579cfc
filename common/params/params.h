/* params: the configuration of the service, checked when it is read. */
#ifndef PARAMS_PARAMS_H
#define PARAMS_PARAMS_H

#include "base/base.h"
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#define PARAM_UNLIMITED INT64_MAX

enum param_scope { SCOPE_SERVICE, SCOPE_SERVER, SCOPE_DOMAIN };
/* TIME_LIMIT: a time that may be "unlimited". */
enum param_kind { KIND_COUNT, KIND_TIME, KIND_TIME_LIMIT, KIND_BYTES, KIND_WORDS, KIND_WORD, KIND_TEXT, KIND_PATH, KIND_HOSTNAME, KIND_LISTEN,
	KIND_CLIENTS, KIND_NEXTHOPS, KIND_NAMES, KIND_ADDRESS, KIND_DELIVERY, KIND_MAPS,
	KIND_NETWORKS, KIND_RATE, KIND_FILES, KIND_PAIRS, KIND_RESOLVERS, KIND_OPERATORS };

typedef int64_t param_COUNT, param_TIME, param_TIME_LIMIT, param_BYTES, param_WORDS, param_WORD;
typedef const char *param_TEXT, *param_PATH, *param_HOSTNAME, *param_LISTEN, *param_CLIENTS, *param_NEXTHOPS, *param_NAMES, *param_ADDRESS, *param_DELIVERY, *param_MAPS,
	*param_NETWORKS, *param_RATE, *param_FILES, *param_PAIRS, *param_RESOLVERS, *param_OPERATORS;

/* The rows of one scope become the fields of one struct. */
#define PARAM(scope, kind, name, ...) scope(kind, name)
#define FIELD(kind, name) param_##kind name;
#define NONE(kind, name)
#define SERVICE FIELD
#define SERVER NONE
#define OUTBOUND NONE
#define LOCAL NONE
#define DOMAIN NONE
struct service_params {
#include "params/params.def"
};
#undef SERVICE
#undef OUTBOUND
#define SERVICE NONE
#define OUTBOUND FIELD
#define PARAM(scope, kind, name, ...) scope(kind, name)
/* Of a server; a remote domain may have its own. */
struct outbound_params {
#include "params/params.def"
};
#undef OUTBOUND
#undef LOCAL
#define OUTBOUND NONE
#define LOCAL FIELD
#define PARAM(scope, kind, name, ...) scope(kind, name)
/* Of a server; a local domain may have its own. */
struct local_params {
#include "params/params.def"
};
#undef LOCAL
#undef SERVER
#define LOCAL NONE
#define SERVER FIELD
#define PARAM(scope, kind, name, ...) scope(kind, name)
struct server_params {
#include "params/params.def"
	struct outbound_params out;
	struct local_params local;
};
#undef SERVER
#undef DOMAIN
#define SERVER NONE
#define DOMAIN FIELD
#define PARAM(scope, kind, name, ...) scope(kind, name)
struct domain_params {
#include "params/params.def"
	struct outbound_params out;
	struct local_params local;
};
#undef SERVICE
#undef SERVER
#undef OUTBOUND
#undef LOCAL
#undef DOMAIN
#undef FIELD
#undef NONE

enum { STARTUP_AUTOMATIC, STARTUP_MANUAL, STARTUP_DISABLED };
enum domain_type { DOMAIN_ALIAS, DOMAIN_REMOTE, DOMAIN_LOCAL };
enum domain_relay { DOMAIN_RELAY_SERVER, DOMAIN_RELAY_YES, DOMAIN_RELAY_NEVER };

enum { OUT_TLS_OPPORTUNISTIC, OUT_TLS_NONE, OUT_TLS_REQUIRE, OUT_TLS_VERIFY, OUT_TLS_DANE_ONLY }; /* of outbound_tls */
enum { DANE_YES, DANE_NO };                /* of outbound_dane */
enum { STS_YES, STS_NO };                  /* of outbound_mta_sts */
enum { TLS_REPORT_NO, TLS_REPORT_YES };
enum { AUTH_ANONYMOUS, AUTH_BASIC, AUTH_INTEGRATED }; /* of outbound_auth */
enum { AUTH_TO_SMART_HOST, AUTH_TO_ALL }; /* of outbound_auth_to */
enum { TLS_OPPORTUNISTIC, TLS_NONE, TLS_REQUIRE, TLS_REQUIRE_AUTH }; /* of the parameter tls */

struct param_row {
	const char *name;
	enum param_scope scope;
	enum param_inherits { INHERITS_NOT, INHERITS_OUTBOUND, INHERITS_LOCAL } inherits; /* of a domain: unset, the server's value holds */
	enum param_kind kind;
	size_t offset;
	enum param_setter { SET_BY_ROOT, SET_BY_OPERATOR } who;
	const char *standard;
	int64_t min, max;
	const char *words, *source, *text;
};
extern const struct param_row param_rows[];
extern const size_t param_rows_n;
const struct param_row *param_find(struct span name, enum param_scope scope); /* NULL: none */
const char *param_nearest(struct span name, enum param_scope scope);

/* One "name = value" as the administrator wrote it. */
struct setting {
	const struct param_row *row;
	const char *text;
	const char *file;
	unsigned line;
	struct setting *next;
};

struct domain {
	const char *name; /* lower case, may begin with "*." */
	bool has_own;     /* outbound parameters that are not the server's */
	struct domain_params p;
	struct setting *settings;
	const char *file;
	unsigned line;
};
enum { SERVERS_MOST = 1024 }; /* those that were removed while the service runs count: each keeps its number */
struct server {
	const char *name;
	bool gone; /* removed since the service was started: it has no listeners, no processes, and keeps its number */
	struct server_params p;
	struct setting *settings;
	struct domain *domains;
	size_t domains_n;
};
struct config {
	struct arena arena;
	struct service_params service;
	struct setting *settings;
	struct server *servers;
	size_t servers_n;
};

/* Reads DIR/posthorn.conf and DIR/servers/NAME.conf and checks all of it.  Fills in what the
 * system says (fqdn, default_domain).  0, or an errno value with *why filled. */
MUST_CHECK int config_load(int dir_fd, struct config *out, struct complaint *why);
/* The same with other text in the place of one file. */
MUST_CHECK int config_load_with(int dir_fd, const char *file, struct span text, struct config *out, struct complaint *why);
/* Gives servers the places of names; those of names that are there no more are gone; new ones come last.  0, ENOMEM, E2BIG. */
MUST_CHECK int config_place(struct config *c, char *const *names, size_t n);
/* The sealed form that the master hands to every process, and back. */
void config_put_snapshot(struct buffer *b, const struct config *c);
MUST_CHECK int config_parse_snapshot(struct span text, struct config *out, struct complaint *why);
void config_free(struct config *c);
const struct server *config_main_server(const struct config *c); /* whose pickup takes what programs submit: default, else the first */
struct server *config_server(const struct config *c, struct span name); /* NULL: none */
/* Warnings that hornconf check prints; calls say for each. */
void config_warnings(const struct config *c, void (*say)(void *context, const char *text), void *context);

/* The value of a row as text, as the administrator would write it: setting, else default (unexpanded). */
const char *setting_text(const struct setting *list, const struct param_row *row);
void param_format(struct buffer *b, const struct param_row *row, const void *params);

/* Edits "name = value" in the text of a file: section NULL is the top.  value NULL removes. */
MUST_CHECK int config_edit(struct span text, const char *section, struct span name, const char *value, struct buffer *out);
MUST_CHECK int config_add_section(struct span text, const char *section, struct buffer *out);
MUST_CHECK int config_remove_section(struct span text, const char *section, struct buffer *out);
/* Checks one value alone; test_mode lifts the lower bounds of times. */
MUST_CHECK int param_check(const struct param_row *row, const char *text, bool test_mode, struct complaint *why);
bool server_name_is_valid(struct span name);

/* ---- typed readings of checked texts ---- */
struct endpoint {
	struct sockaddr_storage addr;
	socklen_t addr_n;
	bool any; /* "*": IPv4 and IPv6; addr holds only the port */
	uint16_t port;
};
/* Each endpoint of a LISTEN text: next one, false at the end or (with *bad) at a bad one. */
bool listen_next(struct span *rest, struct endpoint *out, bool *bad);
/* Each endpoint of a server, of listen, listen_tls and listen_submission; false at the end.  Begin with {0}. */
enum listen_kind { LISTEN_PLAIN, LISTEN_TLS, LISTEN_SUBMISSION, LISTEN_KINDS };
struct listen_walk {
	enum listen_kind kind; /* of the endpoint that came last */
	struct span rest;
};
struct server;
bool server_listen_next(const struct server *s, struct listen_walk *w, struct endpoint *out);
const char *listen_parameter(enum listen_kind kind); /* "listen_tls" */
void endpoint_format(struct buffer *b, const struct endpoint *e);
bool endpoint_same(const struct endpoint *a, const struct endpoint *b);

/* Each certificate of a server with its key: those of tls_certificate_file, then of tls_sni; false at the end.  Begin with {0}.
 * certificate "": the pair that was made at the first start. */
struct pair_walk {
	struct span certificates, keys, sni;
	bool begun;
};
struct pair_files {
	struct span name, certificate, key; /* name: "" for clients that name none, or one that has no pair */
};
bool server_pair_next(const struct server *s, struct pair_walk *w, struct pair_files *out);
enum { PAIR_PATH = 1200 };
/* Where its certificate ("crt") or key ("key") is; dir: of the configuration. */
void server_pair_path(const struct server *s, const struct pair_files *f, const char *dir, const char *kind, char path[PAIR_PATH]);
/* Each NAME=CERTIFICATE:KEY of a PAIRS text: false at the end or (with *bad) at a bad one. */
bool path_is_plain(struct span s); /* absolute, and short enough */
bool pairs_next(struct span *rest, struct pair_files *out, bool *bad);

struct client_list {
	struct client_mask {
		unsigned char addr[16]; /* IPv4 as ::ffff:a.b.c.d */
		unsigned bits;
	} *masks;
	size_t n;
	char **names; /* clients whose name is that or below it */
	size_t names_n;
};
MUST_CHECK int client_list_parse(struct span text, struct client_list *out, struct span *bad);
bool client_list_has(const struct client_list *l, const struct sockaddr *client); /* by its address */
bool client_list_has_name(const struct client_list *l, struct span name);
void client_list_free(struct client_list *l);
MUST_CHECK int client_list_replace(struct client_list *l, const char *text); /* 0; ENOMEM: it stays as it was */
/* "N/TIME", such as 100/1h or 5/m; "unlimited": n is PARAM_UNLIMITED. */
struct rate {
	int64_t n, seconds;
};
MUST_CHECK int rate_parse(struct span text, struct rate *out); /* 0 or EINVAL */
bool resolvers_are_valid(struct span text); /* ADDR or ADDR@PORT, several with blanks or commas */
/* "[192.0.2.1]", "[IPv6:2001:db8::1]", with or without brackets and "IPv6:". */
MUST_CHECK int literal_to_sockaddr(struct span literal, uint16_t port, struct sockaddr_storage *out, socklen_t *n);
bool name_looks_like_address(struct span name); /* its last label is a number */
MUST_CHECK int sockaddr_to_v6(const struct sockaddr *sa, unsigned char out[16]);

enum { LMTP_PORT = 24, UNIX_PATH_MOST = 100 };
enum { NEXTHOPS_MOST = 20 }; /* in one text */
enum nexthop_kind { NEXTHOP_ADDRESS, NEXTHOP_HOST, NEXTHOP_MX };
struct nexthop {
	enum nexthop_kind kind;
	struct span name; /* without brackets */
	uint16_t port;    /* 0: not said */
};
MUST_CHECK int nexthop_parse(struct span text, struct nexthop *out);
/* Each next hop of a NEXTHOPS text; *equal: as good as the one before it.  False at the end or (with *bad) at a bad one. */
bool nexthop_next(struct span *rest, struct nexthop *out, bool *equal, bool *bad);
struct port_list {
	uint16_t *ports; /* the owner frees */
	size_t n;
};
MUST_CHECK int port_list_add(struct port_list *l, uint16_t port); /* once; 0 or ENOMEM */
bool port_list_has(const struct port_list *l, uint16_t port);
/* Every port that the configuration's next hops and outbound_port parameters name.  0 or ENOMEM. */
MUST_CHECK int config_ports(const struct config *c, struct port_list *l);

/* A DELIVERY text: how local mail is delivered. */
enum delivery_kind { DELIVERY_DROP, DELIVERY_MAILDIR, DELIVERY_MBOX, DELIVERY_LMTP, DELIVERY_PIPE };
struct delivery {
	enum delivery_kind kind;
	struct span argument; /* the command of DELIVERY_PIPE; of DELIVERY_LMTP a next hop or unix:PATH */
};
MUST_CHECK int delivery_parse(struct span text, struct delivery *out);
/* Each "TYPE:NAME" of a MAPS text; inline:{...} may hold blanks and commas.  False at the end or (with *bad) at a bad one. */
bool map_spec_next(struct span *rest, struct span *out, bool *bad);
/* Does mail for this local domain pass local first, because aliases or a catch-all may lead it elsewhere? */
bool local_is_expanded(const struct local_params *p);
/* Each MAPS parameter that is not empty, of servers and domains that have their own.
 * take's first value that is not 0, else 0. */
struct maps_place {
	const char *server, *domain, *parameter, *texts; /* domain: "" for the server's */
};
int config_each_maps(const struct config *c, int (*take)(void *context, const struct maps_place *place), void *context);
bool config_uses_gss(const struct config *c); /* has any server integrated logins, and are there keys for them?  Or logins by certificates? */
bool config_logs_in_integrated(const struct config *c); /* at other servers: gssc is needed */
bool config_reports_tls(const struct config *c); /* has any server tls_report = yes? */
bool config_uses_pam(const struct config *c); /* has any server auth_backend = pam? */
/* The file that is read for a "TYPE:FILE", "" where there is none. */
void map_spec_path(struct span spec, char *out, size_t size);
bool operators_are_valid(struct span text); /* users and @groups, with blanks or commas */
/* The first user or @group of a server's operators that this machine does not know; false: it knows all. */
bool config_unknown_operator(const struct config *c, char name[64], const char **server);
/* What an operator's edit makes of a server's file.  settings: "name=value" with tabs between them; domain "": the server's own.
 * 0, or errno with *why filled: EPERM for a parameter that is root's. */
MUST_CHECK int config_operator_edit(int dir_fd, const char *server, const char *domain, struct span settings, struct buffer *file, struct buffer *changes, struct complaint *why);
/* Is there anything that the maps process is asked? */
bool config_uses_maps(const struct config *c);

/* The parameters that hold for mail to a local domain; domain NULL, or an alias: the server's. */
const struct local_params *local_of(const struct server *s, const struct domain *d);
/* Does any server or domain deliver as users of this machine? */
bool config_runs_deliveries(const struct config *c);
bool config_uses_unix_lmtp(const struct config *c); /* does any speak LMTP to a socket of this machine? */

/* The parameters that hold for mail to a remote domain; domain NULL: the server's. */
const struct outbound_params *outbound_of(const struct server *s, const struct domain *d);
const struct domain *server_domain(const struct server *s, struct span name); /* NULL: no such section */

void params_print_man(FILE *out, enum param_scope scope);

#endif
