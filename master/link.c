/* Who talks to whom. */
#include "master.h"

#include <fcntl.h>
#include <unistd.h>

static const struct relation {
	enum role a, b;
} relations[] = {
	{R_FRONT, R_SMTPD}, {R_SMTPD, R_CLEANUP}, {R_SMTPD, R_MOVER}, {R_PICKUP, R_CLEANUP}, {R_PICKUP, R_MOVER},
	{R_BOUNCE, R_CLEANUP}, {R_BOUNCE, R_MOVER}, {R_CLEANUP, R_MOVER}, {R_CLEANUP, R_QMGR}, {R_QMGR, R_MOVER}, {R_QMGR, R_SMTP},
	{R_QMGR, R_DROP}, {R_QMGR, R_BOUNCE}, {R_SMTP, R_RESOLVER}, {R_SMTP, R_STS}, {R_CONTROL, R_STS}, {R_STS, R_RESOLVER}, {R_STS, R_KEYD}, {R_SMTPD, R_STS}, {R_SMTPD, R_RESOLVER}, {R_CONTROL, R_QMGR}, {R_CONTROL, R_RESOLVER}, {R_QMGR, R_LOCAL}, {R_LOCAL, R_DELIVER},
	{R_SMTPD, R_AUTHD}, {R_SMTPD, R_KEYD}, {R_SMTP, R_AUTHD}, {R_AUTHD, R_PAMD}, {R_AUTHD, R_GSSD}, {R_AUTHD, R_GSSC}, {R_GSSC, R_RESOLVER}, {R_AUTHD, R_MAPS}, {R_AUTHD, R_FRONT}, {R_SMTPD, R_MAPS}, {R_PICKUP, R_MAPS}, {R_SMTPD, R_QMGR}, {R_LOCAL, R_MAPS}, {R_CONTROL, R_MAPS},
};

static bool related(const struct child *x, const struct child *y)
{
	/* processes of two different queues never meet */
	if (x->server != NO_SERVER && y->server != NO_SERVER && x->server != y->server)
		return false;
	if (y->role == R_LOGD && x->role != R_LOGD)
		return true;
	for (size_t i = 0; i < COUNT_OF(relations); i++)
		if (relations[i].a == x->role && relations[i].b == y->role)
			return true;
	return false;
}

static void tell(struct child *to, const struct child *about, uint32_t server, int fd)
{
	send_link(to->channel, (struct msg_link){.role = (uint32_t)about->role, .instance = about->instance,
		.server = server, .pid = (uint32_t)about->pid}, fd);
}

static void link_pair(struct child *x, struct child *y)
{
	int ends[2];
	uint32_t server = x->server != NO_SERVER ? x->server : y->server;
	if (channel_pair(ends) != 0)
		return;
	tell(x, y, server, ends[0]);
	tell(y, x, server, ends[1]);
}

static void own_log_gone(struct channel *ch, int reason)
{
	struct master *m = ch->program;
	(void)reason;
	if (m->log.channel == ch)
		m->log.channel = NULL;
}

static void link_own_log(struct master *m, struct child *logd)
{
	int ends[2];
	static const struct channel_owner to_logd = {.gone = own_log_gone};
	struct child self = {.role = R_MASTER, .pid = getpid()};
	if (channel_pair(ends) != 0)
		return;
	channel_close(m->log.channel);
	m->log.channel = channel_make(m->base, ends[0], R_MASTER, R_LOGD, &to_logd, m);
	tell(logd, &self, NO_SERVER, ends[1]);
}

void master_link_own_log(struct master *m)
{
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->role == R_LOGD && c->channel != NULL)
			link_own_log(m, c);
}

void master_link_child(struct master *m, struct child *c)
{
	if (c->role == R_LOGD)
		link_own_log(m, c);
	for (struct child *o = m->children; o != NULL; o = o->next)
		if (o != c && o->role == R_LOGD && o->channel != NULL && c->role != R_LOGD)
			link_pair(c, o);
	if (c->role == R_KEYD || c->role == R_AUTHD || c->role == R_SMTPD || c->role == R_GSSD) /* after the log, which may have to hear of them; before those who want them */
		master_send_secrets(m, c);
	master_tell_child(m, c);
	for (struct child *o = m->children; o != NULL; o = o->next) {
		if (o == c || o->channel == NULL || o->role == R_LOGD)
			continue;
		if (related(c, o))
			link_pair(c, o);
		else if (related(o, c))
			link_pair(o, c);
	}
	for (struct child *o = m->children; o != NULL && c->role == R_FRONT; o = o->next)
		if (o->retiring)
			send_retire(c->channel, (struct msg_retire){.instance = o->instance, .limit_ms = (uint32_t)(m->config.service.upgrade_drain * 1000)}, -1);
}
