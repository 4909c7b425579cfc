/* lease: which node may write a queue that lies on shared storage (MISSION A9, ARCHITECTURE 7). */
#ifndef LEASE_LEASE_H
#define LEASE_LEASE_H

#include "base/base.h"
#include <stdatomic.h>

/* A server's row in the table that master shares with the processes of this node; its process lease alone writes it. */
struct lease_slot {
	_Atomic int64_t until_ms; /* of lease_clock_ms: before it nobody else can have the queue; 0: it is not ours */
	_Atomic uint32_t token;   /* grows with each taking, whoever takes */
	uint32_t unused;
};
/* Goes on while the machine sleeps. */
int64_t lease_clock_ms(void);
/* NULL: no lease is needed. */
bool lease_holds(const struct lease_slot *s);
uint32_t lease_token(const struct lease_slot *s); /* 0: no lease is needed */

/* What stands in Queue/lease. */
enum { LEASE_NODE = 65, LEASE_BOOT = 40, LEASE_BYTES = 512 };
struct lease_record {
	char node[LEASE_NODE]; /* host name of the holder */
	char boot[LEASE_BOOT]; /* its boot's id */
	uint32_t token;
	uint64_t count;        /* another one each time that it is renewed */
	bool held;             /* false: it was given back */
};
void lease_put(char out[LEASE_BYTES], const struct lease_record *r);
MUST_CHECK int lease_parse(struct span text, struct lease_record *out); /* EBADMSG */
bool lease_same(const struct lease_record *a, const struct lease_record *b);
bool lease_is_of(const struct lease_record *r, const struct lease_record *node); /* of the same boot of the same node */

/* Times of a lease whose term is so long. */
int64_t lease_renew_ms(int64_t term_ms);  /* between two renewals */
int64_t lease_hold_ms(int64_t term_ms);   /* from a renewal: so long it holds */
int64_t lease_silent_ms(int64_t term_ms); /* unchanged for so long: it may be taken */
int64_t lease_settle_ms(int64_t term_ms); /* after it was taken, before anything is done under it */

/* What a start does about what it sees. */
enum lease_step { LEASE_WATCH, LEASE_TAKE, LEASE_GO_ON /* it is ours already */, LEASE_ELSEWHERE };
struct lease_watch {
	struct lease_record first; /* as it was seen first */
	int64_t since_ms;          /* when; 0: not yet */
	bool there;                /* false: there was none, or one that cannot be read */
};
/* seen NULL: none, or unreadable.  own: this boot of this node, and the token under which a process before this one held it (0: none).
 * alone: no other process of this node holds it. */
enum lease_step lease_judge(struct lease_watch *w, const struct lease_record *seen, const struct lease_record *own, bool alone, int64_t now_ms, int64_t term_ms);

#endif
