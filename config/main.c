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

static int snapshot(char *const *names, size_t n, struct buffer *out, struct complaint *why)
{
	struct config c;
	int error = config_load(3, &c, why);
	if (error != 0)
		return error;
	error = n == 0 ? 0 : config_place(&c, names, n);
	if (error != 0)
		complain(why, "servers", 0, error == E2BIG ? "too many servers were made and removed since the start: restart the service" : "%s", strerror(error));
	else
		config_put_snapshot(out, &c);
	return error;
}

/* "ok", what changes, then the server's whole file. */
static int edit(char *const *words, struct buffer *out, struct complaint *why)
{
	struct buffer file, changes;
	buffer_init(&file, 16 * 1024 * 1024);
	buffer_init(&changes, 64 * 1024);
	int error = config_operator_edit(3, words[0], words[1], span_of(words[2]), &file, &changes, why);
	buffer_put_span(out, buffer_span(&changes));
	buffer_putc(out, '\n');
	buffer_put_span(out, buffer_span(&file));
	buffer_free(&file);
	buffer_free(&changes);
	return error;
}

/* Arguments: --snapshot, then the names of the servers that the service knows, in their order; or --edit SERVER DOMAIN SETTINGS. */
int main(int argc, char **argv)
{
	struct complaint why = {0};
	struct buffer out;
	buffer_init(&out, 64 * 1024 * 1024);
	buffer_puts(&out, "ok\n");
	int error = confine();
	if (error != 0)
		complain(&why, "config", 0, "cannot confine the process: errno %d", error);
	else if (argc == 5 && strcmp(argv[1], "--edit") == 0)
		error = edit(argv + 2, &out, &why);
	else
		error = snapshot(argv + 2, argc > 2 ? (size_t)argc - 2 : 0, &out, &why);
	if (error != 0) {
		buffer_clear(&out);
		buffer_printf(&out, "%s\n%u\n%s\n", why.file, why.line, why.reason);
	}
	return buffer_ok(&out) && write_all(1, out.at, out.n) == 0 && error == 0 ? EX_OK : EX_CONFIG;
}
