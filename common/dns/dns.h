/* dns: the words in which resolver answers. */
#ifndef DNS_DNS_H
#define DNS_DNS_H

#include "base/base.h"

enum dns_kind { DNS_A = 1, DNS_PTR = 12, DNS_MX = 15, DNS_TXT = 16, DNS_AAAA = 28, DNS_SRV = 33, DNS_TLSA = 52 };
enum dns_status { DNS_OK, DNS_NXDOMAIN, DNS_NODATA, DNS_TEMPFAIL, DNS_BOGUS };

/* Records travel as: MX: u32 preference, host; A, AAAA: address bytes; PTR: a name; TXT: its
 * strings joined; TLSA: its data (RFC 6698 2.1); SRV: u32 priority, weight, port, host. */
struct dns_mx {
	uint32_t preference;
	struct span host; /* without the last dot; empty: "." (RFC 7505) */
};
void dns_put_mx(struct buffer *b, const struct dns_mx *mx);
bool dns_take_mx(struct span *rest, struct dns_mx *out);
struct dns_srv {
	uint32_t priority, weight, port;
	struct span host; /* empty: "." (RFC 2782) */
};
bool dns_take_srv(struct span *rest, struct dns_srv *out);
enum { TLSA_MOST = 2048 /* bytes of a record; larger ones are left out */ };
struct dns_tlsa {
	unsigned char usage, selector, matching;
	struct span data;
};
bool dns_take_tlsa(struct span *rest, struct dns_tlsa *out);
/* Reads the answer section of a DNS message for records of one kind; owner (may be NULL) gets whose they are: another than was
 * asked for where aliases lead there.  EBADMSG: malformed. */
MUST_CHECK int dns_parse_answer(struct span packet, enum dns_kind kind, struct buffer *records, size_t *n, unsigned *rcode, struct buffer *owner);

#endif
