#include "master.h"
#include "proc/proc.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

int master_open_dir(struct master *m, const char *path)
{
	(void)m;
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* One that was there may be of somebody who can put into it, or has put into it, what he likes: that is not ours to take over. */
static int check_dir(const struct master *m, const char *path, const struct stat *st, uid_t uid, mode_t mode, struct complaint *why)
{
	const char *owner = m->config.service.mail_owner;
	if (st->st_uid != 0 && st->st_uid != geteuid() && st->st_uid != uid) {
		const struct passwd *pw = getpwuid(st->st_uid);
		complain(why, path, 0, "the directory belongs to %s: look at what is in it, then chown %s %s", pw == NULL ? "nobody that is known" : pw->pw_name, m->root ? owner : "it to the service's user:", path);
	} else if ((st->st_mode & S_IWOTH) != 0 && (mode & S_IWOTH) == 0 && (st->st_mode & S_ISVTX) == 0) {
		complain(why, path, 0, "everybody may write into the directory: look at what is in it, then chmod o-w %s", path);
	} else {
		return 0;
	}
	return EX_NOPERM;
}

/* Makes one directory with its owner, group and mode; a path that is something else, or unsafe, is refused. */
static int make_dir(struct master *m, const char *path, const char *suffix, const char *group, mode_t mode, struct complaint *why)
{
	struct stat before;
	bool there = stat(path, &before) == 0;
	int error = mkdir_chain(path, 0755), fd = -1;
	uid_t uid = geteuid();
	gid_t gid;
	if (error == 0) {
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		error = fd < 0 ? errno : 0;
	}
	if (error == 0 && m->root) {
		if (proc_default_uid(m->config.service.mail_owner, suffix, &uid, &gid) != 0) {
			complain(why, "mail_owner", 0, "no user %s%s%s: run systemd-sysusers on conf/posthorn.sysusers (make setup does it)",
				m->config.service.mail_owner, suffix[0] == '\0' ? "" : "-", suffix);
			(void)close(fd);
			return EX_NOUSER;
		}
		if (there && check_dir(m, path, &before, uid, mode, why) != 0) {
			(void)close(fd);
			return EX_NOPERM;
		}
		const struct group *g = group == NULL ? NULL : getgrnam(group);
		if (group != NULL && g == NULL) {
			complain(why, "setgid_group", 0, "no group %s: run systemd-sysusers on conf/posthorn.sysusers (make setup does it)", group);
			(void)close(fd);
			return EX_NOUSER;
		}
		if (fchown(fd, uid, g == NULL ? gid : g->gr_gid) != 0)
			error = errno;
	}
	if (error == 0 && !m->root && there && check_dir(m, path, &before, uid, mode, why) != 0) {
		(void)close(fd);
		return EX_NOPERM;
	}
	if (error == 0 && fchmod(fd, mode) != 0)
		error = errno;
	if (fd >= 0)
		(void)close(fd);
	if (error != 0)
		complain(why, path, 0, "cannot make the directory: %s", strerror(error));
	return error == 0 ? 0 : EX_CANTCREAT;
}

static int make_queue_dirs(struct master *m, const struct server *s, struct complaint *why)
{
	static const char *const below[] = {"", "/journal", "/fates", "/body", "/wait", "/index", "/corrupt"};
	int status = 0;
	for (size_t i = 0; i < COUNT_OF(below) && status == 0; i++) {
		char path[1100];
		(void)snprintf(path, sizeof path, "%s%s", s->p.queue_directory, below[i]);
		status = make_dir(m, path, "", NULL, 0700, why);
	}
	return status;
}

static int make_control_socket(struct master *m, struct complaint *why)
{
	char path[1200];
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	(void)snprintf(path, sizeof path, "%s/control", m->config.service.run_directory);
	int run_fd = master_open_dir(m, m->config.service.run_directory);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = run_fd < 0 || fd < 0 ? errno : 0;
	(void)unlink(path);
	/* /proc/self/fd keeps within the 108 bytes of a socket's path however deep the directory lies */
	(void)snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d/control", run_fd);
	if (error == 0 && bind(fd, (struct sockaddr *)&sa, sizeof sa) != 0)
		error = errno;
	/* who may act is decided by peer credentials, on each connection */
	if (error == 0 && (chmod(path, 0666) != 0 || listen(fd, 64) != 0))
		error = errno;
	if (run_fd >= 0)
		(void)close(run_fd);
	if (error != 0) {
		complain(why, path, 0, "cannot make the control socket: %s", strerror(error));
		return EX_CANTCREAT;
	}
	m->control_fd = fd;
	return 0;
}

/* Drop directories of local domains that have their own. */
static int make_drops(struct master *m, const struct server *s, struct complaint *why)
{
	int status = 0;
	for (size_t k = 0; k < s->domains_n && status == 0; k++)
		if (s->domains[k].p.type == DOMAIN_LOCAL)
			status = make_dir(m, s->domains[k].p.local.drop_directory, "", NULL, 0750, why);
	return status;
}

int master_make_drops(struct master *m, struct complaint *why)
{
	int status = 0;
	for (uint32_t i = 0; i < m->config.servers_n && status == 0; i++)
		if (m->runs[i].state == RUN_STARTING || m->runs[i].state == RUN_RUNNING)
			status = make_drops(m, &m->config.servers[i], why);
	return status;
}

int master_make_server_dirs(struct master *m, const struct server *s, struct complaint *why)
{
	const char *group = m->root ? m->config.service.setgid_group : NULL;
	char pick[64], index[1200];
	(void)snprintf(index, sizeof index, "%s/cluster/%s/index", m->config.service.spool_directory, s->name);
	(void)snprintf(pick, sizeof pick, "%s-pick", m->config.service.mail_owner);
	int status = make_dir(m, s->p.home_directory, "", NULL, 0755, why);
	if (status == 0)
		status = make_queue_dirs(m, s, why);
	if (status == 0 && s->p.cluster != 0)
		status = make_dir(m, index, "", NULL, 0700, why);
	if (status == 0)
		status = make_dir(m, s->p.pickup_directory, "pick", group, m->root ? 02770 : 0770, why);
	if (status == 0)
		status = make_dir(m, s->p.local.drop_directory, "", NULL, 0750, why);
	if (status == 0)
		status = make_dir(m, s->p.badmail_directory, "", m->root ? pick : NULL, 0770, why);
	return status == 0 ? make_drops(m, s, why) : status;
}

int master_make_dirs(struct master *m, struct complaint *why)
{
	char path[1100];
	const struct service_params *p = &m->config.service;
	const char *group = m->root ? p->setgid_group : NULL;
	(void)snprintf(path, sizeof path, "%s/maildrop", p->spool_directory);
	int status = make_dir(m, path, "pick", group, m->root ? 03730 : 0700, why);
	(void)snprintf(path, sizeof path, "%s/sts", p->spool_directory);
	if (status == 0)
		status = make_dir(m, path, "out", NULL, 0700, why);
	(void)snprintf(path, sizeof path, "%s/gss", p->spool_directory);
	if (status == 0)
		status = make_dir(m, path, "gss", NULL, 0700, why);
	(void)snprintf(path, sizeof path, "%s/gssc", p->spool_directory);
	if (status == 0)
		status = make_dir(m, path, "gssc", NULL, 0700, why);
	if (status == 0)
		status = make_dir(m, p->log_directory, "log", NULL, 0755, why);
	return status == 0 ? make_control_socket(m, why) : status;
}
