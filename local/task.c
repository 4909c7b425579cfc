/* What the child that becomes the recipient is told of the message: "name=value" lines in a sealed file.  How it is
 * delivered deliver knows from its own configuration. */
#include "local.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { USER_MOST = 32 };

/* A name that is safe as a user's: what else a local part holds can be no user of this machine. */
static char *user_name(struct span s)
{
	char *name = s.n == 0 || s.n > USER_MOST ? NULL : span_dup(s);
	for (size_t i = 0; name != NULL && name[i] != '\0'; i++) {
		name[i] = (char)tolower((unsigned char)name[i]);
		if (!isalnum((unsigned char)name[i]) && (strchr("._-+", name[i]) == NULL || i == 0)) {
			free(name);
			return NULL;
		}
	}
	return name;
}

/* Where in s the extension's delimiter stands; s.n: nowhere. */
static size_t extension_at(struct span s, const char *delimiter)
{
	size_t i = 1;
	while (i < s.n && (delimiter[0] == '\0' || s.at[i] != delimiter[0]))
		i++;
	return i < s.n ? i : s.n;
}

static void put(struct buffer *b, const char *name, struct span value)
{
	buffer_printf(b, "%s=", name);
	for (size_t i = 0; i < value.n; i++) /* no value ends its line */
		buffer_putc(b, (char)(value.at[i] == '\n' || value.at[i] == '\r' || value.at[i] == '\0' ? ' ' : value.at[i]));
	buffer_putc(b, '\n');
}

static void put_original(struct buffer *b, const struct envelope_rcpt *r)
{
	struct buffer text;
	struct span rest = r->orcpt;
	(void)span_until(&rest, ';');
	buffer_init(&text, 2000);
	xtext_put_decoded(&text, rest);
	put(b, "original", text.n > 0 ? buffer_span(&text) : r->address);
	buffer_free(&text);
}

int task_compose(struct local *l, struct local_job *j, const struct envelope *e, struct span nexthop)
{
	const struct domain *section = j->domain[0] == '\0' ? NULL : server_domain(l->server, span_of(j->domain));
	const struct local_params *p = local_of(l->server, section);
	struct delivery how;
	struct address a;
	char number[32];
	bool others = delivery_parse(nexthop, &how) == 0 && (how.kind == DELIVERY_DROP || how.kind == DELIVERY_LMTP);
	if (delivery_parse(nexthop, &how) != 0 || (others && !local_is_expanded(p)) || address_parse(e->rcpts[0].address, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0)
		return EINVAL;
	size_t cut = extension_at(a.local, p->recipient_delimiter);
	j->user = user_name(a.local);
	j->base = cut < a.local.n ? user_name((struct span){a.local.at, cut}) : NULL;
	buffer_init(&j->task, 256 * 1024);
	put(&j->task, "id", qid_span(&j->id));
	put(&j->task, "sender", e->sender);
	put(&j->task, "recipient", e->rcpts[0].address);
	put(&j->task, "local", a.local);
	j->own_domain = span_dup(a.domain.n > 0 ? a.domain : span_of(l->server->p.default_domain));
	if (j->own_domain == NULL)
		return ENOMEM;
	put(&j->task, "domain", span_of(j->own_domain));
	put(&j->task, "extension", cut < a.local.n ? (struct span){a.local.at + cut + 1, a.local.n - cut - 1} : (struct span){"", 0});
	put_original(&j->task, &e->rcpts[0]);
	(void)snprintf(number, sizeof number, "%lld", (long long)(e->arrived_us / 1000000));
	put(&j->task, "arrived", span_of(number));
	return buffer_ok(&j->task) ? 0 : ENOMEM;
}

static void set(struct local_job *j, uint32_t outcome, uint32_t code, const char *enhanced, const char *text)
{
	j->outcome = outcome;
	j->code = code;
	(void)snprintf(j->enhanced, sizeof j->enhanced, "%s", enhanced);
	(void)snprintf(j->text, sizeof j->text, "%s", text);
}

/* "CODE X.Y.Z TEXT" as the child said it; it ran as a user, so each part is looked at. */
static bool take_words(struct local_job *j, struct span words)
{
	struct span line = span_until(&words, '\n'), rest = line;
	struct span code = span_word(&rest, " "), enhanced = span_word(&rest, " ");
	char text[400];
	uint64_t n;
	size_t k = 0;
	rest = span_trim(rest);
	if (parse_u64(code, 599, &n) != 0 || n < 200 || enhanced.n < 5 || enhanced.n > 11 || enhanced.at[0] != code.at[0] || (n >= 300 && n < 400))
		return false;
	for (size_t i = 0; i < enhanced.n; i++)
		if (enhanced.at[i] != '.' && !isdigit((unsigned char)enhanced.at[i]))
			return false;
	for (; k < rest.n && k < sizeof text - 1; k++)
		text[k] = (char)((unsigned char)rest.at[k] < 0x20 || rest.at[k] == 0x7f ? '?' : rest.at[k]);
	text[k] = '\0';
	char status[12];
	(void)snprintf(status, sizeof status, "%.*s", SPAN_ARG(enhanced));
	set(j, n < 300 ? OUTCOME_SENT : n < 500 ? OUTCOME_DEFERRED : OUTCOME_FAILED, (uint32_t)n, status, text);
	return true;
}

void task_ended(struct local_job *j, const struct msg_ran *ran)
{
	char text[100];
	if (ran->how == RUN_LATE) {
		set(j, OUTCOME_DEFERRED, 451, "4.4.1", "the delivery took longer than local_time_limit");
	} else if (ran->how == RUN_NOT) {
		set(j, OUTCOME_DEFERRED, 451, "4.3.0", "a process for the delivery could not be made");
	} else if (!take_words(j, ran->words)) {
		(void)snprintf(text, sizeof text, "the delivery ended without a word (%s %u)", ran->how == RUN_SIGNAL ? "signal" : "status", ran->status);
		set(j, OUTCOME_DEFERRED, 451, "4.3.0", text);
	}
}
