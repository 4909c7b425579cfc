#include "route/explain.h"

#include <string.h>

static const char *const rule_names[] = {
#define ROUTE(name, ...) #name,
#include "route/routes.def"
};
static const char *const relay_names[] = {
#define RELAY(name, ...) #name,
#include "route/relays.def"
};

static void put_text_line(struct explain *e, const char *label, struct span text)
{
	buffer_printf(e->out, "  %-11s", label);
	buffer_put_escaped(e->out, text, 1000);
	buffer_putc(e->out, '\n');
}

static void put_json(struct explain *e, const char *name, struct span text)
{
	buffer_printf(e->out, ",\"%s\":", name);
	buffer_put_json(e->out, text);
}

/* One fact, in the form that was asked for. */
static void put(struct explain *e, const char *label, const char *name, struct span text)
{
	if (e->json)
		put_json(e, name, text);
	else
		put_text_line(e, label, text);
}

static void put_rule(void *context, enum route_reason rule, bool fits)
{
	struct explain *e = context;
	if (e->json)
		buffer_printf(e->out, "%s{\"rule\":\"%s\",\"fits\":%s}", rule == 0 ? "" : ",", rule_names[rule], fits ? "true" : "false");
	else
		buffer_printf(e->out, "    %-4s%-17s%s\n", fits ? "yes" : "no", rule_names[rule], route_reason_text(rule));
}

static bool has_names(const char *clients)
{
	struct client_list list = {0};
	struct span bad;
	bool has = client_list_parse(span_of(clients), &list, &bad) == 0 && list.names_n > 0;
	client_list_free(&list);
	return has;
}

bool explain_needs_names(const struct explain *e)
{
	return e->client != NULL && (has_names(e->server->p.access_exceptions) || has_names(e->server->p.relay_exceptions));
}

static void put_names(struct explain *e)
{
	struct buffer text;
	if (e->names == NULL)
		return;
	buffer_init(&text, 2000);
	for (size_t i = 0; i < e->names->names_n; i++)
		buffer_printf(&text, "%s%s", i == 0 ? "" : ", ", e->names->names[i]);
	if (e->names->names_n == 0)
		buffer_puts(&text, e->names->state == REVERSE_FAILED || e->names->uncertain ? "cannot be looked up now"
			: e->names->state == REVERSE_NONE ? "none" : "none that leads back to the address");
	put(e, "its names", "client_names", buffer_span(&text));
	buffer_free(&text);
}

static void put_access(struct explain *e)
{
	struct client_list list = {0};
	struct span bad;
	bool allow = e->server->p.access == 0;
	if (e->client == NULL || client_list_parse(span_of(e->server->p.access_exceptions), &list, &bad) != 0)
		return;
	enum listed listed = reverse_listed(&list, e->client, e->names);
	const char *text = "may connect";
	if (listed == LISTED_UNKNOWN || listed == LISTED_NEEDS_NAMES)
		text = "421 4.7.1: its name decides, and cannot be looked up now";
	else if ((listed == LISTED_YES) == allow)
		text = "refused with 554 5.7.1";
	put(e, "access", "access", span_of(text));
	client_list_free(&list);
}

static void put_relay(struct explain *e)
{
	static const char *const answers[] = {[RELAY_REFUSED] = "refused with 550 5.7.1", [RELAY_TAKEN] = "taken",
		[RELAY_NEEDS_NAMES] = "450 4.7.1 while the client's name cannot be looked up", [RELAY_UNKNOWN] = "450 4.7.1 while the client's name cannot be looked up"};
	struct client_list list = {0};
	struct relay_client client = {.address = e->client, .names = e->names};
	struct span bad;
	struct buffer text;
	enum relay_reason why;
	if (e->from.n == 0 && e->client == NULL)
		return;
	if (client_list_parse(span_of(e->server->p.relay_exceptions), &list, &bad) != 0)
		return;
	buffer_init(&text, 2000);
	if (e->client == NULL) {
		buffer_puts(&text, "taken: handed in on this machine");
	} else {
		enum relay_answer answer = relay_decide(e->server, &list, &client, &e->route, &why);
		buffer_printf(&text, "%s: %s (%s)", answers[answer], relay_reason_text(why), relay_names[why]);
	}
	put(e, "client", "client", e->client == NULL ? SPAN_LIT("this machine") : e->client_text);
	put_names(e);
	put_access(e);
	if (e->from.n > 0)
		put(e, "from", "from", e->from);
	put(e, "relay", "relay", buffer_span(&text));
	buffer_free(&text);
	client_list_free(&list);
}

static struct span word_of(const char *parameter, int64_t value)
{
	const struct param_row *row = param_find(span_of(parameter), SCOPE_SERVER);
	struct span rest = span_of(row->words), word = {"", 0};
	for (int64_t i = 0; i <= value; i++)
		word = span_word(&rest, " ");
	return word;
}

static void put_local(struct explain *e)
{
	struct buffer text;
	bool own = e->route.domain != NULL && e->route.domain->p.type == DOMAIN_LOCAL;
	const struct local_params *p = local_of(e->server, e->route.domain);
	buffer_init(&text, 2000);
	buffer_printf(&text, "%.*s", SPAN_ARG(e->parsed.local));
	buffer_printf(&text, "@%.*s", SPAN_ARG(own ? e->parsed.domain : span_of(e->server->p.default_domain)));
	put(e, "recipient", "recipient", buffer_span(&text));
	put(e, "delivery", "delivery", span_of(p->local_delivery));
	buffer_free(&text);
}

void explain_aliases(struct explain *e, struct span rule, struct span to)
{
	put(e, "alias", "alias", rule.n > 0 ? rule : SPAN_LIT("none: it goes no further"));
	if (to.n > 0)
		put(e, "leads to", "leads_to", to);
}

void explain_exists(struct explain *e, const char *answer, struct span rule)
{
	struct buffer text;
	buffer_init(&text, 2000);
	buffer_puts(&text, answer);
	if (rule.n > 0)
		buffer_printf(&text, " (%.*s)", SPAN_ARG(rule));
	put(e, "exists", "exists", buffer_span(&text));
	buffer_free(&text);
}

static void put_remote(struct explain *e)
{
	put(e, "next hop", "nexthop", e->route.nexthop);
	if (e->route.fallback.n > 0)
		put(e, "then", "fallback", e->route.fallback);
	enum credentials login = route_credentials(e->server, e->route.domain, e->route.nexthop, false);
	if (login != CREDENTIALS_NONE)
		put(e, "login", "login", span_of(login == CREDENTIALS_OF_SERVER ? e->server->p.out.outbound_user : e->route.domain->p.out.outbound_user));
	put(e, "TLS", "tls", word_of("outbound_tls", outbound_of(e->server, e->route.domain)->outbound_tls));
}

static void put_brace(struct explain *e, bool opens)
{
	buffer_putc(e->out, opens ? '{' : '}');
}

static void put_bracket(struct explain *e, const char *before, bool opens)
{
	buffer_printf(e->out, "%s%c", before, opens ? '[' : ']');
}

static void put_rules(struct explain *e)
{
	if (e->json) {
		put_brace(e, true);
		buffer_puts(e->out, "\"address\":");
		buffer_put_json(e->out, e->address);
		put_json(e, "server", span_of(e->server->name));
		put_bracket(e, ",\"rules\":", true);
	} else {
		buffer_put_escaped(e->out, e->address, 1000);
		buffer_printf(e->out, ": server %s\n  rules\n", e->server->name);
	}
	route_trace(e->server, &e->parsed, &e->route, put_rule, e);
	if (e->json)
		put_bracket(e, "", false);
}

int explain_begin(struct explain *e)
{
	buffer_init(&e->notes, 64 * 1024);
	if (address_parse(e->address, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &e->parsed) != 0) {
		buffer_put_escaped(e->out, e->address, 300);
		buffer_puts(e->out, ": not a mail address");
		return EINVAL;
	}
	put_rules(e);
	if (e->route.domain != NULL)
		put(e, "section", "section", span_of(e->route.domain->name));
	put(e, "decided by", "decided_by", span_of(e->json ? rule_names[e->route.reason] : route_reason_text(e->route.reason)));
	put_relay(e);
	(e->route.kind == ROUTE_LOCAL ? put_local : put_remote)(e);
	return 0;
}

static void put_targets(struct explain *e, const struct lookup *l)
{
	char text[400];
	for (size_t i = 0; i < l->targets_n; i++) {
		lookup_format_target(&l->targets[i], text);
		enum tls_level level = policy_level(outbound_of(e->server, e->route.domain), DEMAND_NONE, &l->targets[i]);
		bool said = l->targets[i].tlsa != NULL || level == LEVEL_REFUSED || level == LEVEL_STS;
		if (e->json) {
			buffer_puts(e->out, i == 0 ? "" : ",");
			buffer_put_json(e->out, span_of(text));
		} else {
			buffer_printf(e->out, "    %zu. %s%s%s%s\n", i + 1, text, said ? ", TLS " : "",
				said ? policy_text(level) : "", l->targets[i].fallback ? " (only when none before it answers)" : "");
		}
	}
}

/* Of the targets, in their order. */
static void put_levels(struct explain *e, const struct lookup *l)
{
	buffer_puts(e->out, e->json ? ",\"targets_tls\":[" : "");
	for (size_t i = 0; i < l->targets_n && e->json; i++) {
		buffer_puts(e->out, i == 0 ? "" : ",");
		buffer_put_json(e->out, span_of(policy_text(policy_level(outbound_of(e->server, e->route.domain), DEMAND_NONE, &l->targets[i]))));
	}
	buffer_puts(e->out, e->json ? "]" : "");
}

static void put_notes(struct explain *e)
{
	struct span rest = buffer_span(&e->notes);
	bool first = true;
	if (e->json)
		buffer_puts(e->out, ",\"dns\":[");
	while (rest.n > 0) {
		struct span line = span_until(&rest, '\n');
		if (e->json) {
			buffer_puts(e->out, first ? "" : ",");
			buffer_put_json(e->out, line);
		} else {
			put_text_line(e, first ? "DNS" : "", line);
		}
		first = false;
	}
	if (e->json)
		buffer_putc(e->out, ']');
}

void explain_end(struct explain *e, const struct lookup *l, const char *why)
{
	if (l != NULL)
		put_notes(e);
	if (l != NULL && l->state == LOOKUP_READY) {
		buffer_puts(e->out, e->json ? ",\"targets\":[" : "  tried in this order\n");
		put_targets(e, l);
		buffer_puts(e->out, e->json ? "]" : "");
		put_levels(e, l);
	} else if (l != NULL) {
		put(e, "outcome", "outcome", l->state == LOOKUP_FAILED ? SPAN_LIT("returned to the sender") : SPAN_LIT("deferred"));
		put(e, "status", "status", span_of(l->enhanced));
		put(e, "reason", "reason", span_of(l->reason));
	} else if (why != NULL) {
		put(e, "DNS", "dns", span_of(why));
	}
	if (e->json)
		put_brace(e, false);
	buffer_free(&e->notes);
}
