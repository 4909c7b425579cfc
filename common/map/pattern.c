/* regexp (POSIX) and pcre: a text of "/pattern/flags value" lines; the first that fits decides.  As in Postfix: letters match
 * in either case unless the flag i takes that back, "!/pattern/" fits what does not, $1 in the value is what () matched,
 * "if /pattern/" ... "endif" hold lines for what fits only. */
#include "map/map.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <fcntl.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

enum { GROUPS_MOST = 10, STEPS_MOST = 100000, DEPTH_MOST = 10 };
enum line_kind { LINE_RULE, LINE_IF, LINE_ENDIF };

struct rule {
	enum line_kind kind;
	bool negated;
	unsigned line;
	regex_t *posix;
	pcre2_code *perl;
	char *value;
};
struct rules {
	struct rule *list;
	size_t n;
	pcre2_match_data *data;
	pcre2_match_context *context;
};
struct match {
	struct span groups[GROUPS_MOST];
};

static void free_rules(struct rules *r)
{
	for (size_t i = 0; r != NULL && i < r->n; i++) {
		if (r->list[i].posix != NULL)
			regfree(r->list[i].posix);
		free(r->list[i].posix);
		pcre2_code_free(r->list[i].perl);
		free(r->list[i].value);
	}
	if (r == NULL)
		return;
	pcre2_match_data_free(r->data);
	pcre2_match_context_free(r->context);
	free(r->list);
	free(r);
}

static int compile_posix(struct rule *rule, const char *pattern, struct span flags, char *text, size_t size)
{
	int bits = REG_EXTENDED | REG_ICASE;
	for (size_t i = 0; i < flags.n; i++) {
		int bit = flags.at[i] == 'i' ? REG_ICASE : flags.at[i] == 'm' ? REG_NEWLINE : flags.at[i] == 'x' ? REG_EXTENDED : 0;
		if (bit == 0) {
			(void)snprintf(text, size, "no such flag: %c (i, m, x)", flags.at[i]);
			return EINVAL;
		}
		bits ^= bit;
	}
	regex_t *compiled = calloc(1, sizeof *compiled);
	int error = compiled == NULL ? REG_ESPACE : regcomp(compiled, pattern, bits);
	if (error != 0) {
		(void)regerror(error, NULL, text, size);
		free(compiled);
		return EINVAL;
	}
	rule->posix = compiled;
	return 0;
}

static int compile_perl(struct rule *rule, const char *pattern, struct span flags, char *text, size_t size)
{
	static const struct { char flag; uint32_t bit; } known[] = {{'i', PCRE2_CASELESS}, {'m', PCRE2_MULTILINE}, {'s', PCRE2_DOTALL},
		{'x', PCRE2_EXTENDED}, {'A', PCRE2_ANCHORED}, {'E', PCRE2_DOLLAR_ENDONLY}, {'U', PCRE2_UNGREEDY}};
	uint32_t bits = PCRE2_CASELESS | PCRE2_DOTALL;
	PCRE2_SIZE at;
	int error;
	for (size_t i = 0; i < flags.n; i++) {
		size_t k = 0;
		while (k < COUNT_OF(known) && known[k].flag != flags.at[i])
			k++;
		if (k == COUNT_OF(known)) {
			(void)snprintf(text, size, "no such flag: %c (i, m, s, x, A, E, U)", flags.at[i]);
			return EINVAL;
		}
		bits ^= known[k].bit;
	}
	rule->perl = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, bits, &error, &at, NULL);
	if (rule->perl == NULL)
		(void)pcre2_get_error_message(error, (PCRE2_UCHAR *)text, size);
	return rule->perl == NULL ? EINVAL : 0;
}

/* "/pattern/flags" at the front of *text. */
static int take_pattern(struct rule *rule, struct span *text, bool perl, char *reason, size_t size)
{
	size_t i = 1;
	rule->negated = text->n > 0 && text->at[0] == '!';
	if (rule->negated)
		*text = span_trim((struct span){text->at + 1, text->n - 1});
	if (text->n < 2 || text->at[0] == ' ' || text->at[0] == '\t' || text->at[0] == '#') {
		(void)snprintf(reason, size, "write /pattern/ value");
		return EINVAL;
	}
	char mark = text->at[0];
	while (i < text->n && text->at[i] != mark)
		i += text->at[i] == '\\' ? 2 : 1;
	if (i >= text->n) {
		(void)snprintf(reason, size, "the pattern has no closing %c", mark);
		return EINVAL;
	}
	char *pattern = span_dup((struct span){text->at + 1, i - 1});
	*text = (struct span){text->at + i + 1, text->n - i - 1};
	size_t n = 0;
	while (n < text->n && text->at[n] != ' ' && text->at[n] != '\t')
		n++;
	struct span flags = {text->at, n};
	*text = span_trim((struct span){text->at + n, text->n - n});
	int error = pattern == NULL ? ENOMEM : perl ? compile_perl(rule, pattern, flags, reason, size) : compile_posix(rule, pattern, flags, reason, size);
	free(pattern);
	return error;
}

static bool is_word(struct span text, const char *word)
{
	size_t n = strlen(word);
	return text.n >= n && span_case_eq((struct span){text.at, n}, span_of(word)) && (text.n == n || text.at[n] == ' ' || text.at[n] == '\t');
}

static int add_rule(struct rules *r, struct span text, unsigned line, bool perl, char *reason, size_t size)
{
	struct rule *more = realloc(r->list, (r->n + 1) * sizeof *more);
	if (more == NULL)
		return ENOMEM;
	r->list = more;
	struct rule *rule = &r->list[r->n++];
	*rule = (struct rule){.line = line, .kind = is_word(text, "if") ? LINE_IF : is_word(text, "endif") ? LINE_ENDIF : LINE_RULE};
	if (rule->kind == LINE_ENDIF)
		return 0;
	if (rule->kind == LINE_IF)
		text = span_trim((struct span){text.at + 2, text.n - 2});
	int error = take_pattern(rule, &text, perl, reason, size);
	if (error == 0 && rule->kind == LINE_RULE && text.n == 0) {
		(void)snprintf(reason, size, "nothing behind the pattern");
		error = EINVAL;
	}
	rule->value = span_dup(text);
	return error != 0 ? error : rule->value == NULL ? ENOMEM : 0;
}

static int check_nesting(const struct rules *r, unsigned *line)
{
	int depth = 0;
	for (size_t i = 0; i < r->n; i++) {
		depth += r->list[i].kind == LINE_IF ? 1 : r->list[i].kind == LINE_ENDIF ? -1 : 0;
		*line = r->list[i].line;
		if (depth < 0 || depth > DEPTH_MOST)
			return EINVAL;
	}
	return depth == 0 ? 0 : EINVAL;
}

/* Lines that begin with a blank go on with the one before. */
static int read_rules(struct rules *r, struct span text, bool perl, const char *path, struct complaint *why)
{
	char reason[200] = "not enough memory";
	unsigned line = 0, at = 0;
	int error = 0;
	struct buffer logical;
	buffer_init(&logical, MAP_FILE_MOST);
	while (error == 0 && (text.n > 0 || logical.n > 0)) {
		struct span one = text.n == 0 ? (struct span){"", 0} : span_until(&text, '\n'), trimmed = span_trim(one);
		bool goes_on = one.n > 0 && (one.at[0] == ' ' || one.at[0] == '\t') && trimmed.n > 0 && logical.n > 0;
		line++;
		if (goes_on) {
			buffer_putc(&logical, ' ');
			buffer_put_span(&logical, trimmed);
			if (text.n > 0)
				continue;
			trimmed.n = 0;
		}
		if (trimmed.n > 0 && trimmed.at[0] == '#')
			continue;
		if (logical.n > 0)
			error = add_rule(r, buffer_span(&logical), at, perl, reason, sizeof reason);
		if (error != 0)
			break;
		buffer_clear(&logical);
		buffer_put_span(&logical, trimmed);
		at = line;
	}
	buffer_free(&logical);
	if (error == 0 && check_nesting(r, &at) != 0) {
		(void)snprintf(reason, sizeof reason, "if and endif do not match");
		error = EINVAL;
	}
	if (error != 0)
		complain(why, path, at, "%s", reason);
	return error;
}

static int open_rules(struct map *m, bool perl, struct complaint *why)
{
	struct rules *r = calloc(1, sizeof *r);
	struct buffer text;
	buffer_init(&text, MAP_FILE_MOST);
	int error = r == NULL ? ENOMEM : read_file_at(AT_FDCWD, m->path, MAP_FILE_MOST - 1, &text);
	if (error != 0)
		complain(why, m->path, 0, "%s", strerror(error));
	else
		error = read_rules(r, buffer_span(&text), perl, m->path, why);
	buffer_free(&text);
	if (error == 0 && perl) {
		r->data = pcre2_match_data_create(GROUPS_MOST, NULL);
		r->context = pcre2_match_context_create(NULL);
		error = r->data == NULL || r->context == NULL ? ENOMEM : 0;
	}
	if (error != 0) {
		free_rules(r);
		return error;
	}
	if (perl) /* a pattern that tries for ever is at fault, not the mail */
		(void)pcre2_set_match_limit(r->context, STEPS_MOST);
	m->state = r;
	return 0;
}

static int open_regexp(struct map *m, struct complaint *why)
{
	return open_rules(m, false, why);
}

static int open_pcre(struct map *m, struct complaint *why)
{
	return open_rules(m, true, why);
}

static void close_rules(struct map *m)
{
	free_rules(m->state);
}

/* 1 it fits, 0 not, -1 the pattern took too many steps. */
static int fits(const struct rules *r, const struct rule *rule, const char *key, size_t n, struct match *out)
{
	*out = (struct match){.groups = {{NULL, 0}}};
	if (rule->posix != NULL) {
		regmatch_t found[GROUPS_MOST];
		bool yes = regexec(rule->posix, key, GROUPS_MOST, found, 0) == 0;
		for (size_t i = 0; yes && i < GROUPS_MOST; i++)
			if (found[i].rm_so >= 0)
				out->groups[i] = (struct span){key + found[i].rm_so, (size_t)(found[i].rm_eo - found[i].rm_so)};
		return yes != rule->negated;
	}
	int count = pcre2_match(rule->perl, (PCRE2_SPTR)key, n, 0, 0, r->data, r->context);
	if (count < 0 && count != PCRE2_ERROR_NOMATCH)
		return -1;
	const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(r->data);
	for (int i = 0; i < count && i < GROUPS_MOST; i++)
		if (ends[2 * i] != PCRE2_UNSET)
			out->groups[i] = (struct span){key + ends[2 * i], ends[2 * i + 1] - ends[2 * i]};
	return (count >= 0) != rule->negated;
}

/* $1, ${1}, $(1); $$ is a dollar. */
static void put_value(struct buffer *b, const char *value, const struct match *m)
{
	for (const char *p = value; *p != '\0'; p++) {
		const char *digit = p[1] == '{' || p[1] == '(' ? p + 2 : p + 1;
		if (p[0] != '$' || p[1] == '\0') {
			buffer_putc(b, *p);
		} else if (p[1] == '$') {
			buffer_putc(b, '$');
			p++;
		} else if (*digit >= '0' && *digit <= '9') {
			buffer_put_span(b, m->groups[*digit - '0']);
			p = digit != p + 1 && digit[1] != '\0' ? digit + 1 : digit;
		} else {
			buffer_putc(b, '$');
		}
	}
}

static enum map_status query_rules(struct map *m, struct span key, struct buffer *value, struct complaint *why)
{
	const struct rules *r = m->state;
	struct match match;
	char text[MAP_KEY_MOST + 1];
	int skipping = 0;
	memcpy(text, key.at, key.n);
	text[key.n] = '\0';
	for (size_t i = 0; i < r->n; i++) {
		const struct rule *rule = &r->list[i];
		if (skipping > 0 || rule->kind == LINE_ENDIF) {
			skipping += rule->kind == LINE_IF ? 1 : rule->kind == LINE_ENDIF && skipping > 0 ? -1 : 0;
			continue;
		}
		int yes = fits(r, rule, text, key.n, &match);
		if (yes < 0) {
			complain(why, m->path, rule->line, "the pattern takes too many steps");
			return MAP_FAILED;
		}
		if (rule->kind == LINE_IF) {
			skipping = yes ? 0 : 1;
		} else if (yes) {
			put_value(value, rule->value, &match);
			return MAP_FOUND;
		}
	}
	return MAP_NONE;
}

const struct map_kind map_regexp = {"regexp", false, false, open_regexp, close_rules, query_rules, NULL};
const struct map_kind map_pcre = {"pcre", false, false, open_pcre, close_rules, query_rules, NULL};
