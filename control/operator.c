/* Who asks, and the record of what was done. */
#include "control.h"

#include <stdio.h>
#include <string.h>

static bool has_operators(const struct config *c)
{
	bool any = false;
	for (size_t i = 0; i < c->servers_n; i++)
		any = any || c->servers[i].p.operators[0] != '\0';
	return any;
}

bool operator_ask(struct client *cl)
{
	struct control *c = cl->control;
	char uid[32];
	if (!has_operators(&c->proc.config))
		return false;
	(void)snprintf(uid, sizeof uid, "%u", (unsigned)cl->uid);
	cl->question = ++c->queries_serial;
	cl->awaits_maps = true;
	if (c->maps == NULL) /* a reload replaces it: the next one is asked */
		return true;
	send_map_query(c->maps, (struct msg_map_query){.serial = cl->question, .question = ASK_OPERATOR, .address = span_of(uid)}, -1);
	return true;
}

bool operator_answer(struct control *c, const struct msg_map_answer *got)
{
	for (struct client *cl = c->clients; cl != NULL; cl = cl->next) {
		if (!cl->awaits_maps || cl->question != got->serial)
			continue;
		struct span rest = got->value, name = span_word(&rest, " ");
		cl->awaits_maps = false;
		rest = span_trim(rest);
		if (name.n < sizeof cl->user && rest.n < sizeof cl->servers) {
			(void)snprintf(cl->user, sizeof cl->user, "%.*s", SPAN_ARG(name));
			(void)snprintf(cl->servers, sizeof cl->servers, "%.*s", SPAN_ARG(rest));
		}
		client_run(cl);
		return true;
	}
	return false;
}

void operator_ask_again(struct control *c)
{
	struct client *next;
	for (struct client *cl = c->clients; cl != NULL; cl = next) {
		next = cl->next;
		if (!cl->awaits_maps)
			continue;
		cl->awaits_maps = false;
		if (!operator_ask(cl))
			client_run(cl);
	}
}

bool operator_has(const struct client *cl, struct span server)
{
	struct span rest = span_of(cl->servers);
	for (struct span name; (name = span_word(&rest, " ")).n > 0;)
		if (name.n == server.n && memcmp(name.at, server.at, name.n) == 0)
			return true;
	return false;
}

struct span operator_name(const struct client *cl)
{
	return span_of(cl->user[0] != '\0' ? cl->user : cl->uid == 0 ? "root" : cl->is_admin ? "mail owner" : "?");
}

void operator_record(struct client *cl, uint32_t status, struct span text)
{
	struct span line = span_of(cl->line), act = span_word(&line, " "), server = span_word(&line, " "), argument = span_trim(line);
	struct buffer what;
	cl->recorded = false;
	buffer_init(&what, 32 * 1024);
	bool edit = span_is(act, "edit");
	if (edit)
		server = span_word(&argument, " ");
	buffer_put_span(&what, edit && status == 0 ? text : argument);
	if (status != 0 && text.n > 0) {
		buffer_puts(&what, ": ");
		buffer_put_span(&what, text);
	}
	if (cl->control->proc.control != NULL)
		send_record(cl->control->proc.control, (struct msg_record){.uid = cl->uid, .status = status, .user = operator_name(cl), .act = act, .server = server, .what = buffer_span(&what)}, -1);
	buffer_free(&what);
}
