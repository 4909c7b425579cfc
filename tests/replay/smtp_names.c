#include "smtp_names.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum dns_status replay_put_records(enum dns_kind kind, struct span value, struct buffer *out)
{
	static const struct { const char *word; enum dns_status status; } words[] = {
		{"nxdomain", DNS_NXDOMAIN}, {"nodata", DNS_NODATA}, {"tempfail", DNS_TEMPFAIL}, {"bogus", DNS_BOGUS}};
	for (size_t i = 0; i < COUNT_OF(words); i++)
		if (span_is(value, words[i].word))
			return words[i].status;
	for (struct span word; (word = span_word(&value, " ")).n > 0;) {
		char raw[16], text[64];
		uint64_t preference;
		(void)snprintf(text, sizeof text, "%.*s", SPAN_ARG(word));
		if (kind == DNS_MX) {
			struct span host = span_word(&value, " ");
			if (span_is(host, "."))
				host.n = 0;
			if (parse_u64(word, 65535, &preference) == 0)
				dns_put_mx(out, &(struct dns_mx){.preference = (uint32_t)preference, .host = host});
		} else if (inet_pton(kind == DNS_A ? AF_INET : AF_INET6, text, raw) == 1) {
			buffer_put_lspan(out, (struct span){raw, kind == DNS_A ? 4 : 16});
		}
	}
	return DNS_OK;
}

bool replay_take_key(struct span word, const char *key, struct span *value)
{
	size_t n = strlen(key);
	if (word.n < n || memcmp(word.at, key, n) != 0)
		return false;
	*value = (struct span){word.at + n, word.n - n};
	return true;
}
