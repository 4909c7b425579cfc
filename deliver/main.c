/* deliver: starts what runs as a user of this machine, one process a delivery; tells how it ended.
 * User: root, with the capabilities to become another user and to end what runs as one.
 * May: fork; in the new process ask the user table, become the recipient, run libexec/child; become alias_user, run libexec/expand.
 * Never: read a message, a home, a file of a user, anything of what a delivery says but its words, which it hands on. */
#include "deliver.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct deliver deliver;
static const struct confinement rights = {.files = 1024};

static void free_run(struct run *r)
{
	struct run **p = &r->deliver->runs;
	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	if (r->readable != NULL)
		event_free(r->readable);
	if (r->limit != NULL)
		event_free(r->limit);
	if (r->words_fd >= 0)
		(void)close(r->words_fd);
	if (r->addresses_fd >= 0)
		(void)close(r->addresses_fd);
	buffer_free(&r->words);
	free(r);
}

/* It has ended: what it said is here, whoever else may hold the other end. */
static void settle(struct run *r)
{
	bool signaled = WIFSIGNALED(r->status);
	if (r->local != NULL) {
		send_ran(r->local, (struct msg_ran){.job = r->job, .how = r->late ? RUN_LATE : signaled ? RUN_SIGNAL : RUN_EXITED,
			.status = (uint32_t)(signaled ? WTERMSIG(r->status) : WEXITSTATUS(r->status)), .words = buffer_span(&r->words)}, r->addresses_fd);
		r->addresses_fd = -1;
	}
	free_run(r);
}

/* 0: nothing more for now, or for ever. */
static ssize_t take_words(struct run *r)
{
	char bytes[WORDS_MOST];
	ssize_t n = read(r->words_fd, bytes, sizeof bytes);
	size_t room = WORDS_MOST - r->words.n;
	if (n > 0)
		buffer_put(&r->words, bytes, (size_t)n < room ? (size_t)n : room);
	else if (n == 0)
		(void)event_del(r->readable);
	return n > 0 ? n : 0;
}

static void on_words(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	(void)take_words(context);
}

static void on_limit(int fd, short what, void *context)
{
	struct run *r = context;
	(void)fd;
	(void)what;
	r->late = true;
	LOG(&r->deliver->proc.log, ended_late, NO_ID, F("server", span_of(r->deliver->proc.config.servers[r->server].name)));
	(void)kill(-r->pid, SIGKILL);
	(void)kill(r->pid, SIGKILL);
}

static void on_child_ended(int fd, short what, void *context)
{
	struct deliver *d = context;
	int status;
	pid_t pid;
	(void)fd;
	(void)what;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct run *r = d->runs;
		while (r != NULL && r->pid != pid)
			r = r->next;
		if (r == NULL)
			continue;
		r->status = status;
		(void)kill(-pid, SIGKILL); /* what it left behind in its session */
		for (unsigned i = 0; i < WORDS_MOST && take_words(r) > 0; i++)
			;
		settle(r);
	}
}

static bool copy_name(struct span s, char out[USER_MOST + 1])
{
	if (s.n > USER_MOST)
		return false;
	memcpy(out, s.at, s.n);
	out[s.n] = '\0';
	return true;
}

/* Memory of a fixed size that whoever runs can fill and not make larger. */
static int make_addresses(int *fd)
{
	*fd = memfd_create("posthorn-addresses", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0)
		return errno;
	if (ftruncate(*fd, RUN_ADDRESSES) == 0 && fcntl(*fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0)
		return 0;
	int error = errno;
	(void)close(*fd);
	return error;
}

static struct run *make_run(struct deliver *d, struct channel *ch, uint64_t job, uint32_t limit_s, int words_fd)
{
	struct run *r = calloc(1, sizeof *r);
	struct timeval tv = {.tv_sec = limit_s};
	if (r == NULL)
		return NULL;
	*r = (struct run){.job = job, .local = ch, .server = ch->server, .words_fd = words_fd, .addresses_fd = -1, .deliver = d, .next = d->runs};
	d->runs = r;
	buffer_init(&r->words, WORDS_MOST);
	r->readable = event_new(d->proc.base, words_fd, EV_READ | EV_PERSIST, on_words, r);
	r->limit = event_new(d->proc.base, -1, 0, on_limit, r);
	if (r->readable != NULL && r->limit != NULL && event_add(r->readable, NULL) == 0 && event_add(r->limit, &tv) == 0)
		return r;
	r->words_fd = -1;
	free_run(r);
	return NULL;
}

/* 0 or errno. */
static int start(struct deliver *d, struct channel *ch, const struct request *q, const int fds[2])
{
	int words[2];
	if (pipe2(words, O_CLOEXEC | O_NONBLOCK) != 0)
		return errno;
	struct run *r = make_run(d, ch, q->job, (uint32_t)q->params->local_time_limit, words[0]);
	if (r == NULL) {
		(void)close(words[0]);
		(void)close(words[1]);
		return ENOMEM;
	}
	int error = make_addresses(&r->addresses_fd);
	pid_t pid = error == 0 ? fork() : -1;
	if (error == 0 && pid < 0)
		error = errno;
	if (error == 0 && pid == 0) {
		(void)fcntl(words[1], F_SETFL, 0);
		spawn_become(d, q, (const int[]){fds[0], fds[1], words[1], r->addresses_fd});
	}
	(void)close(words[1]);
	r->pid = pid;
	if (error != 0)
		free_run(r);
	return error;
}

static int on_run_as(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, run_as, run);
	struct deliver *d = ch->program;
	const struct server *s = &d->proc.config.servers[ch->server];
	if (run.kind > RUN_ALIAS)
		return EBADMSG;
	struct request q = {.job = run.job, .kind = (enum run_kind)run.kind, .alias_user = s->p.alias_user, .params = local_of(s, server_domain(s, run.domain)), .uid_min = s->p.local_uid_min};
	if (m->fds_n != 2 || !copy_name(run.user, q.user) || !copy_name(run.base, q.base))
		return EBADMSG;
	int error = delivery_parse(span_of(q.params->local_delivery), &q.how);
	if (error == 0 && q.kind != RUN_ALIAS && (q.how.kind == DELIVERY_DROP || q.how.kind == DELIVERY_LMTP))
		error = EINVAL; /* changed by a reload meanwhile */
	if (error == 0)
		error = start(d, ch, &q, m->fds);
	if (error != 0) {
		LOG(&d->proc.log, not_started, NO_ID, F("reason", span_of(strerror(error))));
		send_ran(ch, (struct msg_ran){.job = run.job, .how = RUN_NOT, .status = (uint32_t)error}, -1);
	}
	return 0;
}

/* Who asked is gone: nobody will hear how it ends, so that it is tried again; it does not go on beside that. */
static void peer_gone(struct channel *ch, int reason)
{
	struct deliver *d = ch->program;
	(void)reason;
	for (struct run *r = d->runs; r != NULL; r = r->next) {
		if (r->local != ch)
			continue;
		r->local = NULL;
		(void)kill(-r->pid, SIGKILL);
		(void)kill(r->pid, SIGKILL);
	}
}

static const struct channel_owner owner = {.handlers = {[MSG_run_as] = on_run_as}, .gone = peer_gone};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct channel *ch = server >= p->config.servers_n ? NULL : channel_make(p->base, fd, R_DELIVER, role, &owner, p->program);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
}

static int open_program(const char *name)
{
	char path[4200];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 10);
	path[n > 0 ? n : 0] = '\0';
	char *slash = strrchr(path, '/');
	(void)snprintf(slash == NULL ? path : slash + 1, 10, "%s", name);
	return open(path, O_PATH | O_CLOEXEC);
}

int main(void)
{
	struct complaint why;
	struct deliver *d = &deliver;
	if (proc_begin(&d->proc, R_DELIVER, &why) != 0)
		return proc_fail(&d->proc, EX_CONFIG, &why);
	d->proc.program = d;
	d->proc.linked = linked;
	d->root = (d->proc.flags & PROC_ROOT) != 0;
	d->child_fd = open_program("child");
	d->expand_fd = open_program("expand");
	d->child_ended = evsignal_new(d->proc.base, SIGCHLD, on_child_ended, d);
	if (d->child_fd < 0 || d->expand_fd < 0 || d->child_ended == NULL || event_add(d->child_ended, NULL) != 0) {
		complain(&why, "deliver", 0, "libexec/child or libexec/expand cannot be opened: %s", strerror(errno));
		return proc_fail(&d->proc, EX_OSFILE, &why);
	}
	if (proc_confine_root(&d->proc, &rights, &why) != 0)
		return proc_fail(&d->proc, EX_OSERR, &why);
	return proc_run(&d->proc);
}
