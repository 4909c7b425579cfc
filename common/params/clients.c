/* Lists of clients, and how much of something a client may have in a time. */
#include "params/params.h"
#include "smtp/smtp.h"

#include <stdlib.h>
#include <string.h>

/* Leading one-bits of a mask; 129 when ones follow zeros. */
static unsigned mask_bits(const unsigned char *mask, size_t n)
{
	unsigned bits = 0;
	while (bits < n * 8 && (mask[bits / 8] >> (7 - bits % 8) & 1) != 0)
		bits++;
	for (unsigned i = bits; i < n * 8; i++)
		if ((mask[i / 8] >> (7 - i % 8) & 1) != 0)
			return 129;
	return bits;
}

static int parse_mask(struct span word, struct client_mask *out)
{
	struct span host = span_until(&word, '/');
	struct sockaddr_storage sa, mask;
	socklen_t n;
	uint64_t bits;
	if (literal_to_sockaddr(host, 0, &sa, &n) != 0 || sockaddr_to_v6((struct sockaddr *)&sa, out->addr) != 0)
		return EINVAL;
	unsigned width = sa.ss_family == AF_INET ? 32 : 128;
	if (word.n == 0) {
		bits = width;
	} else if (parse_u64(word, width, &bits) != 0) {
		if (width != 32 || literal_to_sockaddr(word, 0, &mask, &n) != 0 || mask.ss_family != AF_INET)
			return EINVAL;
		bits = mask_bits((const unsigned char *)&((struct sockaddr_in *)&mask)->sin_addr, 4);
		if (bits > 32)
			return EINVAL;
	}
	out->bits = (unsigned)bits + 128 - width;
	return 0;
}

static int add_mask(struct client_list *l, const struct client_mask *m)
{
	struct client_mask *more = realloc(l->masks, (l->n + 1) * sizeof *more);
	if (more == NULL)
		return ENOMEM;
	l->masks = more;
	more[l->n++] = *m;
	return 0;
}

static int add_name(struct client_list *l, struct span name)
{
	char **more = realloc(l->names, (l->names_n + 1) * sizeof *more);
	if (more == NULL)
		return ENOMEM;
	l->names = more;
	more[l->names_n] = span_dup(name);
	if (more[l->names_n] == NULL)
		return ENOMEM;
	l->names_n++;
	return 0;
}

static int add_word(struct client_list *l, struct span word)
{
	struct client_mask mask;
	if (parse_mask(word, &mask) == 0)
		return add_mask(l, &mask);
	if (word.at[0] == '[' || !domain_is_valid(word, false) || name_looks_like_address(word))
		return EINVAL;
	return add_name(l, word);
}

int client_list_parse(struct span text, struct client_list *out, struct span *bad)
{
	struct client_list l = {0};
	for (;;) {
		struct span word = span_word(&text, " \t,");
		if (word.n == 0)
			break;
		int error = add_word(&l, word);
		if (error != 0) {
			*bad = word;
			client_list_free(&l);
			return error;
		}
	}
	*out = l;
	return 0;
}

static bool mask_fits(const struct client_mask *m, const unsigned char addr[16])
{
	unsigned whole = m->bits / 8, rest = m->bits % 8;
	if (memcmp(m->addr, addr, whole) != 0)
		return false;
	return rest == 0 || ((m->addr[whole] ^ addr[whole]) >> (8 - rest)) == 0;
}

bool client_list_has(const struct client_list *l, const struct sockaddr *client)
{
	unsigned char addr[16];
	if (sockaddr_to_v6(client, addr) != 0)
		return false;
	for (size_t i = 0; i < l->n; i++)
		if (mask_fits(&l->masks[i], addr))
			return true;
	return false;
}

bool client_list_has_name(const struct client_list *l, struct span name)
{
	for (size_t i = 0; i < l->names_n; i++) {
		struct span end = span_of(l->names[i]);
		if (span_ends_case(name, end) && (name.n == end.n || name.at[name.n - end.n - 1] == '.'))
			return true;
	}
	return false;
}

void client_list_free(struct client_list *l)
{
	for (size_t i = 0; i < l->names_n; i++)
		free(l->names[i]);
	free(l->names);
	free(l->masks);
	*l = (struct client_list){0};
}

int client_list_replace(struct client_list *l, const char *text)
{
	struct client_list fresh;
	struct span bad;
	int error = client_list_parse(span_of(text), &fresh, &bad);
	if (error != 0)
		return error;
	client_list_free(l);
	*l = fresh;
	return 0;
}

int rate_parse(struct span text, struct rate *out)
{
	struct span number = span_until(&text, '/');
	char time[32];
	uint64_t n;
	int64_t seconds;
	if (text.n == 0 && span_is(number, "unlimited")) {
		*out = (struct rate){.n = PARAM_UNLIMITED, .seconds = 1};
		return 0;
	}
	bool bare = text.n == 1 && (text.at[0] < '0' || text.at[0] > '9'); /* "5/m" */
	int length = snprintf(time, sizeof time, "%s%.*s", bare ? "1" : "", SPAN_ARG(text));
	if (length >= (int)sizeof time || parse_u64(number, 1000000000, &n) != 0 || n == 0 || parse_duration(span_of(time), &seconds) != 0 || seconds < 1 || seconds > 604800)
		return EINVAL;
	*out = (struct rate){.n = (int64_t)n, .seconds = seconds};
	return 0;
}
