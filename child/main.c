/* child: one local delivery, as the recipient; deliver has made it so.
 * User: the recipient.
 * May: read the recipient's .forward and do what it says; write the mailbox (confined to its directory by Landlock and
 * seccomp), or run the command that the configuration names.
 * Never: get new privileges; outlive deliver. */
#include "child.h"

int main(void)
{
	struct child_task t = {.action = {"", 0}};
	child_begin(&t);
	if (!span_is(t.forward, "no"))
		forward_follow(&t); /* returns where the mailbox alone gets it */
	if (span_is(t.forward, "only"))
		child_go_on();
	child_deliver(&t);
}
