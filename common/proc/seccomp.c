#include "proc/proc.h"

#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* What every process may do once it runs. */
static const int every[] = {
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(readv), SCMP_SYS(close), SCMP_SYS(recvmsg), SCMP_SYS(sendmsg),
	SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl), SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap),
	SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(getrandom),
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction),
	SCMP_SYS(restart_syscall), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(fcntl), SCMP_SYS(lseek), SCMP_SYS(pread64), SCMP_SYS(timerfd_settime),
	SCMP_SYS(timerfd_create), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(sched_yield),
	SCMP_SYS(sysinfo), /* libc's qsort asks how much memory there is before it sorts more than 1 KB */
};
static const int on_socket[] = {SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(setsockopt), SCMP_SYS(getsockopt), SCMP_SYS(shutdown)};
static const int on_connect[] = {SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(ioctl)};
static const int on_unix[] = {SCMP_SYS(connect)};
static const int on_poll[] = {SCMP_SYS(poll)};
static const int on_accept[] = {SCMP_SYS(accept4), SCMP_SYS(setsockopt), SCMP_SYS(sendto), SCMP_SYS(shutdown), SCMP_SYS(getsockopt)};
static const int on_files[] = {SCMP_SYS(uname), SCMP_SYS(openat), SCMP_SYS(newfstatat), SCMP_SYS(fstat), SCMP_SYS(pread64), SCMP_SYS(preadv),
	SCMP_SYS(getdents64), SCMP_SYS(fadvise64), SCMP_SYS(flock), SCMP_SYS(fstatfs), SCMP_SYS(statfs), SCMP_SYS(statx),
	SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(open), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2)};
static const int on_write[] = {SCMP_SYS(pwrite64), SCMP_SYS(pwritev), SCMP_SYS(fdatasync), SCMP_SYS(fsync), SCMP_SYS(fallocate),
	SCMP_SYS(ftruncate), SCMP_SYS(fchmod), SCMP_SYS(fchmodat), SCMP_SYS(sync_file_range), SCMP_SYS(umask)};
static const int on_rename[] = {SCMP_SYS(rename), SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(linkat), SCMP_SYS(unlinkat), SCMP_SYS(unlink),
	SCMP_SYS(mkdirat), SCMP_SYS(mkdir), SCMP_SYS(rmdir), SCMP_SYS(symlinkat)};
static const int on_memfd[] = {SCMP_SYS(memfd_create), SCMP_SYS(ftruncate), SCMP_SYS(pwrite64), SCMP_SYS(pread64), SCMP_SYS(fstat)};
static const int on_inotify[] = {SCMP_SYS(inotify_init1), SCMP_SYS(inotify_add_watch), SCMP_SYS(inotify_rm_watch)};
static const int on_db[] = {SCMP_SYS(getcwd), SCMP_SYS(pselect6), SCMP_SYS(select), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep),
	SCMP_SYS(truncate), SCMP_SYS(uname), SCMP_SYS(prlimit64), SCMP_SYS(msync), SCMP_SYS(tgkill)};

struct call_group {
	unsigned bit;
	const int *calls;
	size_t n;
};
#define GROUP(bit, list) {bit, list, COUNT_OF(list)}
static const struct call_group groups[] = {
	GROUP(CALLS_SOCKET, on_socket), GROUP(CALLS_CONNECT, on_connect), GROUP(CALLS_ACCEPT, on_accept), GROUP(CALLS_FILES, on_files),
	GROUP(CALLS_WRITE, on_write), GROUP(CALLS_RENAME, on_rename), GROUP(CALLS_MEMFD, on_memfd), GROUP(CALLS_INOTIFY, on_inotify),
	GROUP(CALLS_DB, on_db), GROUP(CALLS_UNIX, on_unix), GROUP(CALLS_POLL, on_poll),
};

static int allow(scmp_filter_ctx ctx, const int *calls, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
		if (error != 0 && error != -EEXIST)
			return -error;
	}
	return 0;
}

/* Memory that is never executable; files may be mapped by Berkeley DB alone. */
static int allow_memory(scmp_filter_ctx ctx, bool files)
{
	int error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
		SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (error == 0 && files)
		error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	else if (error == 0)
		error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
			SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS | MAP_PRIVATE, MAP_ANONYMOUS | MAP_PRIVATE));
	return -error;
}

/* Only of the families that the role speaks. */
static int allow_sockets(scmp_filter_ctx ctx, unsigned calls)
{
	static const struct { unsigned calls; int family; } families[] = {{CALLS_CONNECT, AF_INET}, {CALLS_CONNECT, AF_INET6}, {CALLS_UNIX, AF_UNIX}};
	int error = 0;
	for (size_t i = 0; i < COUNT_OF(families) && error == 0; i++)
		if ((calls & families[i].calls) != 0)
			error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i].family));
	if (error == 0 && (calls & CALLS_PAIR) != 0)
		error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	return -error;
}

/* libc asks for these at odd moments; a "no" is enough. */
static int refuse_softly(scmp_filter_ctx ctx, unsigned calls)
{
	static const int soft[] = {SCMP_SYS(openat), SCMP_SYS(newfstatat), SCMP_SYS(open), SCMP_SYS(readlink), SCMP_SYS(access),
		SCMP_SYS(uname), SCMP_SYS(ioctl), SCMP_SYS(fstat), SCMP_SYS(sched_getaffinity), SCMP_SYS(prlimit64)};
	for (size_t i = 0; i < COUNT_OF(soft); i++) {
		bool allowed = false;
		for (size_t g = 0; g < COUNT_OF(groups); g++)
			for (size_t k = 0; (calls & groups[g].bit) != 0 && k < groups[g].n; k++)
				allowed = allowed || groups[g].calls[k] == soft[i];
		if (!allowed && seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), soft[i], 0) != 0)
			return EINVAL;
	}
	return 0;
}

int confine_calls(unsigned calls, bool log_only)
{
	scmp_filter_ctx ctx = seccomp_init(log_only ? SCMP_ACT_LOG : SCMP_ACT_KILL_PROCESS);
	if (ctx == NULL)
		return ENOMEM;
	int error = allow(ctx, every, COUNT_OF(every));
	for (size_t i = 0; i < COUNT_OF(groups) && error == 0; i++)
		if ((calls & groups[i].bit) != 0)
			error = allow(ctx, groups[i].calls, groups[i].n);
	if (error == 0)
		error = allow_memory(ctx, (calls & CALLS_DB) != 0);
	if (error == 0)
		error = allow_sockets(ctx, calls);
	if (error == 0 && !log_only)
		error = refuse_softly(ctx, calls);
	if (error == 0)
		error = -seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (error == 0)
		error = -seccomp_load(ctx);
	seccomp_release(ctx);
	return error;
}
