/* control: answers operators on the control socket. */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"
#include "route/explain.h"

#define EVENTS_FILE "control/events.def"
#include "log/events.h"

enum { REQUEST_LIMIT = 4096, CLIENTS_MOST = 200 };

/* One connection asks one thing: a line "act server argument"; the answer is rows, then
 * a last line "= STATUS TEXT". */
struct client {
	struct control *control;
	int fd;
	uint64_t serial;
	bool asked, finished;
	struct event *readable, *writable;
	struct buffer in, out;
	struct channel *waiting; /* whose answer comes; rows need credit when out has drained */
	bool credit_due;
	uid_t uid;
	char *line;            /* the request */
	bool is_admin, recorded, awaits_maps;
	uint64_t question;     /* to maps: whose it is */
	char user[64], servers[2000]; /* of an operator; names with blanks */
	struct client *next;
};

struct control {
	struct process proc;
	int socket_fd;
	uid_t owner_uid;
	struct event *accept;
	struct channel **qmgrs; /* by server */
	bool stopped[SERVERS_MOST];
	struct client *clients;
	size_t clients_n;
	uint64_t serial;
	/* explain.c */
	struct channel *resolver, *maps, *sts;
	struct explanation *asking;    /* maps, one question after the other */
	struct explanation *policies;  /* the same of sts */
	struct own_addresses own;
	struct query *queries;
	uint64_t queries_serial;
	struct explanation *explained; /* answered, to be freed */
	struct explanation *named;     /* the client's names are known, it goes on */
	struct event *reap;
};

void client_open(struct control *c, int fd);
void client_close(struct client *cl);
void client_row(struct client *cl, struct span row);
void client_finish(struct client *cl, uint32_t status, struct span text);
struct client *client_find(struct control *c, uint64_t serial);
void client_channel_gone(struct control *c, const struct channel *ch);

void client_run(struct client *cl); /* it is known who asks */

/* operator.c */
bool operator_ask(struct client *cl); /* who it is; false: nobody can be asked, so it is nobody */
bool operator_answer(struct control *c, const struct msg_map_answer *got); /* false: it was no question of these */
void operator_ask_again(struct control *c); /* maps is another one, or the configuration */
bool operator_has(const struct client *cl, struct span server);
struct span operator_name(const struct client *cl);
void operator_record(struct client *cl, uint32_t status, struct span text);

/* explain.c */
void explain_run(struct client *cl, uint32_t server, struct span argument);
int explain_on_answer(struct channel *ch, struct message *m);
int explain_on_policy(struct channel *ch, struct message *m);
void explain_sts_gone(struct control *c);
void explain_resolver_gone(struct control *c);
int explain_on_map(struct channel *ch, struct message *m);
void explain_maps_gone(struct control *c);
void explain_end_all(struct control *c); /* the configuration that they are about goes */
void explain_reap(int fd, short what, void *context);

#endif
