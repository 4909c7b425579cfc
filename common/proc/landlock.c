#include "proc/proc.h"

#include <linux/landlock.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's headers stop at ABI 2; the structure is sized by what the kernel offers. */
struct ruleset {
	uint64_t fs, net, scoped;
};
struct net_rule {
	uint64_t access, port;
};
enum { RULE_NET_PORT = 2 };
#define FS_REFER (UINT64_C(1) << 13)
#define FS_TRUNCATE (UINT64_C(1) << 14)
#define FS_IOCTL_DEV (UINT64_C(1) << 15)
#define NET_BIND UINT64_C(1)
#define NET_CONNECT UINT64_C(2)
#define SCOPE_ALL UINT64_C(3) /* abstract sockets, signals */

static uint64_t fs_rights(long abi)
{
	uint64_t all = (UINT64_C(1) << 13) - 1;
	if (abi >= 2)
		all |= FS_REFER;
	if (abi >= 3)
		all |= FS_TRUNCATE;
	if (abi >= 5)
		all |= FS_IOCTL_DEV;
	return all;
}

static uint64_t granted(unsigned rights, uint64_t all)
{
	uint64_t r = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
	if ((rights & PATH_WRITE) != 0)
		r |= LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR |
			LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | FS_REFER | FS_TRUNCATE;
	return r & all;
}

static int add_path(int ruleset, const struct path_rule *rule, uint64_t all)
{
	struct landlock_path_beneath_attr a = {.allowed_access = granted(rule->rights, all), .parent_fd = rule->dir_fd};
	return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &a, 0) == 0 ? 0 : errno;
}

static int add_ports(int ruleset, const struct port_list *ports)
{
	for (size_t i = 0; ports != NULL && i < ports->n; i++) {
		struct net_rule a = {.access = NET_CONNECT, .port = ports->ports[i]};
		if (syscall(SYS_landlock_add_rule, ruleset, RULE_NET_PORT, &a, 0) != 0)
			return errno;
	}
	return 0;
}

int confine_paths(const struct path_rule *paths, size_t n, const struct port_list *ports, bool connects, unsigned *abi)
{
	long level = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
	*abi = level < 0 ? 0 : (unsigned)level;
	if (level < 0)
		return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : errno;
	struct ruleset r = {.fs = fs_rights(level)};
	size_t size = level < 4 ? 8 : level < 6 ? 16 : 24;
	if (level >= 4)
		r.net = NET_BIND | NET_CONNECT;
	if (level >= 6)
		r.scoped = SCOPE_ALL;
	int fd = (int)syscall(SYS_landlock_create_ruleset, &r, size, 0);
	if (fd < 0)
		return errno;
	int error = 0;
	for (size_t i = 0; i < n && error == 0; i++)
		error = add_path(fd, &paths[i], r.fs);
	if (error == 0 && level >= 4 && connects)
		error = add_ports(fd, ports);
	if (error == 0 && syscall(SYS_landlock_restrict_self, fd, 0) != 0)
		error = errno;
	(void)close(fd);
	return error;
}
