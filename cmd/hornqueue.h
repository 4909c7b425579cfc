/* hornqueue: shows the queues and acts on their messages. */
#ifndef CMD_HORNQUEUE_H
#define CMD_HORNQUEUE_H

#include "cmd/common/cli.h"

struct request {
	const char *server;
	bool json;
	struct buffer partial; /* of a row that has not come whole */
	size_t rows;
};
void print_safe(const char *text); /* text from mail never steers a terminal */
int badmail_run(struct cli *c, const struct request *r, char **args, int n);

#endif
