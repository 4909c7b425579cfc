/* reports: what is counted for TLS reports, and how it leaves (RFC 8460). */
#ifndef STS_REPORTS_H
#define STS_REPORTS_H

#include "sts_agent.h"

enum {
	TALLIES_MOST = 20000, DETAILS_MOST = 100, RUAS_MOST = 10,
	DAY_S = 86400, SPREAD_S = 4 * 3600,  /* reports of a day leave within so long after it (RFC 8460 4.1) */
	GIVE_UP_S = 86400 + SPREAD_S,        /* after the day's end */
	AGAIN_S = 600, WRITE_S = 60,
	REPORT_MOST = 8 * 1024 * 1024,
};

/* Failures of one kind. */
struct detail {
	enum session_result result;
	uint64_t n;
	char host[256], address[48], local[48], reason[160];
	struct detail *next;
};

/* What a server saw of a domain on a day under a policy. */
struct tally {
	char server[64], domain[256];
	int64_t day;             /* since 1970, UTC */
	enum policy_kind kind;
	char *policy, *hosts;    /* a line each: of the policy, of the hosts that it is for */
	uint64_t successes, failures;
	struct detail *details;
	size_t details_n;
	int64_t retry_s;         /* its report did not get everywhere: not before */
	bool mailed, posted;     /* but everywhere by mail, everywhere by HTTPS */
	struct tally *next;
};

/* A report on its way: of a server about a domain on a day. */
struct report {
	struct sts_agent *agent;
	char server[64], domain[256];
	int64_t day, retry_s;
	uint64_t query;          /* that is open at the resolver, 0: none */
	char *rua;
	struct span rua_left;    /* into rua */
	unsigned addresses_n;    /* taken of it so far */
	struct buffer packed;
	struct resolve resolve;
	char id[400], url[1100];
	struct transfer transfer;
	bool mail_failed, post_failed; /* some address of the kind did not take it */
	bool mailed, posted;     /* before: those of the kind have it */
};

/* What goes in. */
struct seen {
	uint32_t server;
	enum policy_kind kind;
	enum session_result result;
	struct span domain, policy, hosts, host, address, local, reason;
};
int tally_on_result(struct channel *ch, struct message *m);
void tally_add(struct sts_agent *a, const struct seen *s);
struct tally *tally_get(struct sts_agent *a, const struct tally *key); /* NULL: no memory or too many */
/* Those of a report: forgotten, or put off until retry_s. */
void tally_drop(struct sts_agent *a, const struct report *r);
void tally_put_off(struct sts_agent *a, const struct report *r, int64_t retry_s);
bool tally_is_of(const struct tally *t, const struct report *r);
void detail_add(struct tally *t, const struct detail *d, uint64_t n);
/* report_file.c */
void tallies_write(struct sts_agent *a);
void tallies_read(struct sts_agent *a);
/* report_make.c: 0 or ENOMEM */
MUST_CHECK int report_make(struct report *r, const struct server *s);
void report_put_mail(const struct report *r, const struct server *s, struct span to, struct buffer *out);
/* report_send.c */
void reports_due(struct sts_agent *a);
bool report_on_answer(struct sts_agent *a, const struct msg_dns_answer *got);
void reports_resolver_gone(struct sts_agent *a);

#endif
