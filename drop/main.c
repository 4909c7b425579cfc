/* drop: writes messages into the Drop and Badmail directories of one server.
 * User: posthorn.
 * May: write files in the two directories, handed to it as descriptors.
 * Never: use the network, see the queue. */
#include "drop.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct drop drop;
static const struct confinement rights = {.user_suffix = "", .calls = CALLS_FILES | CALLS_WRITE | CALLS_RENAME, .files = 4096};

static void peer_gone(struct channel *ch, int reason)
{
	struct drop *d = ch->program;
	(void)reason;
	if (ch == d->qmgr)
		d->qmgr = NULL;
	while (d->gathering != NULL) {
		struct drop_job *j = d->gathering;
		d->gathering = j->next;
		drop_free_job(j);
	}
}

static const struct channel_owner owner = {
	.handlers = {[MSG_deliver] = drop_on_deliver, [MSG_badmail] = drop_on_badmail, [MSG_content_part] = drop_on_part,
		[MSG_confirm] = drop_on_confirm},
	.gone = peer_gone,
};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct drop *d = p->program;
	struct channel *ch = channel_make(p->base, fd, R_DROP, role, &owner, d);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	channel_close(d->qmgr);
	d->qmgr = ch;
	drop_tell_again(d);
}

static void on_work(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	drop_work(context);
}

static void stop(struct process *p, uint32_t grace_ms)
{
	struct drop *d = p->program;
	(void)grace_ms;
	drop_work(d);
	if (d->qmgr != NULL)
		channel_flush(d->qmgr); /* what has been delivered is known */
	proc_done(p);
}

static void reloaded(struct process *p, const struct config *old)
{
	struct drop *d = p->program;
	(void)old;
	struct server *s = config_server(&p->config, span_of(p->server));
	if (s != NULL)
		d->server = s;
}

/* Directories that local domains have of their own. */
static int open_places(struct drop *d, struct complaint *why)
{
	d->places = calloc(d->server->domains_n + 1, sizeof *d->places);
	for (size_t i = 0; d->places != NULL && i < d->server->domains_n; i++) {
		const struct domain *domain = &d->server->domains[i];
		if (domain->p.type != DOMAIN_LOCAL || strcmp(domain->p.local.drop_directory, d->server->p.local.drop_directory) == 0)
			continue;
		int fd = open(domain->p.local.drop_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0) {
			complain(why, "drop_directory", 0, "cannot open %s: %s", domain->p.local.drop_directory, strerror(errno));
			return errno;
		}
		d->places[d->places_n].fd = fd;
		d->places[d->places_n++].domain = span_dup(span_of(domain->name));
	}
	return d->places == NULL ? ENOMEM : 0;
}

static int confine(struct drop *d, struct complaint *why)
{
	struct path_rule *paths = calloc(d->places_n + 2, sizeof *paths);
	size_t n = 2;
	if (paths == NULL)
		return ENOMEM;
	paths[0] = (struct path_rule){d->drop_fd, PATH_READ | PATH_WRITE};
	paths[1] = (struct path_rule){d->badmail_fd, PATH_READ | PATH_WRITE};
	for (size_t i = 0; i < d->places_n; i++)
		paths[n++] = (struct path_rule){d->places[i].fd, PATH_READ | PATH_WRITE};
	int error = proc_confine(&d->proc, &rights, paths, n, NULL, why);
	free(paths);
	return error;
}

int main(void)
{
	struct complaint why;
	struct drop *d = &drop;
	if (proc_begin(&d->proc, R_DROP, &why) != 0)
		return proc_fail(&d->proc, EX_CONFIG, &why);
	d->proc.program = d;
	d->proc.linked = linked;
	d->proc.stop = stop;
	d->drop_fd = proc_fd(&d->proc, "drop");
	d->badmail_fd = proc_fd(&d->proc, "badmail");
	d->server = config_server(&d->proc.config, span_of(d->proc.server));
	d->proc.reloaded = reloaded;
	d->work = event_new(d->proc.base, -1, 0, on_work, d);
	if (d->server == NULL || d->work == NULL || open_places(d, &why) != 0 || confine(d, &why) != 0)
		return proc_fail(&d->proc, EX_OSERR, &why);
	return proc_run(&d->proc);
}
