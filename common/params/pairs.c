/* Certificates and keys as parameters name them (MISSION C7). */
#include "params/params.h"
#include "smtp/smtp.h"

#include <stdio.h>
#include <string.h>

bool path_is_plain(struct span s)
{
	return s.n > 1 && s.n < 900 && s.at[0] == '/';
}

bool pairs_next(struct span *rest, struct pair_files *out, bool *bad)
{
	struct span word = span_word(rest, " \t,");
	*bad = false;
	if (word.n == 0)
		return false;
	struct span name = span_until(&word, '=');
	const char *colon = memrchr(word.at, ':', word.n);
	if (colon != NULL)
		*out = (struct pair_files){name, {word.at, (size_t)(colon - word.at)}, {colon + 1, (size_t)(word.at + word.n - colon) - 1}};
	bool wild = name.n > 2 && name.at[0] == '*' && name.at[1] == '.';
	*bad = colon == NULL || !path_is_plain(out->certificate) || !path_is_plain(out->key) || !domain_is_valid(span_from(name, wild ? 2 : 0), false);
	return !*bad;
}

bool server_pair_next(const struct server *s, struct pair_walk *w, struct pair_files *out)
{
	bool bad, first = !w->begun;
	if (first)
		*w = (struct pair_walk){span_of(s->p.tls_certificate_file), span_of(s->p.tls_key_file), span_of(s->p.tls_sni), true};
	struct span certificate = span_word(&w->certificates, " \t,"), key = span_word(&w->keys, " \t,");
	if (certificate.n > 0 || first) {
		*out = (struct pair_files){{"", 0}, certificate, key};
		return true;
	}
	return pairs_next(&w->sni, out, &bad);
}

void server_pair_path(const struct server *s, const struct pair_files *f, const char *dir, const char *kind, char path[PAIR_PATH])
{
	struct span file = strcmp(kind, "key") == 0 ? f->key : f->certificate;
	if (file.n > 0)
		(void)snprintf(path, PAIR_PATH, "%.*s", SPAN_ARG(file));
	else
		(void)snprintf(path, PAIR_PATH, "%s/state/%s.%s", dir, s->name, kind);
}
