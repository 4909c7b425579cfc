/* posthorn check: looks at the machine around the service. */
#ifndef CMD_POSTHORN_CHECK_H
#define CMD_POSTHORN_CHECK_H

#include "cmd/common/cli.h"
#include "dns/dns.h"
#include <event2/event.h>
#include <netinet/in.h>
#include <unbound.h>

/* Problems and warnings are counted; unknown: it could not be found out. */
enum verdict { CHECK_OK, CHECK_WARNING, CHECK_PROBLEM, CHECK_UNKNOWN };
enum { OWN_MOST = 64 };

struct check {
	struct cli *cli;
	bool json;
	const char *probe;                       /* --probe: a domain whose servers are connected to, NULL: none */
	const struct server *server;             /* whose turn it is, NULL: the service's */
	unsigned problems;
	unsigned char own[OWN_MOST][16];         /* addresses of this machine that are not loopback's, IPv4 as ::ffff:a.b.c.d */
	size_t own_n;
	struct event_base *base;
	struct ub_ctx *dns;
};
/* One row of what was found. */
void check_say(struct check *k, enum verdict v, const char *what, const char *format, ...) PRINTF_LIKE(4, 5);
bool check_is_own(const struct check *k, const unsigned char address[16]);
void check_print_address(const unsigned char address[16], char out[INET6_ADDRSTRLEN]);
/* Can anybody outside connect to one of the server's ports for mail from other servers? */
bool check_takes_mail(const struct server *s);

/* What needs no peer: permissions, certificates, clock. */
void check_machine(struct check *k);
void check_server_files(struct check *k);

/* Asks the DNS and peers; run by a child that is nobody (posthorn-dns) and confined. */
void check_names(struct check *k);
void check_peers(struct check *k);
/* Records of one kind, for dns_take_*; the caller frees *records. */
enum dns_status check_ask(struct check *k, enum dns_kind kind, const char *name, struct buffer *records);
/* The addresses of a name; how many. */
size_t check_addresses(struct check *k, const char *name, unsigned char out[][16], size_t most);

/* All of it; a sysexits code: 78 when there is a problem. */
MUST_CHECK int check_run(struct cli *c, const char *server, const char *probe, bool json);

#endif
