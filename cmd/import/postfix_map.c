/* From Postfix's parameters to Posthorn's: those that stand each for itself. */
#include "cmd/import/postfix.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum how { COUNT, COUNT_ALWAYS, UNLIMITED, SECONDS, DAYS_ALWAYS, MAPS, TEXT, DIFFERS, NONE, QUIET };

static const struct rule { const char *name; enum how how; const char *ours, *note; } rules[] = {
#define POSTFIX(name, how, ours, note) {name, how, ours, note},
#include "cmd/import/postfix_params.def"
#undef POSTFIX
};

/* "5d", "300", "2w" as Posthorn writes a time; unit: where none is written. */
static const char *time_of(struct postfix *pf, const char *text, char unit)
{
	size_t n = strlen(text);
	char last = '\0';
	uint64_t v = 0;
	if (n > 0)
		last = text[n - 1];
	struct span digits = {text, isdigit((unsigned char)last) ? n : n - (n > 0)};
	if (parse_u64(digits, UINT32_MAX, &v) != 0)
		return text;
	unit = isdigit((unsigned char)last) ? unit : last;
	const char *made = unit == 'w' ? arena_printf(&pf->arena, "%llud", (unsigned long long)v * 7) : arena_printf(&pf->arena, "%llu%c", (unsigned long long)v, unit);
	return made == NULL ? text : made;
}

static void take_each(struct postfix *pf, const struct rule *r, const char *value)
{
	struct span names = span_of(r->ours);
	const char *what = pf_what(pf, r->name);
	for (struct span name; (name = span_word(&names, " ")).n > 0;) {
		const char *ours = arena_dup(&pf->arena, name);
		if (ours != NULL)
			import_take(&pf->im, what, "default", ours, value);
	}
}

static void apply(struct postfix *pf, const struct rule *r)
{
	bool always = r->how == COUNT_ALWAYS || r->how == DAYS_ALWAYS;
	if (!always && !pf_is_set(pf, r->name))
		return;
	const char *value = pf_get(pf, r->name);
	const char *what = pf_what(pf, r->name);
	if (r->how == QUIET)
		import_say(&pf->im, IMPORT_TAKEN, what, "nothing is needed");
	else if (r->how == DIFFERS || r->how == NONE)
		import_say(&pf->im, r->how == DIFFERS ? IMPORT_DIFFERS : IMPORT_NONE, what, "%s", r->note[0] == '\0' ? "no such thing" : r->note);
	else if (value[0] == '\0')
		import_say(&pf->im, IMPORT_TAKEN, what, "empty: %s is not set", r->ours);
	else if (r->how == MAPS && pf_maps(pf, r->name)[0] != '\0')
		take_each(pf, r, pf_maps(pf, r->name));
	else if (r->how == UNLIMITED)
		take_each(pf, r, strcmp(value, "0") == 0 ? "unlimited" : value);
	else if (r->how == SECONDS || r->how == DAYS_ALWAYS)
		take_each(pf, r, time_of(pf, value, r->how == SECONDS ? 's' : 'd'));
	else if (r->how != MAPS)
		take_each(pf, r, value);
}

/* Postfix doubles the wait from the least to the most. */
static void translate_schedule(struct postfix *pf)
{
	static const char *const names[] = {"retry_first", "retry_second", "retry_third"};
	int64_t least, most;
	char value[40];
	if (parse_duration(span_of(time_of(pf, pf_get(pf, "minimal_backoff_time"), 's')), &least) != 0 ||
		parse_duration(span_of(time_of(pf, pf_get(pf, "maximal_backoff_time"), 's')), &most) != 0) {
		import_say(&pf->im, IMPORT_DIFFERS, pf_what(pf, "minimal_backoff_time"), "no time that is understood: retry_first and the others stay as they are");
		return;
	}
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		int64_t seconds = least << i;
		(void)snprintf(value, sizeof value, "%llds", (long long)(seconds > most ? most : seconds));
		import_take(&pf->im, pf_what(pf, "minimal_backoff_time"), "default", names[i], value);
	}
	(void)snprintf(value, sizeof value, "%llds", (long long)most);
	import_take(&pf->im, pf_what(pf, "maximal_backoff_time"), "default", "retry_subsequent", value);
}

static void translate_warning(struct postfix *pf)
{
	const char *value = time_of(pf, pf_get(pf, "delay_warning_time"), 'h');
	int64_t seconds = 0;
	if (parse_duration(span_of(value), &seconds) == 0 && seconds == 0)
		value = "9998d"; /* nobody is told: longer than any message waits */
	import_take(&pf->im, pf_what(pf, "delay_warning_time"), "default", "delay_notification", value);
	import_take(&pf->im, pf_what(pf, "delay_warning_time"), "default", "local_delay_notification", value);
}

static void translate_sizes(struct postfix *pf)
{
	const char *what = pf_what(pf, "message_size_limit");
	uint64_t size = 0;
	char value[40];
	if (parse_u64(span_of(pf_get(pf, "message_size_limit")), INT64_MAX / 8, &size) != 0)
		return;
	if (size == 0) {
		import_take(&pf->im, what, "default", "message_size_limit", "unlimited");
		import_take(&pf->im, what, "default", "session_size_limit", "unlimited");
		return;
	}
	(void)snprintf(value, sizeof value, "%lluB", (unsigned long long)size);
	import_take(&pf->im, what, "default", "message_size_limit", value);
	import_take(&pf->im, what, "default", "session_size_limit", "unlimited");
}

static void translate_rates(struct postfix *pf)
{
	static const struct { const char *theirs, *ours; } rates[] = {{"smtpd_client_connection_rate_limit", "client_connection_rate"},
		{"smtpd_client_message_rate_limit", "client_message_rate"}, {"smtpd_client_recipient_rate_limit", "client_recipient_rate"}};
	char value[100];
	for (size_t i = 0; i < COUNT_OF(rates); i++) {
		if (!pf_is_set(pf, rates[i].theirs))
			continue;
		const char *n = pf_get(pf, rates[i].theirs);
		(void)snprintf(value, sizeof value, "%s/%s", n, time_of(pf, pf_get(pf, "anvil_rate_time_unit"), 's'));
		import_take(&pf->im, pf_what(pf, rates[i].theirs), "default", rates[i].ours, strcmp(n, "0") == 0 ? "unlimited" : value);
	}
}

/* Each parameter that is set is told, whatever becomes of it. */
static void tell_the_rest(struct postfix *pf)
{
	size_t told = pf->im.rows_n;
	for (size_t i = 0; i < pf->settings_n; i++) {
		const char *name = pf->settings[i].name;
		size_t n = strlen(name), k = 0;
		while (k < told && (strncmp(pf->im.rows[k].what, name, n) != 0 || strncmp(pf->im.rows[k].what + n, " = ", 3) != 0))
			k++;
		if (k == told && pf->settings[i].used)
			import_say(&pf->im, IMPORT_TAKEN, pf_what(pf, name), "in what is said of others");
		else if (k == told)
			import_say(&pf->im, IMPORT_NONE, pf_what(pf, name), "no such thing, or it is a name of your own");
	}
}

void pf_translate(struct postfix *pf)
{
	pf_translate_network(pf);
	pf_translate_domains(pf);
	pf_translate_rules(pf);
	pf_translate_tls(pf);
	translate_schedule(pf);
	translate_warning(pf);
	translate_sizes(pf);
	translate_rates(pf);
	for (size_t i = 0; i < COUNT_OF(rules); i++)
		apply(pf, &rules[i]);
	tell_the_rest(pf);
}
