#include "worker.h"

#include <stdlib.h>
#include <string.h>

typedef void handler(struct session *s, struct span args);

static const struct span no_detail = {"", 0};

static void take_helo(struct session *s, struct span name, bool esmtp)
{
	session_reset(s);
	free(s->helo);
	s->helo = span_dup(name);
	s->esmtp = esmtp;
	s->phase = PHASE_GREETED;
	if (session_params(s)->reverse_dns_lookup == 1)
		client_names_early(s);
}

static bool helo_name_is_valid(struct span name)
{
	return name.n > 0 && (name.at[0] == '[' ? literal_is_valid(name) : domain_is_valid(name, true));
}

/* The extensions, one row each: word, whether it is offered to this session. */
static bool always(const struct session *s)
{
	(void)s;
	return true;
}

static bool tls_is_offered(const struct session *s)
{
	return s->ssl == NULL && s->worker->servers[s->server].tls != NULL;
}

static bool has_tls(const struct session *s)
{
	return s->ssl != NULL;
}

static bool has_etrn(const struct session *s)
{
	const struct server *server = &s->worker->proc.config.servers[s->server];
	for (size_t i = 0; i < server->domains_n; i++)
		if (server->domains[i].p.type == DOMAIN_REMOTE && server->domains[i].p.etrn == 1)
			return true;
	return false;
}

static const struct { const char *word; bool (*offered)(const struct session *); } extensions[] = {
	{"PIPELINING", always},          /* RFC 2920 */
	{"8BITMIME", always},            /* RFC 6152 */
	{"ENHANCEDSTATUSCODES", always}, /* RFC 2034 */
	{"CHUNKING", always},            /* RFC 3030 */
	{"BINARYMIME", always},          /* RFC 3030 */
	{"DSN", always},                 /* RFC 3461 */
	{"SMTPUTF8", always},            /* RFC 6531 */
	{"XCLIENT ADDR NAME PORT PROTO HELO REVERSE_NAME DESTADDR DESTPORT", xclient_is_offered},
	{"REQUIRETLS", has_tls},         /* RFC 8689 */
	{"ETRN", has_etrn},              /* RFC 1985 */
	{"ATRN", turn_is_offered},       /* RFC 2645 */
	{"STARTTLS", tls_is_offered},    /* RFC 3207 */
};

static void cmd_EHLO(struct session *s, struct span args)
{
	const struct server_params *p = session_params(s);
	struct span name = span_word(&args, " \t");
	if (!helo_name_is_valid(name)) {
		session_reply(s, REPLY_HELO_NAME, no_detail);
		return;
	}
	take_helo(s, name, true);
	buffer_printf(&s->out, "250-%s\r\n", p->fqdn);
	for (size_t i = 0; i < COUNT_OF(extensions); i++)
		if (extensions[i].offered(s))
			buffer_printf(&s->out, "250-%s\r\n", extensions[i].word);
	auth_put_extension(s);                   /* RFC 4954 */
	if (p->out.recipient_limit != PARAM_UNLIMITED) /* RFC 9422 */
		buffer_printf(&s->out, "250-LIMITS RCPTMAX=%lld\r\n", (long long)p->out.recipient_limit);
	if (p->message_size_limit == PARAM_UNLIMITED)
		buffer_puts(&s->out, "250 SIZE 0\r\n"); /* RFC 1870 4 (2): no fixed limit */
	else
		buffer_printf(&s->out, "250 SIZE %lld\r\n", (long long)p->message_size_limit);
}

static void cmd_HELO(struct session *s, struct span args)
{
	struct span name = span_word(&args, " \t");
	if (!helo_name_is_valid(name)) {
		session_reply(s, REPLY_HELO_NAME, no_detail);
		return;
	}
	take_helo(s, name, false);
	session_reply(s, REPLY_HELO_OK, span_of(session_params(s)->fqdn));
}

static void cmd_STARTTLS(struct session *s, struct span args)
{
	(void)args;
	if (s->ssl != NULL) {
		session_reply(s, REPLY_SEQUENCE, no_detail);
		return;
	}
	if (s->worker->servers[s->server].tls == NULL) {
		session_reply(s, session_params(s)->tls == TLS_NONE ? REPLY_NOT_IMPLEMENTED : REPLY_TLS_UNAVAILABLE, no_detail);
		return;
	}
	session_reply(s, REPLY_STARTTLS_OK, no_detail);
	session_reset(s);
	if (session_write(s) && s->out.n == 0)
		session_start_tls(s);
	else
		s->dead = true;
}

static void cmd_AUTH(struct session *s, struct span args)
{
	auth_command(s, args);
}

static void cmd_MAIL(struct session *s, struct span args)
{
	enum reply r = auth_is_needed(s) ? REPLY_AUTH_NEEDED : mail_begin(s, args);
	if (r != REPLY_COUNT)
		session_reply(s, r, no_detail);
}

static void cmd_RCPT(struct session *s, struct span args)
{
	enum reply r = mail_recipient(s, args);
	if (r == REPLY_NO_RELAY)
		session_put(s, r, no_detail);
	else if (r != REPLY_COUNT)
		session_reply(s, r, no_detail);
}

static void cmd_DATA(struct session *s, struct span args)
{
	(void)args;
	if (s->t->mail.body == BODY_BINARYMIME) { /* RFC 3030 3 */
		session_reply(s, REPLY_BDAT_BINARY, no_detail);
		return;
	}
	data_begin(s);
}

static void cmd_BDAT(struct session *s, struct span args)
{
	chunk_begin(s, args, true);
}

static void cmd_RSET(struct session *s, struct span args)
{
	(void)args;
	session_reset(s);
	session_reply(s, REPLY_OK, no_detail);
}

static void cmd_VRFY(struct session *s, struct span args)
{
	session_reply(s, args.n == 0 ? REPLY_SYNTAX : REPLY_VRFY, no_detail);
}

static void cmd_EXPN(struct session *s, struct span args)
{
	(void)args;
	session_reply(s, REPLY_NOT_IMPLEMENTED, no_detail);
}

/* Whether mail is held for the node: a domain, or @ and a domain with all below it. */
static bool is_held(const struct session *s, struct span node)
{
	const struct server *server = &s->worker->proc.config.servers[s->server];
	const struct domain *d = route_node_section(server, node);
	return d != NULL && d->p.type == DOMAIN_REMOTE && d->p.etrn == 1;
}

/* RFC 1985 5 */
static void cmd_ETRN(struct session *s, struct span args)
{
	struct worker_server *ws = &s->worker->servers[s->server];
	struct span node = span_word(&args, " \t"), domain = node.n > 0 && node.at[0] == '@' ? (struct span){node.at + 1, node.n - 1} : node;
	enum reply r = REPLY_ETRN_OK;
	if (args.n > 0 || !domain_is_valid(domain, false))
		r = REPLY_SYNTAX;
	else if (!client_list_has(&ws->etrn_clients, (const struct sockaddr *)&s->client) || !is_held(s, node))
		r = REPLY_ETRN_NOT_ALLOWED;
	else if (ws->qmgr == NULL)
		r = REPLY_ETRN_UNABLE;
	else
		send_etrn(ws->qmgr, (struct msg_etrn){.node = node}, -1);
	if (r != REPLY_SYNTAX)
		LOG(&s->worker->proc.log, etrn, NO_ID, F("client", span_of(s->address)), F("node", node), F("reply", span_of(reply_row(r)->text)));
	session_put(s, r, r == REPLY_SYNTAX ? no_detail : node);
}

static void cmd_ATRN(struct session *s, struct span args)
{
	turn_command(s, args);
}

static void cmd_HELP(struct session *s, struct span args)
{
	(void)args;
	session_reply(s, REPLY_HELP, no_detail);
}

static void cmd_NOOP(struct session *s, struct span args)
{
	(void)args;
	session_reply(s, REPLY_OK, no_detail);
}

static void cmd_QUIT(struct session *s, struct span args)
{
	(void)args;
	session_reply(s, REPLY_BYE, no_detail);
	s->quit = true;
}

static void cmd_XCLIENT(struct session *s, struct span args)
{
	xclient_command(s, args);
}

static handler *const handlers[] = {
#define COMMAND(verb, phases, flags, source) [CMD_##verb] = cmd_##verb,
#include "smtp/commands.def"
};

/* Is anything behind this line that the client sent without waiting? */
static bool input_waits(const struct session *s, struct span line)
{
	return line.at >= s->in.at && line.at + line.n + 2 < s->in.at + s->in.n;
}

static enum reply why_out_of_place(const struct session *s, enum command c)
{
	if (c == CMD_DATA && s->phase == PHASE_CHUNKS)
		return REPLY_DATA_IN_CHUNKS;
	if ((c == CMD_DATA || c == CMD_BDAT) && s->phase == PHASE_MAIL)
		return REPLY_NO_RECIPIENTS;
	return REPLY_SEQUENCE;
}

void command_run(struct session *s, struct span line)
{
	struct span args;
	enum command c = command_parse(line, &args);
	if (c == CMD_COUNT) {
		session_reply(s, REPLY_UNKNOWN, no_detail);
		return;
	}
	const struct command_row *row = command_row(c);
	if ((row->flags & CMD_CLEAR) == 0 && s->ssl == NULL && (s->submission || session_params(s)->tls == TLS_REQUIRE)) {
		session_reply(s, REPLY_TLS_NEEDED, no_detail);
		return;
	}
	s->junk = (row->flags & CMD_JUNK) != 0 ? s->junk + 1 : 0;
	if ((row->phases & (unsigned)s->phase) == 0) {
		enum reply why = why_out_of_place(s, c);
		if ((row->flags & CMD_SWALLOW) != 0)
			chunk_begin(s, args, false);
		else
			session_reply(s, why, no_detail);
		return;
	}
	if ((row->flags & CMD_NOARG) != 0 && args.n > 0)
		session_reply(s, REPLY_NO_ARGUMENT, no_detail);
	else if ((row->flags & CMD_ALONE) != 0 && input_waits(s, line))
		session_reply(s, REPLY_NOT_ALONE, no_detail);
	else
		handlers[c](s, args);
}
