/* What the files of lookup share. */
#ifndef LOOKUP_LOOKUP_PRIVATE_H
#define LOOKUP_LOOKUP_PRIVATE_H

#include "lookup/lookup.h"

/* The steps of a route, in the order in which they are tried.  0, EINVAL: a name is not good, E2BIG, ENOMEM. */
MUST_CHECK int lookup_read_route(struct lookup *l, struct span route);
/* Takes the hosts out that a policy does not name, returns how many are left. */
size_t lookup_keep_named(struct lookup *l, struct span mx);

#endif
