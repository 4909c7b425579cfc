/* main.cf, master.cf (postconf(5), master(5)) and tables' texts (postmap(1)). */
#include "cmd/import/postfix.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

enum { FILE_MOST = 64 * 1024 * 1024, DEPTH = 12 };

static const struct { const char *name, *value; } defaults[] = {
#define POSTFIX(name, value) {name, value},
#include "cmd/import/postfix_defaults.def"
#undef POSTFIX
};

struct span pf_word(struct span *rest)
{
	while (rest->n > 0 && (isspace((unsigned char)*rest->at) || *rest->at == ','))
		*rest = span_from(*rest, 1);
	if (rest->n > 0 && *rest->at == '{') {
		const char *end = memchr(rest->at, '}', rest->n);
		size_t n = end == NULL ? rest->n : (size_t)(end - rest->at) + 1;
		struct span word = {rest->at, n};
		*rest = span_from(*rest, n);
		return word;
	}
	return span_word(rest, " \t\r\n,");
}

/* Logical lines: those that begin with a blank go on with the one before; comments stand between them. */
static bool next_line(struct span *text, struct buffer *line)
{
	buffer_clear(line);
	while (text->n > 0) {
		struct span probe = *text, one = span_until(&probe, '\n'), bare = span_trim(one);
		bool comment = bare.n == 0 || bare.at[0] == '#';
		if (!comment && line->n > 0 && one.at[0] != ' ' && one.at[0] != '\t')
			return true;
		*text = probe;
		if (comment)
			continue;
		if (line->n > 0)
			buffer_putc(line, ' ');
		buffer_put_span(line, bare);
	}
	return line->n > 0;
}

static const struct pf_setting *find(const struct postfix *pf, const char *name)
{
	for (size_t i = pf->settings_n; i-- > 0;) /* the last one holds */
		if (strcmp(pf->settings[i].name, name) == 0)
			return &pf->settings[i];
	return NULL;
}

static int read_main(struct postfix *pf, struct span text)
{
	struct buffer line;
	buffer_init(&line, FILE_MOST);
	while (next_line(&text, &line)) {
		struct span rest = buffer_span(&line), name = span_trim(span_until(&rest, '='));
		if (rest.at == line.at + line.n && memchr(line.at, '=', line.n) == NULL) {
			import_say(&pf->im, IMPORT_NONE, arena_dup(&pf->arena, name), "no line of the form name = value");
			continue;
		}
		struct pf_setting *more = pf->settings_n % 64 == 0 ? realloc(pf->settings, (pf->settings_n + 64) * sizeof *more) : pf->settings;
		if (more == NULL)
			break;
		pf->settings = more;
		more[pf->settings_n++] = (struct pf_setting){.name = arena_dup(&pf->arena, name), .value = arena_dup(&pf->arena, span_trim(rest))};
	}
	buffer_free(&line);
	return pf->arena.failed ? EX_OSERR : 0;
}

static void add_option(struct postfix *pf, struct pf_service *s, struct span text)
{
	if (text.n >= 2 && text.at[0] == '{' && text.at[text.n - 1] == '}')
		text = span_trim((struct span){text.at + 1, text.n - 2});
	struct span rest = text, name = span_trim(span_until(&rest, '='));
	struct pf_setting *more = realloc(s->options, (s->options_n + 1) * sizeof *more);
	if (more == NULL)
		return;
	s->options = more;
	more[s->options_n++] = (struct pf_setting){.name = arena_dup(&pf->arena, name), .value = arena_dup(&pf->arena, span_trim(rest))};
}

/* The next argument of a command: commas are part of it. */
static struct span argument(struct span *line)
{
	*line = span_trim(*line);
	return line->n > 0 && line->at[0] == '{' ? pf_word(line) : span_word(line, " \t");
}

/* service type private unpriv chroot wakeup maxproc command arguments */
static void take_service(struct postfix *pf, struct span line)
{
	struct span field[8];
	struct pf_service s = {.options = NULL};
	for (size_t i = 0; i < COUNT_OF(field); i++)
		field[i] = span_word(&line, " \t");
	if (field[7].n == 0)
		return;
	s.name = arena_dup(&pf->arena, field[0]);
	s.type = arena_dup(&pf->arena, field[1]);
	s.command = arena_dup(&pf->arena, field[7]);
	s.arguments = arena_dup(&pf->arena, span_trim(line));
	for (struct span word; (word = argument(&line)).n > 0;)
		if (span_is(word, "-o"))
			add_option(pf, &s, argument(&line));
	struct pf_service *more = pf->services_n % 32 == 0 ? realloc(pf->services, (pf->services_n + 32) * sizeof *more) : pf->services;
	if (more == NULL)
		return;
	pf->services = more;
	more[pf->services_n++] = s;
}

static int read_text(struct postfix *pf, const char *name, struct buffer *text)
{
	int dir = open(pf->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = dir < 0 ? errno : 0;
	buffer_init(text, FILE_MOST);
	if (error == 0)
		error = read_file_at(dir, name, FILE_MOST, text);
	if (dir >= 0)
		(void)close(dir);
	return error == 0 ? 0 : cli_fail(&pf->im.cli, EX_NOINPUT, "%s/%s: %s", pf->dir, name, strerror(error));
}

/* What Postfix takes where myhostname and mydomain are not set. */
static void find_host(struct postfix *pf)
{
	char name[256] = "";
	(void)gethostname(name, sizeof name - 1);
	pf->host = strchr(name, '.') != NULL ? arena_dup(&pf->arena, span_of(name)) : arena_printf(&pf->arena, "%s.localdomain", name);
	const char *host = pf_is_set(pf, "myhostname") ? find(pf, "myhostname")->value : pf->host;
	const char *dot = host == NULL ? NULL : strchr(host, '.');
	pf->domain = dot == NULL || dot[1] == '\0' ? "localdomain" : dot + 1;
}

int pf_read(struct postfix *pf)
{
	struct buffer text, line;
	int status = read_text(pf, "main.cf", &text);
	if (status == 0)
		status = read_main(pf, buffer_span(&text));
	buffer_free(&text);
	if (status != 0)
		return status;
	buffer_init(&line, FILE_MOST);
	status = read_text(pf, "master.cf", &text);
	struct span rest = buffer_span(&text);
	while (status == 0 && next_line(&rest, &line))
		take_service(pf, buffer_span(&line));
	buffer_free(&text);
	buffer_free(&line);
	find_host(pf);
	return pf->arena.failed ? EX_OSERR : status;
}

/* ---- values ---- */

static void expand(struct postfix *pf, struct span text, struct buffer *out, unsigned depth);

static const char *raw(const struct postfix *pf, const char *name)
{
	const struct pf_setting *s = find(pf, name);
	if (s != NULL)
		return s->value;
	for (size_t i = 0; i < COUNT_OF(defaults); i++)
		if (strcmp(defaults[i].name, name) == 0)
			return defaults[i].value;
	return strcmp(name, "myhostname") == 0 ? pf->host : strcmp(name, "mydomain") == 0 ? pf->domain : NULL;
}

static void put_name(struct postfix *pf, struct span inner, struct buffer *out, unsigned depth)
{
	char name[200];
	size_t n = 0;
	while (n < inner.n && (isalnum((unsigned char)inner.at[n]) || inner.at[n] == '_'))
		n++;
	(void)snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), inner.at);
	const char *value = raw(pf, name);
	bool filled = value != NULL && value[0] != '\0';
	struct span rest = span_from(inner, n);
	if (rest.n == 0) {
		expand(pf, span_of(value), out, depth + 1);
	} else if (rest.at[0] == '?' || rest.at[0] == ':') { /* ${name?text}, ${name?{text}:{text}}, ${name:text} */
		struct span text = span_from(rest, 1), other = {"", 0};
		if (text.n > 0 && text.at[0] == '{') {
			other = span_from(text, 1);
			text = span_until(&other, '}');
			if (other.n > 2 && other.at[0] == ':' && other.at[1] == '{') {
				other = span_from(other, 2);
				other.n -= other.n > 0 && other.at[other.n - 1] == '}';
			}
		}
		expand(pf, (rest.at[0] == '?') == filled ? text : other, out, depth + 1);
	}
}

/* The end of ${...}, braces within counted. */
static size_t closing(struct span text, char open, char close)
{
	size_t depth = 0;
	for (size_t i = 0; i < text.n; i++) {
		depth += text.at[i] == open;
		if (text.at[i] == close && --depth == 0)
			return i;
	}
	return text.n;
}

static void expand(struct postfix *pf, struct span text, struct buffer *out, unsigned depth)
{
	while (text.n > 0 && depth < DEPTH) {
		if (text.at[0] != '$' || text.n < 2 || text.at[1] == '$') {
			buffer_putc(out, text.at[0]);
			text = span_from(text, text.at[0] == '$' ? 2 : 1);
			continue;
		}
		text = span_from(text, 1);
		if (text.at[0] == '{' || text.at[0] == '(') {
			size_t end = closing(text, text.at[0], text.at[0] == '{' ? '}' : ')');
			put_name(pf, (struct span){text.at + 1, end > 0 ? end - 1 : 0}, out, depth);
			text = span_from(text, end + 1);
			continue;
		}
		size_t n = 0;
		while (n < text.n && (isalnum((unsigned char)text.at[n]) || text.at[n] == '_'))
			n++;
		put_name(pf, (struct span){text.at, n}, out, depth);
		text = span_from(text, n);
	}
}

const char *pf_get(struct postfix *pf, const char *name)
{
	struct buffer b;
	buffer_init(&b, FILE_MOST);
	for (size_t i = 0; i < pf->settings_n; i++)
		pf->settings[i].used = pf->settings[i].used || strcmp(pf->settings[i].name, name) == 0;
	expand(pf, span_of(raw(pf, name)), &b, 0);
	const char *value = arena_dup(&pf->arena, span_trim(buffer_span(&b)));
	buffer_free(&b);
	return value == NULL ? "" : value;
}

bool pf_is_set(const struct postfix *pf, const char *name)
{
	return find(pf, name) != NULL;
}

bool pf_is_yes(struct postfix *pf, const char *name)
{
	return strcasecmp(pf_get(pf, name), "yes") == 0;
}

const char *pf_what(struct postfix *pf, const char *name)
{
	const char *value = pf_get(pf, name);
	const char *text = arena_printf(&pf->arena, "%s = %.200s%s%s", name, value, strlen(value) > 200 ? "..." : "", pf_is_set(pf, name) ? "" : " (Postfix's default)");
	return text == NULL ? name : text;
}

/* ---- tables ---- */

/* Posthorn's name for Postfix's kind of table, NULL: it has none of that kind. */
static const char *kind_of(struct span kind)
{
	static const struct { const char *theirs, *ours; } kinds[] = {{"hash", "hash"}, {"btree", "btree"}, {"cdb", "cdb"}, {"regexp", "regexp"}, {"pcre", "pcre"},
		{"inline", "inline"}, {"texthash", "hash"}, {"lmdb", "hash"}, {"dbm", "hash"}, {"sdbm", "hash"}};
	for (size_t i = 0; i < COUNT_OF(kinds); i++)
		if (span_is(kind, kinds[i].theirs))
			return kinds[i].ours;
	return NULL;
}

static struct span without_proxy(struct span table)
{
	struct span proxy = SPAN_LIT("proxy:");
	if (table.n > proxy.n && memcmp(table.at, proxy.at, proxy.n) == 0)
		table = span_from(table, proxy.n);
	return table;
}

const char *pf_maps(struct postfix *pf, const char *name)
{
	struct buffer b;
	const char *what = pf_what(pf, name);
	struct span rest = span_of(pf_get(pf, name)), table;
	buffer_init(&b, 64 * 1024);
	while ((table = pf_word(&rest)).n > 0) {
		struct span path = without_proxy(table), kind = span_until(&path, ':');
		const char *ours = kind_of(kind);
		if (ours == NULL && (span_is(kind, "ldap") || span_is(kind, "mysql") || span_is(kind, "pgsql") || span_is(kind, "sqlite")))
			import_say(&pf->im, IMPORT_DIFFERS, what, "%.*s: Posthorn has %s: tables, with a file of its own form: see hornmap(8)", SPAN_ARG(table), span_is(kind, "ldap") ? "ldap" : "odbc");
		else if (ours == NULL)
			import_say(&pf->im, IMPORT_NONE, what, "%.*s: no such kind of table", SPAN_ARG(table));
		else {
			buffer_printf(&b, "%s%s:%.*s", b.n > 0 ? ", " : "", ours, SPAN_ARG(path));
			if (!span_is(kind, ours))
				import_say(&pf->im, IMPORT_DIFFERS, what, "%.*s becomes %s:%.*s: run hornmap build %s:%.*s", SPAN_ARG(table), ours, SPAN_ARG(path), ours, SPAN_ARG(path));
		}
	}
	const char *maps = arena_dup(&pf->arena, buffer_span(&b));
	buffer_free(&b);
	return maps == NULL ? "" : maps;
}

/* inline:{ {key = value}, ... } */
static void take_inline(struct span text, void (*take)(void *, struct span, struct span), void *context)
{
	while (text.n > 0) {
		(void)span_until(&text, '{');
		struct span row = span_until(&text, '}'), rest = row, key = span_trim(span_until(&rest, '='));
		if (key.n > 0)
			take(context, key, span_trim(rest));
	}
}

bool pf_table(struct postfix *pf, const char *what, struct span table, void (*take)(void *, struct span, struct span), void *context)
{
	struct span path = without_proxy(table), kind = span_until(&path, ':');
	const char *ours = kind_of(kind);
	struct buffer text, line;
	char file[1200];
	if (span_is(kind, "inline")) {
		take_inline(span_from(path, 1), take, context);
		return true;
	}
	(void)snprintf(file, sizeof file, "%.*s", SPAN_ARG(path));
	buffer_init(&text, FILE_MOST);
	int error = ours == NULL || strcmp(ours, "regexp") == 0 || strcmp(ours, "pcre") == 0 ? EINVAL : read_file_at(AT_FDCWD, file, FILE_MOST, &text);
	if (error != 0) {
		import_say(&pf->im, IMPORT_NONE, what, "%.*s: its rows are no text that can be read (%s): write by hand what it said", SPAN_ARG(table), error == EINVAL ? "kind of table" : strerror(error));
		buffer_free(&text);
		return false;
	}
	struct span rest = buffer_span(&text);
	buffer_init(&line, FILE_MOST);
	while (next_line(&rest, &line)) {
		struct span row = buffer_span(&line), key = span_word(&row, " \t");
		take(context, key, span_trim(row));
	}
	buffer_free(&text);
	buffer_free(&line);
	return true;
}
