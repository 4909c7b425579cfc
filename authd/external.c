/* EXTERNAL (RFC 4422 A): the client has shown a certificate.  What the worker says of it is not taken on trust: it is verified here. */
#include "authd.h"
#include "tls/tls.h"

#include <string.h>

enum { AUTHORITIES_MOST = 1024 * 1024, EXTRA_EXTERNAL = 1 };

uint32_t external_offers(const struct authd *a, size_t server)
{
	return (a->proc.config.servers[server].p.auth_mechanisms_extra & EXTRA_EXTERNAL) != 0 && a->servers[server].authorities.n > 0 ? MECHANISM_EXTERNAL : 0;
}

int external_on_authorities(struct channel *c, struct message *m)
{
	HANDLE(c, m, client_authorities, said);
	struct authd *a = c->program;
	struct buffer text;
	if (m->fds_n != 1 || said.server >= a->proc.config.servers_n)
		return EBADMSG;
	buffer_init(&text, AUTHORITIES_MOST + 1);
	int error = read_given_file(m->fds[0], AUTHORITIES_MOST, &text);
	if (error != 0) {
		LOG(&a->proc.log, authorities_bad, NO_ID, F("server", span_of(a->proc.config.servers[said.server].name)), F("file", said.file), F("reason", span_of(strerror(error))));
		buffer_free(&text);
		return 0;
	}
	buffer_free(&a->servers[said.server].authorities);
	a->servers[said.server].authorities = text;
	users_offer_all(a, said.server);
	return 0;
}

void external_reloaded(struct authd *a)
{
	for (uint32_t i = 0; i < a->proc.config.servers_n; i++)
		if (a->proc.config.servers[i].p.tls_client_ca_file[0] == '\0')
			buffer_free(&a->servers[i].authorities);
}

/* The response is whom the client wants to be: itself. */
void external_step(struct login *l)
{
	char name[TLS_CLIENT_NAME];
	struct span wanted = buffer_span(&l->response);
	if (l->first) {
		l->first = false;
		login_challenge(l, (struct span){"", 0});
		return;
	}
	if (tls_client_name(buffer_span(&l->certificates), buffer_span(&l->authd->servers[l->server].authorities), name) != 0) {
		login_refuse(l, "no certificate of tls_client_ca_file's authorities, or no name in it");
		return;
	}
	if (sasl_take_name(l, name) != 0 || (wanted.n > 0 && !span_case_is(wanted, name) && !span_case_is(wanted, l->name)))
		login_refuse(l, "the certificate is another's");
	else
		login_accept(l);
}
