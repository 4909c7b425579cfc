#include "params/params.h"
#include "smtp/smtp.h"

#include <stdlib.h>
#include <string.h>

const struct param_row param_rows[] = {
#define SERVICE(kind, name) SCOPE_SERVICE, INHERITS_NOT, KIND_##kind, offsetof(struct service_params, name)
#define SERVER(kind, name) SCOPE_SERVER, INHERITS_NOT, KIND_##kind, offsetof(struct server_params, name)
#define OUTBOUND(kind, name) SCOPE_SERVER, INHERITS_NOT, KIND_##kind, offsetof(struct server_params, out.name)
#define LOCAL(kind, name) SCOPE_SERVER, INHERITS_NOT, KIND_##kind, offsetof(struct server_params, local.name)
#define DOMAIN(kind, name) SCOPE_DOMAIN, INHERITS_NOT, KIND_##kind, offsetof(struct domain_params, name)
#define PARAM(scope, kind, name, who, ...) {#name, scope(kind, name), SET_BY_##who, __VA_ARGS__},
#include "params/params.def"
/* and once more what a domain may have of its own */
#undef SERVICE
#undef SERVER
#undef OUTBOUND
#undef LOCAL
#undef DOMAIN
#define SERVICE(...)
#define SERVER(...)
#define DOMAIN(...)
#define OUTBOUND(kind, name, who, ...) {#name, SCOPE_DOMAIN, INHERITS_OUTBOUND, KIND_##kind, offsetof(struct domain_params, out.name), SET_BY_##who, __VA_ARGS__},
#define LOCAL(kind, name, who, ...) {#name, SCOPE_DOMAIN, INHERITS_LOCAL, KIND_##kind, offsetof(struct domain_params, local.name), SET_BY_##who, __VA_ARGS__},
#define PARAM(scope, ...) scope(__VA_ARGS__)
#include "params/params.def"
#undef SERVICE
#undef SERVER
#undef OUTBOUND
#undef LOCAL
#undef DOMAIN
};
const size_t param_rows_n = COUNT_OF(param_rows);

const struct param_row *param_find(struct span name, enum param_scope scope)
{
	for (size_t i = 0; i < param_rows_n; i++)
		if (param_rows[i].scope == scope && span_is(name, param_rows[i].name))
			return &param_rows[i];
	return NULL;
}

const char *param_nearest(struct span name, enum param_scope scope)
{
	const char *names[COUNT_OF(param_rows)];
	size_t n = 0;
	for (size_t i = 0; i < param_rows_n; i++)
		if (param_rows[i].scope == scope)
			names[n++] = param_rows[i].name;
	return nearest_word(name, names, n);
}

const char *setting_text(const struct setting *list, const struct param_row *row)
{
	for (const struct setting *s = list; s != NULL; s = s->next)
		if (s->row == row)
			return s->text;
	return row->standard;
}

static int check_number(const struct param_row *row, struct span text, bool test_mode, int64_t *out, struct complaint *why)
{
	int64_t v = 0, min = row->min;
	uint64_t u;
	int error;
	bool is_time = row->kind == KIND_TIME || row->kind == KIND_TIME_LIMIT, takes_unlimited = row->max == INT64_MAX || row->kind == KIND_TIME_LIMIT;
	if (takes_unlimited && span_is(text, "unlimited")) {
		*out = PARAM_UNLIMITED;
		return 0;
	}
	if (is_time) {
		error = parse_duration(text, &v);
		if (test_mode && min > 1)
			min = 1;
	} else if (row->kind == KIND_BYTES) {
		error = parse_bytes(text, &v);
	} else {
		error = parse_u64(text, INT64_MAX, &u);
		v = error == 0 ? (int64_t)u : 0;
	}
	if (error == EINVAL && parse_u64(text, UINT64_MAX, &u) == 0)
		complain(why, why->file, why->line, "%s: %.*s has no unit: write %.*s%s", row->name, SPAN_ARG(text), SPAN_ARG(text),
			is_time ? "m or s (units: s m h d w)" : "K or B (units: B K M G)");
	else if (error == EINVAL)
		complain(why, why->file, why->line, "%s: '%.*s' is no %s%s", row->name, SPAN_ARG(text),
			is_time ? "time such as 1h30m" : row->kind == KIND_BYTES ? "size such as 10M" : "number",
			takes_unlimited ? " and not 'unlimited'" : "");
	if (error == 0 && (v < min || v > row->max)) {
		error = ERANGE;
		struct buffer b;
		buffer_init(&b, 200);
		if (is_time) {
			format_duration(&b, min);
			buffer_puts(&b, " to ");
			format_duration(&b, row->max);
		} else if (row->max == INT64_MAX) {
			buffer_printf(&b, "%lld or more", (long long)min);
		} else {
			buffer_printf(&b, "%lld to %lld", (long long)min, (long long)row->max);
		}
		complain(why, why->file, why->line, "%s: %.*s is out of range: %s", row->name, SPAN_ARG(text), buffer_cstr(&b));
		buffer_free(&b);
	} else if (error == ERANGE) {
		complain(why, why->file, why->line, "%s: %.*s is too large", row->name, SPAN_ARG(text));
	}
	*out = v;
	return error;
}

static int check_word(const struct param_row *row, struct span text, int64_t *out, struct complaint *why)
{
	struct span rest = span_of(row->words);
	for (int64_t i = 0;; i++) {
		struct span word = span_word(&rest, " ");
		if (word.n == 0)
			break;
		if (span_eq(word, text)) {
			*out = i;
			return 0;
		}
	}
	complain(why, why->file, why->line, "%s: '%.*s' is not one of: %s", row->name, SPAN_ARG(text), row->words);
	return EINVAL;
}

static int check_words(const struct param_row *row, struct span text, int64_t *out, struct complaint *why)
{
	struct span word;
	int64_t set = 0, position;
	while ((word = span_word(&text, " ,\t")).n > 0) {
		int error = check_word(row, word, &position, why);
		if (error != 0)
			return error;
		set |= INT64_C(1) << position;
	}
	*out = set;
	return 0;
}

static bool text_is_printable(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.at[i] < 0x20 || s.at[i] == 0x7f)
			return false;
	return true;
}

static bool maps_are_valid(struct span text)
{
	struct span spec;
	bool bad = false;
	while (map_spec_next(&text, &spec, &bad))
		;
	return !bad;
}

static bool files_are_valid(struct span text)
{
	for (struct span word; (word = span_word(&text, " \t,")).n > 0;)
		if (!path_is_plain(word))
			return false;
	return true;
}

static bool pairs_are_valid(struct span text)
{
	struct pair_files f;
	bool bad;
	while (pairs_next(&text, &f, &bad))
		;
	return !bad;
}

static bool listen_is_valid(struct span text)
{
	struct endpoint e;
	bool bad = false, any = false;
	while (listen_next(&text, &e, &bad))
		any = true;
	return any && !bad;
}

static bool clients_are_valid(struct span text, bool names_too)
{
	struct client_list l = {0};
	struct span bad;
	if (client_list_parse(text, &l, &bad) != 0)
		return false;
	bool good = names_too || l.names_n == 0;
	client_list_free(&l);
	return good;
}

static bool nexthops_are_valid(struct span text)
{
	struct nexthop h;
	bool equal, bad = false;
	size_t n = 0;
	while (nexthop_next(&text, &h, &equal, &bad))
		n++;
	return !bad && n <= NEXTHOPS_MOST;
}

static bool address_is_valid(struct span text)
{
	struct address a;
	return address_parse(text, ADDRESS_UTF8, &a) == 0 && a.domain.n > 0;
}

static bool name_is_plain(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (strchr("abcdefghijklmnopqrstuvwxyz0123456789_-", s.at[i]) == NULL || s.at[i] == '\0')
			return false;
	return s.n > 0 && s.n <= 24;
}

/* What is wrong with a checked text, NULL: nothing. */
static const char *text_fault(enum param_kind kind, struct span text)
{
	switch (kind) {
	case KIND_PATH:
		return text.n > 0 && text.at[0] == '/' && text.n < 900 ? NULL : "an absolute path is needed";
	case KIND_HOSTNAME:
		return text.n == 0 || domain_is_valid(text, false) ? NULL : "a host name is needed";
	case KIND_LISTEN:
		return listen_is_valid(text) ? NULL : "write ADDR:PORT, [v6]:PORT or *:PORT";
	case KIND_CLIENTS:
		return clients_are_valid(text, true) ? NULL : "write addresses, ADDR/BITS, ADDR/MASK or domain names";
	case KIND_NETWORKS:
		return clients_are_valid(text, false) ? NULL : "write addresses, ADDR/BITS or ADDR/MASK";
	case KIND_RATE:
		return rate_parse(text, &(struct rate){0}) == 0 ? NULL : "write N/TIME, such as 100/1h, or unlimited";
	case KIND_NEXTHOPS:
		return nexthops_are_valid(text) ? NULL : "write [ADDR], [NAME] or NAME, each with :PORT if wanted, several (at most 20) with commas, | between equals";
	case KIND_DELIVERY:
		return delivery_parse(text, &(struct delivery){0}) == 0 ? NULL : "write drop, maildir, mbox, lmtp:[HOST]:PORT, lmtp:unix:/PATH or pipe:COMMAND";
	case KIND_MAPS:
		return maps_are_valid(text) ? NULL : "write TYPE:FILE with an absolute FILE, several with commas; types: hash btree cdb regexp pcre odbc ldap; or inline:{ key = value, ... }";
	case KIND_FILES:
		return files_are_valid(text) ? NULL : "write absolute paths, with blanks between several";
	case KIND_PAIRS:
		return pairs_are_valid(text) ? NULL : "write NAME=/CERTIFICATE:/KEY, with blanks between several";
	case KIND_RESOLVERS:
		return resolvers_are_valid(text) ? NULL : "write ADDR or ADDR@PORT, with blanks between several";
	case KIND_OPERATORS:
		return operators_are_valid(text) ? NULL : "write users and @groups, with blanks between several";
	case KIND_ADDRESS:
		return text.n == 0 || address_is_valid(text) ? NULL : "a mail address with its domain is needed";
	case KIND_NAMES:
		return name_is_plain(text) ? NULL : "a plain user or group name is needed";
	case KIND_TEXT:
	case KIND_COUNT:
	case KIND_TIME:
	case KIND_TIME_LIMIT:
	case KIND_BYTES:
	case KIND_WORDS:
	case KIND_WORD:
		break;
	}
	return NULL;
}

/* Parses text (expanded) into the field; copies texts into the arena. */
int param_set(const struct param_row *row, const char *text, bool test_mode, void *params, struct arena *arena, struct complaint *why);
int param_set(const struct param_row *row, const char *text, bool test_mode, void *params, struct arena *arena, struct complaint *why)
{
	struct span s = span_of(text);
	void *field = (char *)params + row->offset;
	int64_t number = 0;
	int error = 0;
	if (!text_is_printable(s)) {
		complain(why, why->file, why->line, "%s: control characters are not allowed", row->name);
		return EINVAL;
	}
	switch (row->kind) {
	case KIND_COUNT:
	case KIND_TIME:
	case KIND_TIME_LIMIT:
	case KIND_BYTES:
		error = check_number(row, s, test_mode, &number, why);
		break;
	case KIND_WORDS:
		error = check_words(row, s, &number, why);
		break;
	case KIND_WORD:
		error = check_word(row, s, &number, why);
		break;
	case KIND_TEXT: case KIND_PATH: case KIND_HOSTNAME: case KIND_LISTEN:
	case KIND_CLIENTS: case KIND_NEXTHOPS: case KIND_NAMES: case KIND_ADDRESS: case KIND_DELIVERY: case KIND_MAPS: case KIND_NETWORKS: case KIND_RATE:
	case KIND_FILES: case KIND_PAIRS: case KIND_RESOLVERS: case KIND_OPERATORS: {
		bool unset = (row->kind == KIND_NAMES || row->kind == KIND_LISTEN) && s.n == 0 && row->standard[0] == '\0';
		const char *fault = unset ? NULL : text_fault(row->kind, s);
		if (fault != NULL) {
			complain(why, why->file, why->line, "%s: '%.*s': %s", row->name, SPAN_ARG(s), fault);
			return EINVAL;
		}
		const char *copy = arena_dup(arena, s);
		if (copy == NULL)
			return ENOMEM;
		memcpy(field, &copy, sizeof copy);
		return 0;
	}
	}
	if (error == 0)
		memcpy(field, &number, sizeof number);
	return error;
}

int param_check(const struct param_row *row, const char *text, bool test_mode, struct complaint *why)
{
	union {
		struct service_params service;
		struct server_params server;
		struct domain_params domain;
	} scratch;
	struct arena arena = {0};
	if (strchr(text, '$') != NULL)
		return 0; /* known only when the whole is read; $$ too */
	memset(&scratch, 0, sizeof scratch);
	int error = param_set(row, text, test_mode, &scratch, &arena, why);
	arena_free(&arena);
	return error;
}

static void format_bytes(struct buffer *b, int64_t v)
{
	static const struct { char unit; int64_t bytes; } units[] = {{'G', 1073741824}, {'M', 1048576}, {'K', 1024}, {'B', 1}};
	for (size_t i = 0; i < COUNT_OF(units); i++) {
		if (v % units[i].bytes == 0) {
			buffer_printf(b, "%lld%c", (long long)(v / units[i].bytes), units[i].unit);
			return;
		}
	}
}

static void format_words(struct buffer *b, const char *words, int64_t set)
{
	struct span rest = span_of(words), word;
	const char *separator = "";
	for (int64_t bit = 1; (word = span_word(&rest, " ")).n > 0; bit *= 2) {
		if ((set & bit) == 0)
			continue;
		buffer_puts(b, separator);
		buffer_put_span(b, word);
		separator = " ";
	}
}

void param_format(struct buffer *b, const struct param_row *row, const void *params)
{
	const char *field = (const char *)params + row->offset;
	int64_t v = 0;
	const char *text = NULL;
	if (row->kind <= KIND_WORD)
		memcpy(&v, field, sizeof v);
	else
		memcpy(&text, field, sizeof text);
	if (row->kind > KIND_WORD) {
		buffer_puts(b, text == NULL ? "" : text);
	} else if (row->kind == KIND_WORDS) {
		format_words(b, row->words, v);
	} else if (row->kind == KIND_WORD) {
		struct span rest = span_of(row->words), word = {"", 0};
		for (int64_t i = 0; i <= v; i++)
			word = span_word(&rest, " ");
		buffer_put_span(b, word);
	} else if (v == PARAM_UNLIMITED) {
		buffer_puts(b, "unlimited");
	} else if (row->kind == KIND_TIME || row->kind == KIND_TIME_LIMIT) {
		format_duration(b, v);
	} else if (row->kind == KIND_BYTES) {
		format_bytes(b, v);
	} else {
		buffer_printf(b, "%lld", (long long)v);
	}
}

static void print_row(FILE *out, const struct param_row *r)
{
	(void)fprintf(out, ".TP\n.BR %s \" (default: %s)\"\n%s\n", r->name, r->standard[0] == '\0' ? "empty" : r->standard, r->text);
	if (r->words[0] != '\0')
		(void)fprintf(out, "%s of: %s.\n", r->kind == KIND_WORDS ? "Any" : "One", r->words);
	(void)fprintf(out, "(%s)%s\n", r->source, r->who == SET_BY_OPERATOR ? " Operators may set it." : "");
}

/* What a domain may have of its own is described with the server: here only its names. */
static void print_inherited(FILE *out, enum param_inherits inherits, const char *what)
{
	(void)fprintf(out, ".PP\n%s may have its own", what);
	const char *separator = "";
	for (size_t i = 0; i < param_rows_n; i++)
		if (param_rows[i].inherits == inherits) {
			(void)fprintf(out, "%s\n.BR %s", separator, param_rows[i].name);
			separator = " ,";
		}
	(void)fputs(" ;\nunset, the server's value holds.\n", out);
}

void params_print_man(FILE *out, enum param_scope scope)
{
	for (size_t i = 0; i < param_rows_n; i++)
		if (param_rows[i].scope == scope && param_rows[i].inherits == INHERITS_NOT)
			print_row(out, &param_rows[i]);
	if (scope == SCOPE_DOMAIN) {
		print_inherited(out, INHERITS_OUTBOUND, "A remote domain");
		print_inherited(out, INHERITS_LOCAL, "A local domain");
	}
}
