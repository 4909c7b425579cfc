/* CRAM-MD5 (RFC 2195), for old clients: libgsasl would want the password itself. */
#include "authd.h"

#include <stdio.h>
#include <string.h>

enum { EXTRA_CRAM_MD5 = 2 };

uint32_t cram_offers(const struct authd *a, size_t server)
{
	bool of_file = strcmp(a->proc.config.servers[server].p.auth_backend, "file") == 0;
	return of_file && (a->proc.config.servers[server].p.auth_mechanisms_extra & EXTRA_CRAM_MD5) != 0 && a->servers[server].file.n > 0 ? MECHANISM_CRAM_MD5 : 0;
}

static void begin(struct login *l)
{
	unsigned char lot[16];
	char hex[2 * sizeof lot + 1];
	if (fill_random(lot, sizeof lot) != 0) {
		login_failed(l);
		return;
	}
	for (size_t i = 0; i < sizeof lot; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", lot[i]);
	(void)snprintf(l->challenge, sizeof l->challenge, "<%s.%lld@%s>", hex, (long long)(clock_wall_us() / 1000000), l->authd->proc.config.servers[l->server].p.fqdn);
	l->first = false;
	login_challenge(l, span_of(l->challenge));
}

/* "NAME DIGEST": a name may have blanks, as others take it; here none has. */
void cram_step(struct login *l)
{
	char name[PASSWD_NAME_MOST + 1];
	struct span rest = buffer_span(&l->response), who = span_until(&rest, ' ');
	const char *which;
	if (l->first) {
		begin(l);
		return;
	}
	if (l->challenge[0] == '\0') { /* RFC 4954 4: the server has the first word */
		login_refuse(l, "words before the challenge");
		return;
	}
	bool named = who.n > 0 && who.n < sizeof name && memchr(who.at, '\0', who.n) == NULL;
	(void)snprintf(name, sizeof name, "%.*s", named ? (int)who.n : 0, who.at);
	named = named && sasl_take_name(l, name) == 0;
	const struct passwd_row *row = named && !failures_over(l, &which) ? passwd_find(&l->authd->servers[l->server].file, span_of(l->name)) : NULL;
	if (cram_verify(row == NULL ? (struct span){"", 0} : row->cram, span_of(l->challenge), rest))
		login_accept(l);
	else
		login_refuse(l, "nobody of that name, without CRAM-MD5, or another password");
}
