/* lease: takes the lease of one server's queue on shared storage, renews it, gives it back.
 * User: posthorn.
 * May: read Queue, write Queue/lease and Queue/tokens.
 * Never: touch a message, use the network. */
#include "process.h"

#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>
#include <sysexits.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct keeper keeper = {.file_fd = -1};
static const struct confinement rights = {.user_suffix = "", .calls = CALLS_FILES | CALLS_WRITE};

static void again_in(struct keeper *k, int64_t ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
	(void)event_add(k->timer, &tv);
}

static struct span number(char text[16], uint32_t v)
{
	int n = snprintf(text, 16, "%u", v);
	return (struct span){text, (size_t)n};
}

/* The server ends; nothing is written any more. */
static void lose(struct keeper *k, const char *why, const struct lease_record *who)
{
	char text[300];
	(void)snprintf(text, sizeof text, "%s%s%s", why, who == NULL ? "" : " ", who == NULL ? "" : who->node);
	k->state = KEEPER_ENDED;
	atomic_store_explicit(&k->slot->until_ms, 0, memory_order_release);
	LOG(&k->proc.log, lease_lost, NO_ID, F("server", span_of(k->proc.server)), F("reason", span_of(text)));
	send_lease_lost(k->proc.control, (struct msg_lease_lost){.why = span_of(text)}, -1);
}

static bool is_ours(const struct keeper *k, const struct lease_record *r)
{
	return r->held && r->token == k->own.token && lease_is_of(r, &k->own);
}

static void hold(struct keeper *k, int64_t since_ms)
{
	k->state = KEEPER_HOLDS;
	atomic_store_explicit(&k->slot->token, k->own.token, memory_order_release);
	atomic_store_explicit(&k->slot->until_ms, since_ms + lease_hold_ms(k->term_ms), memory_order_release);
	send_lease_taken(k->proc.control, (struct msg_lease_taken){.token = k->own.token}, -1);
	again_in(k, lease_renew_ms(k->term_ms));
}

/* After a process of this kind that has died: it holds as long as that one said, and is renewed at once. */
static void go_on(struct keeper *k)
{
	k->state = KEEPER_HOLDS;
	send_lease_taken(k->proc.control, (struct msg_lease_taken){.token = k->own.token}, -1);
	again_in(k, 0);
}

static uint64_t draw(void)
{
	uint32_t v = 1;
	(void)!fill_random(&v, sizeof v);
	return v;
}

/* Read once more just before it is written: who was faster has it. */
static void take(struct keeper *k, const struct lease_record *seen, bool alone)
{
	struct lease_record now;
	uint32_t last = 0;
	int error = file_read(k, &now);
	bool same = seen == NULL ? error == ENOENT || error == EBADMSG : error == 0 && lease_same(&now, seen);
	if (!same) {
		k->watch = (struct lease_watch){.since_ms = 0};
		again_in(k, lease_renew_ms(k->term_ms));
		return;
	}
	/* its last holder may begin at once: whoever takes it at the same time settles first, and finds out */
	bool local = alone && seen != NULL && lease_is_of(seen, &k->own);
	k->from = seen == NULL ? "new" : !seen->held ? "free" : local ? "ended-here" : "silent";
	error = seen == NULL ? file_last_token(k, &last) : 0; /* where the lease was lost tokens do not begin anew: segments go by them */
	k->own.token = (seen == NULL ? last : seen->token) + 1;
	k->own.count = draw();
	k->own.held = true;
	k->taken_ms = lease_clock_ms();
	if (error == 0)
		error = file_write(k);
	if (error != 0) {
		lose(k, strerror(error), NULL);
		return;
	}
	k->state = KEEPER_SETTLES;
	k->settled_ms = k->taken_ms + (local ? 0 : lease_settle_ms(k->term_ms));
	again_in(k, local ? 1 : lease_settle_ms(k->term_ms));
}

static void watch(struct keeper *k)
{
	struct lease_record seen;
	bool alone = false;
	int error = file_read(k, &seen);
	bool there = error == 0;
	if (error == ENOENT || error == EBADMSG)
		error = 0;
	if (error == 0)
		error = file_lock(k, &alone);
	if (error != 0) {
		lose(k, strerror(error), NULL);
		return;
	}
	struct lease_record own = k->own;
	own.token = lease_token(k->slot); /* a process before this one held it for the same processes */
	switch (lease_judge(&k->watch, there ? &seen : NULL, &own, alone, lease_clock_ms(), k->term_ms)) {
	case LEASE_TAKE:
		take(k, there ? &seen : NULL, alone);
		return;
	case LEASE_GO_ON:
		k->own = seen;
		if (lease_holds(k->slot))
			go_on(k);
		else
			lose(k, "it was not renewed in time", NULL);
		return;
	case LEASE_ELSEWHERE:
		lose(k, "its queue is held by the node", &seen);
		return;
	case LEASE_WATCH:
		if (!k->said)
			LOG(&k->proc.log, lease_watched, NO_ID, F("server", span_of(k->proc.server)), F("node", span_of(there ? seen.node : "")));
		k->said = true;
		again_in(k, lease_renew_ms(k->term_ms));
		return;
	}
}

static void settle(struct keeper *k)
{
	struct lease_record now;
	if (lease_clock_ms() < k->settled_ms) {
		again_in(k, k->settled_ms - lease_clock_ms() + 1);
		return;
	}
	int error = file_read(k, &now);
	if (error == 0 && !is_ours(k, &now)) {
		lose(k, "it was taken at the same time by the node", &now);
		return;
	}
	char text[16];
	int64_t since = lease_clock_ms();
	k->own.count++;
	if (error == 0)
		error = file_write(k);
	if (error == 0)
		error = file_note(k, clock_wall_us() / 1000000);
	if (error != 0) {
		lose(k, strerror(error), NULL);
		return;
	}
	if (lease_clock_ms() - since > lease_hold_ms(k->term_ms)) {
		lose(k, "the storage is too slow for cluster_lease_time", NULL);
		return;
	}
	LOG(&k->proc.log, lease_taken, NO_ID, F("server", span_of(k->proc.server)), F("token", number(text, k->own.token)), F("from", span_of(k->from)));
	hold(k, since);
}

/* What is over is over: others may have relied on it. */
static void renew(struct keeper *k)
{
	struct lease_record now;
	int64_t since = lease_clock_ms();
	int error = lease_holds(k->slot) ? file_read(k, &now) : ESTALE;
	if (error == ESTALE) {
		lose(k, "it was not renewed in time", NULL);
		return;
	}
	if ((error == 0 && !is_ours(k, &now)) || error == ENOENT || error == EBADMSG) {
		lose(k, error == 0 ? "it was taken by the node" : "Queue/lease was changed", error == 0 ? &now : NULL);
		return;
	}
	k->own.count++;
	if (error == 0)
		error = file_write(k);
	if (error == 0 && lease_holds(k->slot)) {
		atomic_store_explicit(&k->slot->until_ms, since + lease_hold_ms(k->term_ms), memory_order_release);
	} else {
		LOG(&k->proc.log, lease_late, NO_ID, F("server", span_of(k->proc.server)), F("reason", span_of(error == 0 ? "slow" : strerror(error))));
	}
	again_in(k, lease_renew_ms(k->term_ms));
}

static void on_timer(int fd, short what, void *context)
{
	static void (*const steps[])(struct keeper *) = {[KEEPER_WATCHES] = watch, [KEEPER_SETTLES] = settle, [KEEPER_HOLDS] = renew};
	struct keeper *k = context;
	(void)fd;
	(void)what;
	if (k->state < COUNT_OF(steps))
		steps[k->state](k);
}

/* Without a grace another process of this kind comes after it. */
static void stop(struct process *p, uint32_t grace_ms)
{
	struct keeper *k = p->program;
	struct lease_record now;
	char text[16];
	bool ours = (k->state == KEEPER_HOLDS || k->state == KEEPER_SETTLES) && file_read(k, &now) == 0 && is_ours(k, &now);
	if (grace_ms > 0 && ours) {
		atomic_store_explicit(&k->slot->until_ms, 0, memory_order_release);
		k->own.held = false;
		if (file_write(k) == 0)
			LOG(&p->log, lease_given_back, NO_ID, F("server", span_of(p->server)), F("token", number(text, k->own.token)));
	}
	k->state = KEEPER_ENDED;
	proc_done(p);
}

/* Two nodes have two host names; a node that has booted has no process from before. */
static int find_own(struct keeper *k)
{
	struct utsname u;
	struct buffer text;
	buffer_init(&text, 100);
	int error = uname(&u) != 0 ? errno : read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 100, &text);
	struct span boot = span_trim(buffer_span(&text));
	while (boot.n > 0 && boot.at[boot.n - 1] == '\n')
		boot.n--;
	if (error == 0 && (boot.n == 0 || strpbrk(u.nodename, " \t") != NULL || u.nodename[0] == '\0'))
		error = EINVAL;
	(void)snprintf(k->own.node, sizeof k->own.node, "%.64s", u.nodename);
	(void)snprintf(k->own.boot, sizeof k->own.boot, "%.*s", SPAN_ARG(boot));
	buffer_free(&text);
	return error;
}

int main(void)
{
	struct complaint why;
	struct keeper *k = &keeper;
	if (proc_begin(&k->proc, R_LEASE, &why) != 0)
		return proc_fail(&k->proc, EX_CONFIG, &why);
	k->proc.program = k;
	k->proc.stop = stop;
	k->queue_fd = proc_fd(&k->proc, "queue");
	k->slot = (struct lease_slot *)(uintptr_t)proc_own_lease(&k->proc); /* mapped to be written, here alone */
	k->timer = event_new(k->proc.base, -1, 0, on_timer, k);
	const struct server *s = config_server(&k->proc.config, span_of(k->proc.server));
	int error = k->slot == NULL || k->timer == NULL || s == NULL ? ENOMEM : find_own(k);
	if (error != 0) {
		complain(&why, "lease", 0, "cannot be looked after: %s", strerror(error));
		return proc_fail(&k->proc, EX_CONFIG, &why);
	}
	k->term_ms = s->p.cluster_lease_time * 1000;
	struct path_rule paths[] = {{k->queue_fd, PATH_READ | PATH_WRITE}};
	if (proc_confine(&k->proc, &rights, paths, COUNT_OF(paths), NULL, &why) != 0)
		return proc_fail(&k->proc, EX_OSERR, &why);
	again_in(k, 0);
	return proc_run(&k->proc);
}
