/* config: turns the files of a configuration into a checked snapshot.
 * User: as started, without a capability.
 * May: read DIR (descriptor 3), /etc/mailname; write the snapshot to standard output.
 * Never: write a file, use the network. */
#include "params/params.h"
#include "proc/proc.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <unistd.h>

static int drop_capabilities(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}, {0}};
	return syscall(SYS_capset, &head, none) == 0 ? 0 : errno;
}

/* Started before there is a configuration, so nothing of it steers the confinement. */
static int confine(void)
{
	unsigned abi;
	int etc = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct path_rule paths[] = {{3, PATH_READ}, {etc, PATH_READ}};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return errno;
	int error = drop_capabilities();
	if (error == 0)
		error = confine_paths(paths, etc < 0 ? 1 : 2, NULL, false, &abi);
	if (error == 0)
		error = confine_calls(CALLS_FILES, getenv("POSTHORN_SANITIZED") != NULL);
	return error;
}

/* Arguments: --snapshot, then the names of the servers that the service knows, in their order. */
int main(int argc, char **argv)
{
	struct config c;
	struct complaint why = {0};
	struct buffer out;
	buffer_init(&out, 64 * 1024 * 1024);
	int error = confine();
	if (error != 0)
		complain(&why, "config", 0, "cannot confine the process: errno %d", error);
	else
		error = config_load(3, &c, &why);
	if (error == 0 && argc > 2 && (error = config_place(&c, argv + 2, (size_t)argc - 2)) != 0)
		complain(&why, "servers", 0, error == E2BIG ? "too many servers were made and removed since the start: restart the service" : "%s", strerror(error));
	if (error != 0) {
		buffer_printf(&out, "%s\n%u\n%s\n", why.file, why.line, why.reason);
	} else {
		buffer_puts(&out, "ok\n");
		config_put_snapshot(&out, &c);
	}
	return buffer_ok(&out) && write_all(1, out.at, out.n) == 0 && error == 0 ? EX_OK : EX_CONFIG;
}
