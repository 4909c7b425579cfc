/* pickup: makes messages of the files in Pickup and maildrop.
 * User: posthorn-pick.
 * May: read, rename and unlink files in those two directories; write into Badmail; talk to cleanup, mover and maps.
 * Never: use the network. */
#include "pickup.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct pickup pickup;
static const struct confinement rights = {.user_suffix = "pick", .in_setgid_group = true, .calls = CALLS_FILES | CALLS_WRITE | CALLS_RENAME | CALLS_INOTIFY, .files = 1024};

static void peer_gone(struct channel *ch, int reason)
{
	struct pickup *p = ch->program;
	(void)reason;
	if (p->cleanup == ch)
		p->cleanup = NULL;
	if (p->mover == ch) {
		p->mover = NULL;
		submit_mover_gone(p);
	}
	if (p->maps == ch)
		p->maps = NULL;
}

static const struct channel_owner owner = {
	.handlers = {[MSG_submitted] = submit_on_submitted, [MSG_body_credit] = submit_on_credit, [MSG_body_done] = submit_on_body_done, [MSG_map_answer] = screen_on_answer},
	.gone = peer_gone,
};

static void linked(struct process *proc, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct pickup *p = proc->program;
	struct channel *ch = channel_make(proc->base, fd, R_PICKUP, role, &owner, p);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	struct channel **place = role == R_CLEANUP ? &p->cleanup : role == R_MAPS ? &p->maps : &p->mover;
	if (place == &p->mover && *place != NULL)
		submit_mover_gone(p);
	channel_close(*place);
	*place = ch;
	submit_again(p);
}

static void on_notified(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	scan_notified(context);
}

static void on_rescan(int fd, short what, void *context)
{
	struct pickup *p = context;
	(void)fd;
	(void)what;
	bool left = p->left_ms != 0 && clock_mono_ms() >= p->left_ms;
	if (left)
		p->left_ms = 0;
	for (size_t i = 0; i < p->places_n; i++) {
		if (left)
			scan_leftovers(p, &p->places[i]);
		scan_place(p, &p->places[i], true);
	}
}

static void on_more(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	scan_more(context);
}

static void on_again(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	submit_again(context);
}

static void reloaded(struct process *proc, const struct config *old)
{
	struct pickup *p = proc->program;
	(void)old;
	struct server *s = config_server(&proc->config, span_of(proc->server));
	if (s != NULL)
		p->server = s;
}

static void add_place(struct pickup *p, const char *name, bool maildrop)
{
	int fd = proc_fd(&p->proc, name);
	if (fd >= 0)
		p->places[p->places_n++] = (struct place){.fd = fd, .maildrop = maildrop, .taken_fd = -1};
}

int main(void)
{
	struct complaint why;
	struct pickup *p = &pickup;
	struct timeval period = {.tv_sec = RESCAN_S};
	if (proc_begin(&p->proc, R_PICKUP, &why) != 0)
		return proc_fail(&p->proc, EX_CONFIG, &why);
	p->proc.program = p;
	p->proc.linked = linked;
	p->proc.reloaded = reloaded;
	p->server = config_server(&p->proc.config, span_of(p->proc.server));
	(void)snprintf(p->ids.suffix, sizeof p->ids.suffix, "%.6s", p->proc.suffix);
	add_place(p, "pickup", false);
	add_place(p, "maildrop", true);
	p->badmail_fd = proc_fd(&p->proc, "badmail");
	tzset();
	int error = p->server == NULL ? ENOENT : scan_begin(p);
	p->notified = event_new(p->proc.base, p->inotify_fd, EV_READ | EV_PERSIST, on_notified, p);
	p->rescan = event_new(p->proc.base, -1, EV_PERSIST, on_rescan, p);
	p->again = event_new(p->proc.base, -1, 0, on_again, p);
	p->more = event_new(p->proc.base, -1, 0, on_more, p);
	if (error != 0 || p->notified == NULL || p->rescan == NULL || p->again == NULL || p->more == NULL ||
		event_add(p->notified, NULL) != 0 || event_add(p->rescan, &period) != 0) {
		complain(&why, "Pickup", 0, "cannot be watched: %s", strerror(error));
		return proc_fail(&p->proc, EX_OSERR, &why);
	}
	struct path_rule paths[3] = {{p->badmail_fd, PATH_READ | PATH_WRITE}};
	size_t n = 1;
	for (size_t i = 0; i < p->places_n; i++)
		paths[n++] = (struct path_rule){p->places[i].fd, PATH_READ | PATH_WRITE};
	if (proc_confine(&p->proc, &rights, paths, n, NULL, &why) != 0)
		return proc_fail(&p->proc, EX_OSERR, &why);
	error = scan_make_taken(p);
	if (error != 0) {
		complain(&why, "Pickup", 0, "cannot make .taken: %s", strerror(error));
		return proc_fail(&p->proc, EX_CANTCREAT, &why);
	}
	for (size_t i = 0; i < p->places_n; i++)
		scan_leftovers(p, &p->places[i]);
	return proc_run(&p->proc);
}
