#include "smtp/smtp.h"

#include <arpa/inet.h>
#include <string.h>

enum { LOCAL_MAX = 64, DOMAIN_MAX = 255, LABEL_MAX = 63, PATH_MAX_BYTES = 256 }; /* RFC 5321 4.5.3.1 */

/* Length of a well-formed UTF-8 sequence beyond ASCII at s (RFC 3629 4), 0: malformed. */
static size_t utf8_length(struct span s)
{
	const unsigned char *p = (const unsigned char *)s.at;
	size_t n = s.n == 0 ? 0 : p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;
	if (n == 0 || s.n < n)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
	bool surrogate = p[0] == 0xed && p[1] > 0x9f;
	bool beyond = p[0] == 0xf4 && p[1] > 0x8f;
	return overlong || surrogate || beyond ? 0 : n;
}

static struct span tail(struct span s, size_t i)
{
	return (struct span){s.at + i, s.n - i};
}

static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_atext(char c)
{
	return is_alnum(c) || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

/* How many bytes of s are a dot-string (RFC 5321 4.1.2), 0: none. */
static size_t dot_string(struct span s, bool utf8, bool *beyond_ascii)
{
	size_t i = 0;
	bool atom = false; /* the byte before is part of an atom */
	while (i < s.n) {
		if (is_atext(s.at[i])) {
			i++;
			atom = true;
			continue;
		}
		size_t n = utf8 && (s.at[i] & 0x80) != 0 ? utf8_length(tail(s, i)) : 0;
		if (n > 0) {
			i += n;
			atom = *beyond_ascii = true;
			continue;
		}
		if (s.at[i] != '.' || !atom)
			break;
		atom = false;
		i++;
	}
	return atom ? i : 0;
}

/* Quoted-string: a quote, qtextSMTP or quoted pairs, a quote. */
static size_t quoted_string(struct span s, bool utf8, bool *beyond_ascii)
{
	size_t i = 1;
	while (i < s.n && s.at[i] != '"') {
		unsigned char c = (unsigned char)s.at[i];
		if (c == '\\') {
			i++;
			if (i >= s.n || s.at[i] < 0x20 || s.at[i] > 0x7e)
				return 0;
			i++;
		} else if (c >= 0x20 && c <= 0x7e) {
			i++;
		} else {
			size_t n = utf8 ? utf8_length(tail(s, i)) : 0;
			if (n == 0)
				return 0;
			*beyond_ascii = true;
			i += n;
		}
	}
	return i < s.n ? i + 1 : 0;
}

static bool label_is_valid(struct span label, bool utf8)
{
	if (label.n == 0 || label.n > LABEL_MAX || label.at[0] == '-' || label.at[label.n - 1] == '-')
		return false;
	for (size_t i = 0; i < label.n;) {
		if (is_alnum(label.at[i]) || label.at[i] == '-' || label.at[i] == '_') {
			i++;
			continue;
		}
		size_t n = utf8 ? utf8_length(tail(label, i)) : 0;
		if (n == 0)
			return false;
		i += n;
	}
	return true;
}

bool domain_is_valid(struct span name, bool utf8)
{
	if (name.n == 0 || name.n > DOMAIN_MAX || name.at[name.n - 1] == '.')
		return false;
	struct span rest = name;
	while (rest.n > 0)
		if (!label_is_valid(span_until(&rest, '.'), utf8))
			return false;
	return true;
}

bool literal_is_valid(struct span literal)
{
	char text[64];
	unsigned char raw[16];
	if (literal.n < 3 || literal.at[0] != '[' || literal.at[literal.n - 1] != ']')
		return false;
	struct span inner = {literal.at + 1, literal.n - 2};
	int family = AF_INET;
	if (inner.n > 5 && span_case_eq((struct span){inner.at, 5}, SPAN_LIT("IPv6:"))) {
		inner = tail(inner, 5);
		family = AF_INET6;
	}
	if (inner.n >= sizeof text)
		return false;
	memcpy(text, inner.at, inner.n);
	text[inner.n] = '\0';
	return inet_pton(family, text, raw) == 1;
}

static bool beyond_ascii(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((s.at[i] & 0x80) != 0)
			return true;
	return false;
}

int address_parse(struct span text, unsigned flags, struct address *out)
{
	bool utf8 = (flags & ADDRESS_UTF8) != 0, wide = false;
	if (text.n == 0)
		return EINVAL;
	size_t n = text.at[0] == '"' ? quoted_string(text, utf8, &wide) : dot_string(text, utf8, &wide);
	if (n == 0 || n > LOCAL_MAX)
		return EINVAL;
	struct address a = {.local = {text.at, n}, .domain = {text.at + n, 0}};
	struct span rest = tail(text, n);
	if (rest.n == 0 && (flags & ADDRESS_NO_DOMAIN) != 0) {
		a.utf8 = wide;
		*out = a;
		return 0;
	}
	if (rest.n < 2 || rest.at[0] != '@' || text.n > PATH_MAX_BYTES - 2)
		return EINVAL;
	a.domain = tail(rest, 1);
	if (a.domain.at[0] == '[' ? !literal_is_valid(a.domain) : !domain_is_valid(a.domain, utf8))
		return EINVAL;
	a.utf8 = wide || beyond_ascii(a.domain);
	*out = a;
	return 0;
}

/* Drops "@one,@two:" (RFC 5321 4.1.2 A-d-l); a malformed one stays and fails the mailbox. */
static struct span without_source_route(struct span path, bool utf8)
{
	struct span rest = path;
	while (rest.n > 0 && rest.at[0] == '@') {
		size_t i = 1;
		while (i < rest.n && rest.at[i] != ',' && rest.at[i] != ':')
			i++;
		if (i >= rest.n || !domain_is_valid((struct span){rest.at + 1, i - 1}, utf8))
			return path;
		bool last = rest.at[i] == ':';
		rest = tail(rest, i + 1);
		if (last)
			return rest;
	}
	return path;
}

int address_parse_path(struct span *rest, unsigned flags, struct address *out)
{
	bool quoted = false;
	size_t i = 1;
	if (rest->n < 2 || rest->at[0] != '<')
		return EINVAL;
	for (; i < rest->n && (quoted || rest->at[i] != '>'); i++) {
		if (quoted && rest->at[i] == '\\')
			i++;
		else if (rest->at[i] == '"')
			quoted = !quoted;
	}
	if (i >= rest->n)
		return EINVAL;
	struct span path = {rest->at + 1, i - 1};
	if (path.n == 0) {
		if ((flags & ADDRESS_NULL) == 0)
			return EINVAL;
		*out = (struct address){.local = {path.at, 0}, .domain = {path.at, 0}};
	} else {
		int error = address_parse(without_source_route(path, (flags & ADDRESS_UTF8) != 0), flags, out);
		if (error != 0)
			return error;
	}
	*rest = tail(*rest, i + 1);
	return 0;
}

bool address_is_null(const struct address *a)
{
	return a->local.n == 0;
}

void address_put_unquoted_local(struct buffer *b, const struct address *a)
{
	struct span s = a->local;
	if (s.n >= 2 && s.at[0] == '"') {
		s.at++;
		s.n -= 2;
	}
	for (size_t i = 0; i < s.n; i++) {
		if (s.at[i] == '\\' && a->local.at[0] == '"' && i + 1 < s.n)
			i++;
		buffer_putc(b, s.at[i]);
	}
}
