/* Words of smtp's scripts. */
#ifndef REPLAY_SMTP_NAMES_H
#define REPLAY_SMTP_NAMES_H

#include "dns/dns.h"

/* nxdomain | nodata | tempfail | bogus, or the records. */
enum dns_status replay_put_records(enum dns_kind kind, struct span value, struct buffer *out);
bool replay_take_key(struct span word, const char *key, struct span *value); /* KEY=VALUE, of this key */

#endif
