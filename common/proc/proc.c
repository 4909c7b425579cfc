#include "proc/proc.h"

#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static int on_ping(struct channel *c, struct message *m)
{
	HANDLE(c, m, ping, ping);
	struct process *p = c->program;
	send_pong(c, (struct msg_pong){.serial = ping.serial, .count = p->turns}, -1);
	return 0;
}

static int on_stop(struct channel *c, struct message *m)
{
	HANDLE(c, m, stop, stop);
	struct process *p = c->program;
	if (p->stop != NULL)
		p->stop(p, stop.grace_ms);
	else
		proc_done(p);
	return 0;
}

/* Lines are counted as lost until the next logd is linked. */
static void logd_gone(struct channel *c, int reason)
{
	struct process *p = c->program;
	(void)reason;
	if (p->log.channel == c)
		p->log.channel = NULL;
}

static int on_link(struct channel *c, struct message *m)
{
	HANDLE(c, m, link, link);
	struct process *p = c->program;
	if (m->fds_n != 1)
		return EBADMSG;
	int fd = m->fds[0];
	m->fds[0] = -1;
	if (link.role == R_LOGD) {
		static const struct channel_owner to_logd = {.gone = logd_gone};
		channel_close(p->log.channel);
		p->log.channel = channel_make(p->base, fd, p->role, R_LOGD, &to_logd, p);
		if (p->log.channel != NULL)
			channel_lazy(p->log.channel, true);
		return 0;
	}
	if (p->linked == NULL) {
		(void)close(fd);
		return EPERM;
	}
	p->linked(p, (enum role)link.role, link.instance, link.server, (pid_t)link.pid, fd);
	return 0;
}

/* A configuration is a sealed memory file. */
static int read_config(int fd, struct config *out, struct complaint *why)
{
	off_t size = lseek(fd, 0, SEEK_END); /* fstat is a call that the confined do not have */
	if (size < 0 || size > 64 * 1024 * 1024)
		return EBADMSG;
	struct buffer text;
	buffer_init(&text, 64 * 1024 * 1024);
	int error = buffer_reserve(&text, (size_t)size + 1);
	if (error == 0)
		error = pread_all(fd, text.at, (size_t)size, 0);
	text.n = (size_t)size;
	if (error == 0)
		error = config_parse_snapshot(buffer_span(&text), out, why);
	buffer_free(&text);
	return error;
}

static int on_reload(struct channel *c, struct message *m)
{
	HANDLE(c, m, reload, reload);
	struct process *p = c->program;
	struct config fresh, old = p->config;
	struct complaint why = {0};
	if (m->fds_n != 1)
		return EBADMSG;
	if (read_config(m->fds[0], &fresh, &why) != 0)
		return EBADMSG;
	p->config = fresh;
	p->generation = reload.generation;
	if (p->reloaded != NULL)
		p->reloaded(p, &old);
	config_free(&old);
	return 0;
}

static void master_gone(struct channel *c, int reason)
{
	struct process *p = c->program;
	(void)reason;
	p->control = NULL;
	(void)event_base_loopbreak(p->base); /* without a master nothing goes on */
}

static const struct channel_owner standard_owner = {
	.handlers = {[MSG_ping] = on_ping, [MSG_stop] = on_stop, [MSG_link] = on_link, [MSG_reload] = on_reload},
	.gone = master_gone,
};

static int make_base(struct process *p)
{
	struct event_config *options = event_config_new();
	if (options == NULL)
		return ENOMEM;
	(void)event_config_set_flag(options, EVENT_BASE_FLAG_NOLOCK);
	p->base = event_base_new_with_config(options);
	event_config_free(options);
	return p->base == NULL ? ENOMEM : 0;
}

static void take_name(char *out, size_t size, struct span s)
{
	size_t n = s.n < size - 1 ? s.n : size - 1;
	memcpy(out, s.at, n);
	out[n] = '\0';
}

static uint32_t number_of(const struct process *p)
{
	for (uint32_t i = 0; p->server[0] != '\0' && i < p->config.servers_n; i++)
		if (strcmp(p->config.servers[i].name, p->server) == 0 && !p->config.servers[i].gone)
			return i;
	return UINT32_MAX;
}

/* Mapped while that may still be done; those that are given no right to write it can't. */
static int map_leases(struct process *p)
{
	int fd = proc_fd(p, "leases");
	if (fd < 0)
		return 0;
	void *at = mmap(NULL, SERVERS_MOST * sizeof *p->leases, p->role == R_LEASE ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return errno;
	p->leases = at;
	return 0;
}

int proc_begin(struct process *p, enum role role, struct complaint *why)
{
	struct buffer packet;
	struct message m;
	struct msg_hello hello = {0};
	*p = (struct process){.role = role};
	*why = (struct complaint){0};
	(void)mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024); /* packet buffers come and go without a system call */
	(void)mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
	(void)umask(077);
	buffer_init(&packet, 1024 * 1024);
	buffer_init(&p->names, 4096);
	int error = channel_read_first(PROC_CONTROL_FD, &packet, p->fds, &p->fds_n, &m);
	if (error == 0)
		error = msg_hello_decode(m.payload, &hello);
	if (error == 0 && p->fds_n < 1)
		error = EBADMSG;
	if (error != 0) {
		complain(why, role_name(role), 0, "is started by posthorn, not by hand (%s)", strerror(error));
		buffer_free(&packet);
		return error;
	}
	p->instance = hello.instance;
	p->epoch = hello.epoch;
	p->flags = hello.flags;
	take_name(p->server, sizeof p->server, hello.server);
	take_name(p->suffix, sizeof p->suffix, hello.suffix);
	buffer_put_span(&p->names, hello.names);
	buffer_free(&packet);
	error = read_config(p->fds[0], &p->config, why);
	(void)close(p->fds[0]);
	if (error == 0) {
		p->number = number_of(p);
		error = map_leases(p);
	}
	if (error == 0)
		error = make_base(p);
	if (error == 0) {
		p->control_owner = standard_owner;
		p->control = channel_make(p->base, PROC_CONTROL_FD, role, R_MASTER, &p->control_owner, p);
		error = p->control == NULL ? ENOMEM : 0;
	}
	if (error != 0 && why->reason[0] == '\0')
		complain(why, role_name(role), 0, "%s", strerror(error));
	return error;
}

const struct lease_slot *proc_lease(const struct process *p, uint32_t server)
{
	if (p->leases == NULL || server >= p->config.servers_n || p->config.servers[server].p.cluster == 0)
		return NULL;
	return &p->leases[server];
}

const struct lease_slot *proc_own_lease(const struct process *p)
{
	return proc_lease(p, p->number);
}

void proc_handle(struct process *p, enum msg_type type, message_handler *run)
{
	message_handler **place = &p->control_owner.handlers[type];
	*place = run;
}

int proc_fd(const struct process *p, const char *name)
{
	struct span rest = buffer_span(&p->names);
	for (size_t i = 1; i < p->fds_n; i++)
		if (span_is(span_word(&rest, " "), name))
			return p->fds[i];
	return -1;
}

int proc_default_uid(const char *owner, const char *suffix, uid_t *uid, gid_t *gid)
{
	char name[64];
	(void)snprintf(name, sizeof name, "%s%s%s", owner, suffix[0] == '\0' ? "" : "-", suffix);
	const struct passwd *pw = getpwnam(name);
	if (pw == NULL)
		return ENOENT;
	*uid = pw->pw_uid;
	*gid = pw->pw_gid;
	return 0;
}

static int change_user(const struct process *p, const struct confinement *c, struct complaint *why)
{
	const char *suffix = c->user_suffix;
	const struct group *g = c->in_setgid_group ? getgrnam(p->config.service.setgid_group) : NULL;
	uid_t uid;
	gid_t gid;
	if ((p->flags & PROC_ROOT) == 0)
		return 0;
	if (proc_default_uid(p->config.service.mail_owner, suffix, &uid, &gid) != 0) {
		complain(why, role_name(p->role), 0, "no user %s%s%s: systemd-sysusers makes it from posthorn.sysusers",
			p->config.service.mail_owner, suffix[0] == '\0' ? "" : "-", suffix);
		return ENOENT;
	}
	if (setgroups(g == NULL ? 0 : 1, g == NULL ? NULL : &g->gr_gid) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
		return errno;
	return 0;
}

/* Without privilege no capability survives setresuid; the bounding set and ambient set are emptied too. */
static void drop_bounding_set(void)
{
	for (int cap = 0; cap <= 63; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
			break;
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static void set_limits(const struct confinement *c)
{
	struct rlimit r;
	if (c->files > 0 && getrlimit(RLIMIT_NOFILE, &r) == 0) {
		rlim_t top = r.rlim_max == RLIM_INFINITY || r.rlim_max > c->files ? c->files : r.rlim_max;
		if (geteuid() == 0 && r.rlim_max < c->files) {
			r.rlim_cur = r.rlim_max = c->files;
			if (setrlimit(RLIMIT_NOFILE, &r) == 0)
				top = c->files;
		}
		r.rlim_cur = top;
		(void)setrlimit(RLIMIT_NOFILE, &r);
	}
	r = (struct rlimit){0, 0};
	(void)setrlimit(RLIMIT_CORE, &r);
}

int proc_confine(struct process *p, const struct confinement *c, const struct path_rule *paths, size_t paths_n,
	const struct port_list *ports, struct complaint *why)
{
	bool sanitized = (p->flags & PROC_SANITIZED) != 0;
	set_limits(c);
	if ((p->flags & PROC_ROOT) != 0)
		drop_bounding_set();
	int error = change_user(p, c, why);
	if (error == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		error = errno;
	if (error == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		error = errno;
	if (error == 0)
		error = confine_paths(paths, paths_n, ports, c->connects, &p->landlock);
	if (error == 0)
		error = confine_calls(c->calls, sanitized);
	if (error != 0 && why->reason[0] == '\0')
		complain(why, role_name(p->role), 0, "cannot confine the process: %s", strerror(error));
	return error;
}

/* Of capabilities those to become another user and to end what runs as one. */
static int keep_capabilities(void)
{
	static const int kept[] = {CAP_SETUID, CAP_SETGID, CAP_KILL};
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};
	for (size_t i = 0; i < COUNT_OF(kept); i++)
		data[0].permitted |= 1u << kept[i];
	data[0].effective = data[0].permitted;
	for (int cap = 0; cap <= 63; cap++) {
		bool keep = false;
		for (size_t i = 0; i < COUNT_OF(kept); i++)
			keep = keep || cap == kept[i];
		if (!keep && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
			break;
	}
	return syscall(SYS_capset, &head, data) == 0 ? 0 : errno;
}

int proc_confine_root(struct process *p, const struct confinement *c, struct complaint *why)
{
	int error = 0;
	set_limits(c);
	if ((p->flags & PROC_ROOT) != 0) {
		error = setgroups(0, NULL) == 0 ? 0 : errno;
		if (error == 0)
			error = keep_capabilities();
	}
	if (error == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		error = errno;
	if (error == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		error = errno;
	if (error != 0)
		complain(why, role_name(p->role), 0, "cannot confine the process: %s", strerror(error));
	return error;
}

int proc_run(struct process *p)
{
	send_ready(p->control, (struct msg_ready){.landlock = p->landlock, .warning = {"", 0}}, -1);
	(void)event_base_loop(p->base, EVLOOP_NO_EXIT_ON_EMPTY);
	return p->control == NULL ? EX_UNAVAILABLE : EX_OK;
}

void proc_done(struct process *p)
{
	if (p->log.channel != NULL)
		channel_flush(p->log.channel);
	(void)event_base_loopexit(p->base, NULL);
}

int proc_fail(struct process *p, int status, const struct complaint *why)
{
	if (p->control != NULL) {
		send_failed(p->control, (struct msg_failed){.reason = span_of(why->reason)}, -1);
		channel_flush(p->control);
	} else {
		(void)fprintf(stderr, "posthorn: %s: %s\n", why->file, why->reason);
	}
	return status;
}

bool proc_is_alone(const struct process *p)
{
	return p->control == NULL;
}
