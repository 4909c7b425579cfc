/* sts: fetches the MTA-STS policies of domains and keeps them (RFC 8461); counts how TLS goes and reports it (RFC 8460). */
#ifndef STS_STS_AGENT_H
#define STS_STS_AGENT_H

#include "dns/dns.h"
#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"
#include "sts/sts.h"
#include "sts/tlsrpt.h"
#include <curl/curl.h>

#define EVENTS_FILE "sts/events.def"
#include "log/events.h"

enum {
	DOMAINS_MOST = 20000, DOMAIN_BUCKETS = 4096, TRANSFERS_MOST = 32,
	DNS_LIMIT_MS = 10000, FETCH_LIMIT_S = 60 /* RFC 8461 3.3 */, CONNECT_LIMIT_S = 20, HTTP_PORT = 80, HTTPS_PORT = 443,
	RETRY_S = 300,           /* after a fetch that failed (RFC 8461 3.3) */
	REFRESH_S = 86400,       /* a policy that is in use is looked at once a day (RFC 8461 10.2) */
	SWEEP_S = 60, FILE_NAME = 65, ADDRESSES_MOST = 8, TALLY_BUCKETS = 1024,
};

/* A host's addresses.  The caller fills the first part and keeps the struct at its place until done is called. */
struct resolve {
	void *context;
	void (*done)(struct resolve *r); /* addresses: in text, separated by commas; empty: there are none to be had */
	struct sts_agent *agent;
	char host[272];
	struct buffer addresses;
	/* private */
	uint64_t serials[2];             /* of the questions that are open */
	struct resolve *next;
};

/* One HTTPS transfer.  The caller fills the first part. */
struct transfer {
	void *context;
	/* failure NULL: the server answered with a 2xx; may free the struct */
	void (*done)(struct transfer *t, const char *failure);
	struct sts_agent *agent;
	const char *url, *host;  /* host: of the URL, as its certificate must name it */
	bool plain;              /* HTTP: what is fetched is signed itself */
	struct span addresses;   /* of the host, in text, separated by commas */
	struct span authorities; /* PEM */
	struct span post;        /* what is sent, empty: nothing, a text is fetched */
	const char *type;        /* of it: a header line */
	CURLcode code;           /* to done: why it failed */
	/* private */
	CURL *easy;
	struct curl_slist *resolve, *headers;
	struct buffer body;
	char error[CURL_ERROR_SIZE];
};

struct asker {
	struct channel *channel; /* NULL: gone */
	uint64_t serial;
	uint32_t server;
	struct asker *next;
};

/* What is known of a domain's policy, and what is being done to know it. */
enum check_phase { PHASE_REST, PHASE_RECORD, PHASE_ADDRESSES, PHASE_FETCH };
struct domain_policy {
	struct sts_agent *agent;
	char domain[256];
	uint32_t authorities;    /* which ones vouch for it */
	bool kept;               /* there is one */
	bool untold;             /* this time nothing could be asked: no word on whether there is one */
	enum sts_mode mode;
	char id[STS_ID_MOST + 1];
	struct buffer mx;        /* as in struct sts_policy */
	int64_t fetched_s, until_s, checked_s, used_s;
	int64_t retry_s;         /* no fetch before, where the last one failed */
	char failure[300];
	enum check_phase phase;
	char fresh_id[STS_ID_MOST + 1];
	struct resolve resolve;
	struct transfer transfer;
	char url[320];
	struct asker *askers;
	struct domain_policy *next;           /* in its bucket */
	struct domain_policy *older, *newer;  /* by last use */
};

struct authorities {
	const char *path;
	struct buffer pem;
};

struct query {
	uint64_t serial;
	struct domain_policy *of;
	struct query *next;
};

struct sts_agent {
	struct process proc;
	struct channel *resolver;
	int dir_fd;
	CURLM *multi;
	struct event *curl_timer, *sweep;
	size_t transfers;
	struct authorities *authorities; /* by server; equal paths have the first one's text */
	struct domain_policy *domains[DOMAIN_BUCKETS];
	struct domain_policy *oldest, *newest;
	size_t domains_n;
	struct query *queries;
	uint64_t serial;
	struct resolve *resolving;
	struct status *statuses, *fresh_statuses; /* of our own certificates */
	struct channel *workers, *keyd;
	/* reports.h */
	struct tally *tallies[TALLY_BUCKETS];
	size_t tallies_n;
	unsigned tallies_lost;   /* sessions that found no room */
	bool tallies_changed, reporting;
	struct report *report;   /* the one that is on its way */
	struct event *report_next;
	int64_t report_spread_s; /* after the end of a day */
	int maildrop_fd;         /* -1: no server sends reports */
};

/* main.c */
uint32_t authorities_of(const struct sts_agent *a, uint32_t server);
/* domains.c: the table */
struct domain_policy *domain_get(struct sts_agent *a, uint32_t authorities, struct span domain); /* NULL: no memory, or all are busy */
struct domain_policy *domain_find(struct sts_agent *a, uint32_t authorities, struct span domain); /* NULL: not known */
void domain_used(struct domain_policy *d);
void domain_forget(struct domain_policy *d);      /* the file too */
bool domain_holds(const struct domain_policy *d); /* there is a policy that has not expired */
void domain_rest(struct domain_policy *d);        /* nothing is under way any more: what holds nothing is forgotten */
int domain_on_query(struct channel *ch, struct message *m);
void domain_asker_gone(struct sts_agent *a, const struct channel *ch);
void domain_sweep(struct sts_agent *a);
void domain_put_policy(const struct domain_policy *d, struct buffer *policy, struct buffer *hosts); /* a line each, for reports */
/* check.c: the record, the addresses, the policy */
void check_begin(struct domain_policy *d);
int check_on_answer(struct channel *ch, struct message *m);
void check_resolver_gone(struct sts_agent *a);
/* resolve.c */
void resolve_begin(struct resolve *r); /* may call done at once */
void resolve_forget(struct resolve *r);
bool resolve_on_answer(struct sts_agent *a, const struct msg_dns_answer *got);
void resolve_resolver_gone(struct sts_agent *a);
/* ocsp.c: what their authorities say of our own certificates (RFC 6960) */
int status_on_offer(struct channel *c, struct message *m);
int status_on_offers_end(struct channel *c, struct message *m);
void status_keyd_new(struct sts_agent *a);
void status_tell(struct sts_agent *a, struct channel *worker); /* all that is known */
void status_sweep(struct sts_agent *a);
/* fetch.c */
MUST_CHECK int fetch_setup(struct sts_agent *a, struct complaint *why);
MUST_CHECK int fetch_begin(struct transfer *t);   /* 0, EAGAIN: too many at a time, or ENOMEM */
void fetch_end(struct transfer *t);
/* store.c: spool_directory/sts */
void store_write(struct domain_policy *d);
void store_remove(const struct domain_policy *d);
void store_read_all(struct sts_agent *a);

#endif
