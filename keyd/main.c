/* keyd: signs TLS handshakes.
 * User: posthorn-key.
 * May: read the certificates and keys whose files master opens for it; talk to smtpd, and tell sts the certificates.
 * Never: give out a key; sign what is no line of a server's handshake; open a file; use the network. */
#include "keyd.h"

#include <openssl/rand.h>
#include <string.h>
#include <sysexits.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct keyd keyd;
static const struct confinement rights = {.user_suffix = "key", .calls = 0, .files = 1024};

static void peer_gone(struct channel *ch, int reason)
{
	struct keyd *k = ch->program;
	struct channel **p = &k->workers;
	(void)reason;
	while (*p != NULL && *p != ch)
		p = &(*p)->next;
	if (*p != NULL)
		*p = ch->next;
}

static const struct channel_owner owner = {.handlers = {[MSG_sign] = sign_on_request}, .gone = peer_gone};

/* Master sends the pairs before it links anybody: a worker's first question finds them. */
static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct keyd *k = p->program;
	struct channel *ch = channel_make(p->base, fd, R_KEYD, role, &owner, k);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	ch->next = k->workers;
	k->workers = ch;
	if (role == R_SMTPD)
		tickets_offer(k, ch);
	pairs_offer(k, ch);
}

int main(void)
{
	struct complaint why;
	struct keyd *k = &keyd;
	static const struct timeval day = {.tv_sec = 86400};
	unsigned char warm[1];
	if (proc_begin(&k->proc, R_KEYD, &why) != 0)
		return proc_fail(&k->proc, EX_CONFIG, &why);
	k->proc.program = k;
	k->proc.linked = linked;
	k->fresh_end = &k->fresh;
	proc_handle(&k->proc, MSG_key_pair, pairs_on_pair);
	proc_handle(&k->proc, MSG_keys_end, pairs_on_end);
	k->daily = event_new(k->proc.base, -1, EV_PERSIST, pairs_look_at_dates, k);
	k->forget = event_new(k->proc.base, -1, 0, pairs_forget, k);
	int error = k->daily == NULL || k->forget == NULL || event_add(k->daily, &day) != 0 ? ENOMEM : tickets_begin(k);
	(void)RAND_bytes(warm, sizeof warm); /* what OpenSSL loads is loaded before the confinement */
	if (error != 0) {
		complain(&why, "keyd", 0, "cannot start: %s", strerror(error));
		return proc_fail(&k->proc, EX_OSERR, &why);
	}
	if (proc_confine(&k->proc, &rights, NULL, 0, NULL, &why) != 0)
		return proc_fail(&k->proc, EX_OSERR, &why);
	return proc_run(&k->proc);
}
