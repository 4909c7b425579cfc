/* context: libunbound as Posthorn uses it. */
#ifndef DNS_CONTEXT_H
#define DNS_CONTEXT_H

#include "params/params.h"
#include <event2/event.h>
#include <unbound.h>

/* servers, anchors: dns_servers and dns_trust_anchor_file.  *ports: where it will connect by TCP.  All files are open when it
 * returns, so that the caller may be confined.  0 or errno with *why. */
MUST_CHECK int dns_context_make(struct event_base *base, const char *servers, const char *anchors, struct ub_ctx **out, struct port_list *ports, struct complaint *why);

#endif
