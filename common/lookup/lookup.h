/* lookup: from a route's text to the addresses to try, in their order. */
#ifndef LOOKUP_LOOKUP_H
#define LOOKUP_LOOKUP_H

#include "base/base.h"
#include "dns/dns.h"
#include "params/params.h"
#include "sts/sts.h"
#include "sts/tlsrpt.h"
#include <sys/socket.h>

enum { LOOKUP_TARGETS_MOST = 20, LOOKUP_STEPS_MOST = 2 * NEXTHOPS_MOST /* a route's and the smart host's */ };

/* TLSA records of a host (RFC 7672), with validated look-ups all the way to them.  Shared by its addresses and by the connections
 * to them. */
struct tlsa_set {
	unsigned users;
	bool usable;         /* false: there are some, but none that could be checked (2.2: encryption is due all the same) */
	char base[256];      /* the name below which they are */
	size_t n;
	char records[];      /* usable ones, for dns_take_tlsa */
};
struct tlsa_set *tlsa_make(struct span records, const char *base, unsigned *all, unsigned *usable); /* NULL: no memory */
struct tlsa_set *tlsa_hold(struct tlsa_set *s); /* NULL: NULL */
void tlsa_drop(struct tlsa_set *s);

struct lookup_target {
	struct sockaddr_storage addr;
	socklen_t addr_n;
	char name[256];      /* of the host */
	char domain[256];    /* as the route has it: of the MX, or the host again */
	uint32_t preference; /* of its MX */
	bool fallback;       /* to be tried only when none before it answered */
	bool named;          /* the name is the configuration's, or a validated MX says it: nobody else could have put it there */
	bool mx;             /* domain's MX hosts are tried: what it publishes counts */
	enum sts_mode sts;   /* of domain's MTA-STS policy */
	bool sts_named;      /* which names the host */
	struct tlsa_set *tlsa; /* NULL: none, or they are not asked for */
};

enum lookup_state { LOOKUP_NEW, LOOKUP_READY, LOOKUP_FAILED, LOOKUP_DEFERRED };

/* One look-up of a route.  The caller fills the first part, keeps the struct at its place until done is called, and may
 * use it again with lookup_begin. */
struct lookup {
	void *context;
	/* Asks the resolver; the answer comes by lookup_answer.  False: it can't be asked, no answer comes. */
	bool (*ask)(struct lookup *l, enum dns_kind kind, const char *name);
	void (*done)(struct lookup *l);
	/* Asks for the MTA-STS policy of a domain with MX hosts, where sts is set; the answer comes by lookup_sts.  False as above. */
	bool (*ask_sts)(struct lookup *l, const char *domain);
	/* Is this address our own server's?  May be NULL. */
	bool (*is_own)(const struct lookup *l, const struct sockaddr *addr);
	/* A host was left out (RFC 8460); may be NULL. */
	void (*left_out)(struct lookup *l, const char *domain, const char *host, enum policy_kind kind, enum session_result why);
	/* What happens, for people; may be NULL. */
	void (*note)(struct lookup *l, const char *text);
	char fqdn[256];      /* an MX of this name is ourselves */
	uint16_t default_port;
	bool dane, sts;      /* TLSA records are asked for where they count, policies of MTA-STS */
	/* the outcome */
	enum lookup_state state;
	struct lookup_target *targets;
	size_t targets_n;
	char enhanced[12], reason[300]; /* of FAILED, DEFERRED (RFC 3463) */
	/* private: the route's steps, the present one's hosts and their addresses */
	struct lookup_step { struct nexthop hop; char name[256]; uint32_t group, order; bool fallback; } *steps;
	size_t steps_n, step_at;
	struct lookup_host { uint32_t preference, order; char name[256]; } *hosts;
	size_t hosts_n, host_at, step_targets;
	struct buffer v4, v6;
	unsigned asking;
	bool host_tempfail, tlsa_failed, final;
	bool step_secure, host_secure; /* validated so far: the name of the host, its addresses */
	enum sts_mode step_sts; /* of the step's domain */
	struct buffer sts_mx;   /* the names of its policy */
	bool asked_owner;    /* for TLSA below the name that the host is an alias of */
	char owner[256];     /* of the addresses */
};
/* What the resolver says.  owner: whose the records are, "" where that is not known. */
struct dns_said {
	enum dns_status status;
	bool secure;
	struct span records, owner;
};

/* What sts says of a domain's policy: text is for people. */
struct sts_said {
	enum sts_mode mode;
	struct span mx, text;
};
void lookup_begin(struct lookup *l, struct span route); /* route: the text of route_put_text, or a literal */
void lookup_answer(struct lookup *l, enum dns_kind kind, const struct dns_said *said);
void lookup_sts(struct lookup *l, const struct sts_said *said);
void lookup_abort(struct lookup *l, const char *reason); /* the answers will not come: deferred */
int lookup_set_unix(struct lookup *l, struct span path); /* instead of lookup_begin; done is not called.  0 or errno */
void lookup_free(struct lookup *l);
void lookup_format_target(const struct lookup_target *t, char out[400]); /* "host[address]:port" */

/* The names of a client's address.  One counts when it leads back to the address: whoever owns an address writes any name
 * for it.  The caller fills the first part, and keeps the struct at its place until done is called. */
enum reverse_state { REVERSE_OPEN, REVERSE_NONE /* no name at all */, REVERSE_NAMED, REVERSE_FAILED /* it can't be told now */ };
enum { REVERSE_NAMES_MOST = 5 };
struct reverse {
	void *context;
	bool (*ask)(struct reverse *r, enum dns_kind kind, const char *name); /* as in struct lookup */
	void (*done)(struct reverse *r);
	/* the outcome: NAMED may hold no name, when none leads back */
	enum reverse_state state;
	char *names[REVERSE_NAMES_MOST];
	size_t names_n;
	bool uncertain; /* of some name it could not be told now whether it leads back */
	/* private */
	unsigned char addr[16];
	char *found[REVERSE_NAMES_MOST];
	size_t found_n, at;
};
MUST_CHECK bool reverse_begin(struct reverse *r, const struct sockaddr *client); /* false: FAILED at once, done is not called */
void reverse_answer(struct reverse *r, enum dns_status status, struct span records); /* records of the question that was asked last */
void reverse_free(struct reverse *r);
/* Is the client in the list?  names NULL: not looked up yet. */
enum listed { LISTED_NO, LISTED_YES, LISTED_NEEDS_NAMES, LISTED_UNKNOWN /* the DNS does not say now */ };
enum listed reverse_listed(const struct client_list *l, const struct sockaddr *client, const struct reverse *names);

/* The addresses of this machine, as they were when they were read. */
struct own_addresses {
	struct { unsigned char addr[16]; } *list;
	size_t n;
};
MUST_CHECK int own_read(struct own_addresses *o); /* before a confinement: it asks the kernel by netlink.  0 or errno */
/* Warns where relay_exceptions let the gateway of this machine relay, behind which may be the world (a NAT, a proxy). */
void own_warn_of_gateways(const struct config *c, void (*say)(void *context, const char *text), void *context);
/* An address and port on which the server listens: mail sent there would come back. */
bool own_has(const struct own_addresses *o, const struct server *s, const struct sockaddr *sa);

#endif
