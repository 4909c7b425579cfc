#include "smtp/smtp.h"

#include <string.h>

static const struct command_row rows[] = {
#define COMMAND(verb, phases, flags, source) [CMD_##verb] = {#verb, phases, flags, source},
#include "smtp/commands.def"
};

const struct command_row *command_row(enum command c)
{
	return &rows[c];
}

enum command command_parse(struct span line, struct span *args)
{
	struct span rest = line;
	struct span verb = {line.at, 0};
	while (verb.n < line.n && line.at[verb.n] != ' ' && line.at[verb.n] != '\t')
		verb.n++;
	rest.at += verb.n;
	rest.n -= verb.n;
	*args = span_trim(rest);
	for (size_t i = 0; i < CMD_COUNT; i++)
		if (span_case_is(verb, rows[i].verb))
			return (enum command)i;
	return CMD_COUNT;
}

bool xtext_is_valid(struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.at[i];
		if (c == '+') {
			if (i + 2 >= s.n)
				return false;
			for (size_t k = 1; k <= 2; k++)
				if (strchr("0123456789ABCDEF", s.at[i + k]) == NULL || s.at[i + k] == '\0')
					return false;
			i += 2;
		} else if (c < '!' || c > '~' || c == '=') {
			return false;
		}
	}
	return true;
}

static unsigned hex_value(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

void xtext_put_decoded(struct buffer *b, struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.at[i];
		if (c == '+' && i + 2 < s.n) {
			c = (unsigned char)(hex_value(s.at[i + 1]) * 16 + hex_value(s.at[i + 2]));
			i += 2;
		}
		buffer_putc(b, (char)(c < 0x20 || c == 0x7f ? '?' : c));
	}
}

void xtext_put(struct buffer *b, struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.at[i];
		if (c < '!' || c > '~' || c == '+' || c == '=')
			buffer_printf(b, "+%02X", c);
		else
			buffer_putc(b, (char)c);
	}
}

/* Splits "KEY=value" or "KEY" off *rest; false at the end. */
static bool next_param(struct span *rest, struct span *key, struct span *value)
{
	struct span word = span_word(rest, " ");
	if (word.n == 0)
		return false;
	*key = span_until(&word, '=');
	*value = word;
	return true;
}

/* Seen more than once: RFC 5321 4.1.2 allows each parameter once. */
static bool once(unsigned *seen, unsigned bit)
{
	bool first = (*seen & bit) == 0;
	*seen |= bit;
	return first;
}

static bool take_body(struct span value, enum body_type *out)
{
	static const char *const names[] = {[BODY_7BIT] = "7BIT", [BODY_8BITMIME] = "8BITMIME", [BODY_BINARYMIME] = "BINARYMIME"};
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		if (span_case_is(value, names[i])) {
			*out = (enum body_type)i;
			return true;
		}
	}
	return false;
}

static enum reply mail_param(struct span key, struct span value, unsigned *seen, struct mail_args *m)
{
	bool good;
	if (span_case_is(key, "SIZE")) {
		good = once(seen, 1) && value.n <= 20 && parse_u64(value, UINT64_MAX, &m->size) == 0;
	} else if (span_case_is(key, "BODY")) {
		good = once(seen, 2) && take_body(value, &m->body);
	} else if (span_case_is(key, "SMTPUTF8")) {
		good = once(seen, 4) && value.n == 0;
	} else if (span_case_is(key, "REQUIRETLS")) { /* RFC 8689 3 */
		good = once(seen, 64) && value.n == 0;
		m->requiretls = true;
	} else if (span_case_is(key, "RET")) {
		m->ret = span_case_is(value, "FULL") ? RET_FULL : RET_HDRS;
		good = once(seen, 8) && (m->ret == RET_FULL || span_case_is(value, "HDRS"));
	} else if (span_case_is(key, "ENVID")) {
		good = once(seen, 16) && value.n > 0 && value.n <= 100 && xtext_is_valid(value);
		m->envid = value;
	} else if (span_case_is(key, "AUTH")) { /* RFC 4954 5: who says it is not believed, which needs no word */
		good = once(seen, 32) && value.n > 0 && value.n <= 500 && (span_is(value, "<>") || xtext_is_valid(value));
	} else {
		return REPLY_PARAM_UNKNOWN;
	}
	return good ? REPLY_MAIL_OK : REPLY_SYNTAX;
}

/* Takes "FROM:" / "TO:" off; blanks after the colon are common and harmless. */
static bool take_keyword(struct span *args, struct span keyword)
{
	if (args->n < keyword.n || !span_case_eq((struct span){args->at, keyword.n}, keyword))
		return false;
	args->at += keyword.n;
	args->n -= keyword.n;
	*args = span_trim(*args);
	return true;
}

static bool asks_utf8(struct span params)
{
	struct span key, value;
	while (next_param(&params, &key, &value))
		if (span_case_is(key, "SMTPUTF8"))
			return true;
	return false;
}

enum reply mail_args_parse(struct span args, struct mail_args *out)
{
	struct mail_args m = {0};
	struct span key, value;
	unsigned seen = 0;
	if (!take_keyword(&args, SPAN_LIT("FROM:")))
		return REPLY_SYNTAX;
	if (address_parse_path(&args, ADDRESS_NULL | ADDRESS_UTF8, &m.sender) != 0 || (args.n > 0 && args.at[0] != ' '))
		return REPLY_BAD_SENDER;
	m.smtputf8 = asks_utf8(args);
	if (m.sender.utf8 && !m.smtputf8)
		return REPLY_NEEDS_UTF8;
	while (next_param(&args, &key, &value)) {
		enum reply r = mail_param(key, value, &seen, &m);
		if (r != REPLY_MAIL_OK)
			return r;
	}
	*out = m;
	return REPLY_MAIL_OK;
}

static bool take_notify(struct span value, unsigned *out)
{
	static const struct { const char *name; unsigned bit; } kinds[] = {
		{"SUCCESS", NOTIFY_SUCCESS}, {"FAILURE", NOTIFY_FAILURE}, {"DELAY", NOTIFY_DELAY}};
	unsigned bits = 0;
	if (span_case_is(value, "NEVER")) {
		*out = NOTIFY_NEVER;
		return true;
	}
	do {
		struct span word = span_until(&value, ',');
		unsigned bit = 0;
		for (size_t i = 0; i < COUNT_OF(kinds); i++)
			if (span_case_is(word, kinds[i].name))
				bit = kinds[i].bit;
		if (bit == 0 || (bits & bit) != 0)
			return false;
		bits |= bit;
	} while (value.n > 0);
	*out = bits;
	return true;
}

static bool orcpt_is_valid(struct span value)
{
	struct span rest = value;
	struct span type = span_until(&rest, ';');
	if (value.n > 500 || type.n == 0 || type.n == value.n || rest.n == 0)
		return false;
	for (size_t i = 0; i < type.n; i++)
		if (strchr("()<>@,;:\\\"/[]?=.", type.at[i]) != NULL || type.at[i] < '!' || type.at[i] > '~')
			return false;
	return span_case_is(type, "utf-8") || xtext_is_valid(rest); /* RFC 6533 3 has its own encoding */
}

enum reply rcpt_args_parse(struct span args, bool smtputf8, struct rcpt_args *out)
{
	struct rcpt_args r = {0};
	struct span key, value;
	unsigned seen = 0;
	if (!take_keyword(&args, SPAN_LIT("TO:")))
		return REPLY_SYNTAX;
	if (address_parse_path(&args, ADDRESS_NO_DOMAIN | ADDRESS_UTF8, &r.recipient) != 0 || (args.n > 0 && args.at[0] != ' '))
		return REPLY_BAD_RECIPIENT;
	if (r.recipient.domain.n == 0 && !span_case_is(r.recipient.local, "postmaster")) /* RFC 5321 4.1.1.3 */
		return REPLY_BAD_RECIPIENT;
	if (r.recipient.utf8 && !smtputf8)
		return REPLY_NEEDS_UTF8;
	while (next_param(&args, &key, &value)) {
		bool good;
		if (span_case_is(key, "NOTIFY")) {
			good = once(&seen, 1) && take_notify(value, &r.notify);
		} else if (span_case_is(key, "ORCPT")) {
			good = once(&seen, 2) && orcpt_is_valid(value);
			r.orcpt = value;
		} else {
			return REPLY_PARAM_UNKNOWN;
		}
		if (!good)
			return REPLY_SYNTAX;
	}
	*out = r;
	return REPLY_RCPT_OK;
}
