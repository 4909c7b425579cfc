/* explain: why an address's mail goes where it goes, for people or as JSON. */
#ifndef ROUTE_EXPLAIN_H
#define ROUTE_EXPLAIN_H

#include "lookup/lookup.h"
#include "route/route.h"

struct explain {
	const struct server *server;
	struct span address;              /* as it was asked for */
	struct span from;                 /* empty: not said */
	const struct sockaddr *client;    /* NULL: not said */
	struct span client_text;
	const struct reverse *names;      /* of the client, when explain_needs_names said so */
	bool json;
	struct route route;               /* filled by explain_begin */
	struct address parsed;
	struct buffer *out;
	struct buffer notes;              /* of the look-up, a line each */
};
/* Does a name of the client's decide anything? */
bool explain_needs_names(const struct explain *e);
/* Writes all that the configuration decides.  EINVAL: no address, *out says why.  The caller ends with explain_end. */
MUST_CHECK int explain_begin(struct explain *e);
/* Of a local address, what maps said: where it goes on to (to empty: nowhere else), and whether it exists. */
void explain_aliases(struct explain *e, struct span rule, struct span to);
void explain_exists(struct explain *e, const char *answer, struct span rule);
/* The look-up's outcome; l NULL: there was none, why says it. */
void explain_end(struct explain *e, const struct lookup *l, const char *why);

#endif
