/* local: delivers to users of this machine; deliver runs what must run as them.
 * User: posthorn-loc.
 * May: make memory files; talk to qmgr, maps, deliver, logd.
 * Never: open a file, use the network, become another user. */
#include "local.h"

#include <sysexits.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct local local;
static const struct confinement rights = {.user_suffix = "loc", .calls = CALLS_MEMFD, .files = 4096};

static void peer_gone(struct channel *ch, int reason)
{
	struct local *l = ch->program;
	(void)reason;
	if (ch == l->qmgr) {
		l->qmgr = NULL;
		job_drop_parts(l);
	}
	if (ch == l->maps) {
		l->maps = NULL;
		job_maps_gone(l);
	}
	if (ch == l->deliver) {
		l->deliver = NULL;
		job_deliver_gone(l);
	}
}

static const struct channel_owner owner = {
	.handlers = {[MSG_deliver] = job_on_deliver, [MSG_content_part] = job_on_part, [MSG_confirm] = job_on_confirm, [MSG_ran] = job_on_ran,
		[MSG_map_answer] = job_on_answer},
	.gone = peer_gone,
};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct local *l = p->program;
	struct channel *ch = channel_make(p->base, fd, R_LOCAL, role, &owner, l);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	struct channel **place = role == R_DELIVER ? &l->deliver : role == R_MAPS ? &l->maps : &l->qmgr;
	struct channel *old = *place;
	if (old != NULL) /* its successor came before the word that it is gone */
		peer_gone(old, 0);
	channel_close(old);
	*place = ch;
	if (role == R_DELIVER || role == R_MAPS)
		job_deliver_back(l);
	else
		job_tell_again(l);
}

static void reloaded(struct process *p, const struct config *old)
{
	struct local *l = p->program;
	(void)old;
	struct server *s = config_server(&p->config, span_of(p->server));
	if (s != NULL)
		l->server = s;
	l->server_index = s == NULL ? 0 : (uint32_t)(s - p->config.servers);
}

int main(void)
{
	struct complaint why;
	struct local *l = &local;
	if (proc_begin(&l->proc, R_LOCAL, &why) != 0)
		return proc_fail(&l->proc, EX_CONFIG, &why);
	l->proc.program = l;
	l->proc.linked = linked;
	l->proc.reloaded = reloaded;
	l->server = config_server(&l->proc.config, span_of(l->proc.server));
	l->server_index = l->server == NULL ? 0 : (uint32_t)(l->server - l->proc.config.servers);
	if (l->server == NULL || proc_confine(&l->proc, &rights, NULL, 0, NULL, &why) != 0)
		return proc_fail(&l->proc, EX_OSERR, &why);
	return proc_run(&l->proc);
}
