/* sts: the texts of MTA-STS (RFC 8461): the record, the policy, which hosts it names.  No I/O. */
#ifndef STS_STS_H
#define STS_STS_H

#include "base/base.h"

enum sts_mode { STS_NONE, STS_TESTING, STS_ENFORCE, STS_UNKNOWN /* it can't be told now; of no policy */ };
const char *sts_mode_name(enum sts_mode m);

enum {
	STS_TEXT_MOST = 64 * 1024,      /* of a policy (3.3) */
	STS_AGE_MOST = 31557600,        /* seconds (3.2) */
	STS_ID_MOST = 32, STS_HOSTS_MOST = 100,
};

struct sts_policy {
	enum sts_mode mode;
	uint32_t max_age_s;
	struct buffer mx;       /* lspans: host names and *.NAME */
};
/* 3.2.  0 or EINVAL, *why (static) says what is wrong; the caller frees out->mx in either case. */
MUST_CHECK int sts_parse_policy(struct span text, struct sts_policy *out, const char **why);
/* 3.1: is a TXT record one of this kind?  If so and it is good, *id is its id (into the record), else empty. */
bool sts_parse_record(struct span record, struct span *id);
/* 4.1: *.NAME is for one label. */
bool sts_names_host(struct span mx, struct span host);

#endif
