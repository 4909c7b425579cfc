#include "keyd.h"

#include <string.h>

static EVP_PKEY *key_of(const struct pair *list, struct span id)
{
	for (const struct pair *p = list; p != NULL; p = p->next)
		if (id.n == TLS_KEY_ID && memcmp(p->id, id.at, TLS_KEY_ID) == 0)
			return p->key;
	return NULL;
}

int sign_on_request(struct channel *c, struct message *m)
{
	HANDLE(c, m, sign, s);
	struct keyd *k = c->program;
	unsigned char out[TLS_SIGNATURE];
	size_t n = 0;
	EVP_PKEY *key = key_of(k->pairs, s.key);
	if (key == NULL)
		key = key_of(k->old, s.key);
	int error = key == NULL ? ENOENT : s.scheme > UINT16_MAX ? EINVAL : tls_sign(key, (uint16_t)s.scheme, s.text, out, &n);
	if (error != 0)
		LOG(&k->proc.log, sign_refused, NO_ID, F("process", span_of(role_name(c->peer))),
			F("reason", key == NULL ? SPAN_LIT("no such key") : SPAN_LIT("not a line of a handshake that this key signs")));
	send_signed(c, (struct msg_signed){.serial = s.serial, .signature = {(const char *)out, n}}, -1);
	return 0;
}
