/* EXTERNAL (RFC 4422 A): the client has shown a certificate.  What the worker says of it is not taken on trust: it is verified here. */
#include "gssd.h"
#include "tls/tls.h"

#include <string.h>

enum { AUTHORITIES_MOST = 1024 * 1024 };

/* They come before authd does. */
int external_on_authorities(struct channel *c, struct message *m)
{
	HANDLE(c, m, client_authorities, said);
	struct gssd *g = c->program;
	struct buffer text;
	if (m->fds_n != 1 || said.server >= g->proc.config.servers_n)
		return EBADMSG;
	buffer_init(&text, AUTHORITIES_MOST + 1);
	int error = read_given_file(m->fds[0], AUTHORITIES_MOST, &text);
	if (error != 0) {
		LOG(&g->proc.log, authorities_bad, NO_ID, F("server", span_of(g->proc.config.servers[said.server].name)), F("file", said.file), F("reason", span_of(strerror(error))));
		buffer_free(&text);
		return 0;
	}
	buffer_free(&g->authorities[said.server]);
	g->authorities[said.server] = text;
	g->offers[said.server] |= MECHANISM_EXTERNAL;
	return 0;
}

/* Itself, with or without the domain that names without one have. */
static bool is_itself(const struct talk *t, struct span wanted)
{
	const char *domain = t->gssd->proc.config.servers[t->server].p.auth_default_domain;
	struct span bare = wanted, name = span_until(&bare, '@');
	return wanted.n == 0 || span_case_is(wanted, t->name) || (strchr(t->name, '@') == NULL && span_case_is(name, t->name) && span_case_is(bare, domain));
}

/* The response is whom the client wants to be. */
void external_step(struct talk *t, bool first, struct span response)
{
	char name[TLS_CLIENT_NAME];
	if (first)
		talk_answer(t, INTEGRATED_GOES_ON, (struct span){"", 0});
	else if (tls_client_name(buffer_span(&t->certificates), buffer_span(&t->gssd->authorities[t->server]), name) != 0 || !talk_take_name(t, span_of(name)))
		talk_finish(t, INTEGRATED_BAD, "no certificate of tls_client_ca_file's authorities, or no name in it");
	else if (!is_itself(t, response))
		talk_finish(t, INTEGRATED_BAD, "the certificate is another's");
	else
		talk_finish(t, INTEGRATED_GOOD, t->name);
}
