#include "sts/tlsrpt.h"

#include <string.h>

const char *session_result_name(enum session_result r)
{
	static const char *const names[] = {
#define SESSION_RESULT(name, text) text,
		SESSION_RESULTS(SESSION_RESULT)
#undef SESSION_RESULT
	};
	return names[r];
}

const char *policy_kind_name(enum policy_kind k)
{
	static const char *const names[] = {[KIND_NONE] = "no-policy-found", [KIND_TLSA] = "tlsa", [KIND_STS] = "sts"};
	return names[k];
}

bool tlsrpt_parse_record(struct span record, struct span *rua)
{
	struct span rest = record, version = span_trim(span_until(&rest, ';'));
	*rua = (struct span){"", 0};
	if (!span_is(version, "v=TLSRPTv1") || version.at != record.at || record.n <= version.n)
		return false;
	while (rest.n > 0) {
		struct span field = span_trim(span_until(&rest, ';')), name = span_trim(span_until(&field, '='));
		if (span_is(name, "rua") && rua->n == 0)
			*rua = span_trim(field);
	}
	return true;
}

static bool take_scheme(struct span uri, const char *scheme, struct span *rest)
{
	size_t n = strlen(scheme);
	if (uri.n <= n || !span_case_is((struct span){uri.at, n}, scheme))
		return false;
	*rest = span_from(uri, n);
	return true;
}

/* Nothing that would have to be encoded, or that could end a header or a command. */
static bool is_plain(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.at[i] <= ' ' || s.at[i] > '~' || strchr("\"<>\\^`{|}", s.at[i]) != NULL)
			return false;
	return s.n > 0 && s.n <= 1000;
}

static bool is_host(struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		bool letter = (s.at[i] >= '0' && s.at[i] <= '9') || ((s.at[i] | 32) >= 'a' && (s.at[i] | 32) <= 'z') || s.at[i] == '-';
		if (!letter && (s.at[i] != '.' || i == 0 || i + 1 == s.n || s.at[i - 1] == '.'))
			return false;
	}
	return s.n > 0 && s.n <= 253;
}

bool tlsrpt_next(struct span *rua, enum rua_kind *kind, struct span *address, struct span *host)
{
	while (rua->n > 0) {
		struct span uri = span_trim(span_until(rua, ',')), rest;
		if (!is_plain(uri))
			continue;
		if (take_scheme(uri, "mailto:", &rest)) {
			*kind = RUA_MAIL;
			*address = span_until(&rest, '?');
			if (address->n > 0 && address->n <= 254 && memchr(address->at, '@', address->n) != NULL && memchr(address->at, '%', address->n) == NULL)
				return true;
		} else if (take_scheme(uri, "https://", &rest)) {
			size_t n = 0;
			while (n < rest.n && strchr("/?#", rest.at[n]) == NULL)
				n++;
			*kind = RUA_HTTPS;
			*address = uri;
			*host = (struct span){rest.at, n};
			if (is_host(*host)) /* no user, no port but 443 */
				return true;
		}
	}
	return false;
}
