#include "sts/sts.h"

#include <string.h>

static const char *const modes[] = {[STS_NONE] = "none", [STS_TESTING] = "testing", [STS_ENFORCE] = "enforce", [STS_UNKNOWN] = "unknown"};

const char *sts_mode_name(enum sts_mode m)
{
	return modes[m];
}

static bool is_name(struct span s)
{
	if (s.n == 0 || s.n > 253 || s.at[0] == '.' || s.at[s.n - 1] == '.')
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.at[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
		if (!letter && (c != '.' || s.at[i - 1] == '.'))
			return false;
	}
	return true;
}

static bool is_pattern(struct span s)
{
	return is_name(s.n > 2 && s.at[0] == '*' && s.at[1] == '.' ? span_from(s, 2) : s);
}

/* What a policy has said so far: of a key that comes twice the first counts, mx excepted. */
enum seen { SEEN_VERSION = 1, SEEN_MODE = 2, SEEN_AGE = 4 };
struct reading {
	struct sts_policy *policy;
	unsigned seen;
	size_t hosts;
	const char *why;
};

static void read_mode(struct reading *r, struct span value)
{
	for (size_t i = 0; i < STS_UNKNOWN; i++) {
		if (span_is(value, modes[i])) {
			r->policy->mode = (enum sts_mode)i;
			return;
		}
	}
	r->why = "its mode is none of enforce, testing, none";
}

static void read_age(struct reading *r, struct span value)
{
	uint64_t age;
	if (value.n == 0 || value.n > 10 || parse_u64(value, UINT64_MAX, &age) != 0) {
		r->why = "its max_age is not a number of seconds";
		return;
	}
	r->policy->max_age_s = age > STS_AGE_MOST ? STS_AGE_MOST : (uint32_t)age;
}

static void read_line(struct reading *r, struct span line)
{
	struct span key = span_trim(span_until(&line, ':')), value = span_trim(line);
	unsigned first = span_is(key, "version") ? SEEN_VERSION : span_is(key, "mode") ? SEEN_MODE : span_is(key, "max_age") ? SEEN_AGE : 0;
	if ((r->seen & SEEN_VERSION) == 0 && (first != SEEN_VERSION || !span_is(value, "STSv1"))) {
		r->why = "it does not begin with 'version: STSv1'";
		return;
	}
	if (span_is(key, "mx")) {
		if (!is_pattern(value))
			r->why = "an mx is no name of a host";
		else if (++r->hosts > STS_HOSTS_MOST)
			r->why = "it names too many hosts";
		else
			buffer_put_lspan(&r->policy->mx, value);
	} else if (first == SEEN_MODE && (r->seen & SEEN_MODE) == 0) {
		read_mode(r, value);
	} else if (first == SEEN_AGE && (r->seen & SEEN_AGE) == 0) {
		read_age(r, value);
	}
	r->seen |= first;
}

int sts_parse_policy(struct span text, struct sts_policy *out, const char **why)
{
	struct reading r = {.policy = out};
	*out = (struct sts_policy){.mode = STS_NONE};
	buffer_init(&out->mx, STS_TEXT_MOST + 4 * STS_HOSTS_MOST);
	while (text.n > 0 && r.why == NULL) {
		struct span line = span_until(&text, '\n');
		if (line.n > 0 && line.at[line.n - 1] == '\r')
			line.n--;
		if (span_trim(line).n > 0)
			read_line(&r, line);
	}
	if (r.why == NULL && (r.seen & SEEN_VERSION) == 0)
		r.why = "it is empty";
	if (r.why == NULL && (r.seen & SEEN_MODE) == 0)
		r.why = "it has no mode";
	if (r.why == NULL && (r.seen & SEEN_AGE) == 0)
		r.why = "it has no max_age";
	if (r.why == NULL && r.hosts == 0 && out->mode != STS_NONE)
		r.why = "it names no mx";
	if (r.why == NULL && !buffer_ok(&out->mx))
		r.why = "there is not enough memory for it";
	*why = r.why;
	return r.why == NULL ? 0 : EINVAL;
}

/* "v=STSv1; id=...;": of other fields only the form is known. */
bool sts_parse_record(struct span record, struct span *id)
{
	struct span rest = record, version = span_trim(span_until(&rest, ';'));
	*id = (struct span){"", 0};
	if (!span_is(version, "v=STSv1") || version.at != record.at || record.n <= version.n)
		return false;
	while (rest.n > 0) {
		struct span field = span_trim(span_until(&rest, ';')), name = span_until(&field, '=');
		if (!span_is(name, "id") || id->n > 0)
			continue;
		bool good = field.n > 0 && field.n <= STS_ID_MOST;
		for (size_t i = 0; i < field.n && good; i++)
			good = (field.at[i] >= '0' && field.at[i] <= '9') || ((field.at[i] | 32) >= 'a' && (field.at[i] | 32) <= 'z');
		if (!good)
			return true;
		*id = field;
	}
	return true;
}

bool sts_names_host(struct span mx, struct span host)
{
	struct span name;
	while (take_lspan(&mx, &name)) {
		struct span tail = host;
		if (name.n > 2 && name.at[0] == '*') {
			struct span label = span_until(&tail, '.');
			if (label.n > 0 && span_case_eq(tail, span_from(name, 2)))
				return true;
		} else if (span_case_eq(name, host)) {
			return true;
		}
	}
	return false;
}
