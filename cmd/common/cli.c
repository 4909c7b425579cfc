#include "cmd/common/cli.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

void cli_help(const char *usage, const struct cli_option *options, size_t n)
{
	(void)printf("usage: %s\n\n", usage);
	for (size_t i = 0; i < n; i++) {
		char both[100];
		(void)snprintf(both, sizeof both, "%s%s%s", options[i].flag, options[i].argument[0] == '\0' ? "" : " ", options[i].argument);
		(void)printf("  %-24s %s\n", both, options[i].text);
	}
}

int cli_fail(const struct cli *c, int status, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	(void)fprintf(stderr, "%s: ", c->program);
	(void)vfprintf(stderr, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): va_start is above */
	(void)fputc('\n', stderr);
	va_end(args);
	return status;
}

int cli_open(struct cli *c)
{
	c->dir_fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->dir_fd < 0)
		return cli_fail(c, EX_NOINPUT, "%s: %s; hornconf init makes a configuration", c->dir, strerror(errno));
	return 0;
}

int cli_load(struct cli *c)
{
	struct complaint why;
	int status = cli_open(c);
	if (status != 0)
		return status;
	if (config_load(c->dir_fd, &c->config, &why) == 0)
		return 0;
	if (why.line > 0)
		return cli_fail(c, EX_CONFIG, "%s/%s:%u: %s", c->dir, why.file, why.line, why.reason);
	return cli_fail(c, EX_CONFIG, "%s/%s: %s", c->dir, why.file, why.reason);
}

pid_t cli_master(struct cli *c)
{
	char path[1200], text[32] = "";
	uint64_t pid = 0;
	(void)snprintf(path, sizeof path, "%s/master.pid", c->config.service.run_directory);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	bool free_lock = flock(fd, LOCK_SH | LOCK_NB) == 0;
	ssize_t n = read(fd, text, sizeof text - 1);
	(void)close(fd);
	struct span rest = {text, n > 0 ? (size_t)n : 0};
	if (free_lock || parse_u64(span_word(&rest, "\n"), 1 << 30, &pid) != 0)
		return 0;
	return (pid_t)pid;
}

static int connect_control(struct cli *c)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int dir = open(c->config.service.run_directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* by way of /proc the path fits however deep the directory lies */
	(void)snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d/control", dir);
	int error = dir < 0 || fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0 ? errno : 0;
	if (dir >= 0)
		(void)close(dir);
	if (error == 0)
		return fd;
	if (fd >= 0)
		(void)close(fd);
	errno = error;
	return -1;
}

static int send_request(int fd, const char *act, const char *server, const char *argument)
{
	struct buffer b;
	buffer_init(&b, 8192);
	buffer_printf(&b, "%s %s %s\n", act, server, argument);
	int error = buffer_ok(&b) ? write_all(fd, b.at, b.n) : ENOMEM;
	buffer_free(&b);
	return error;
}

/* Rows are passed on as they come; what may be the last line is held back. */
static void pass_on(struct buffer *held, void (*take)(void *, struct span), void *context, bool end)
{
	size_t keep = 0;
	for (size_t i = held->n; i > 0 && keep == 0; i--)
		if (held->at[i - 1] == '\n' && i < held->n && held->at[i] == '=')
			keep = held->n - i + 1;
	if (!end && keep == 0)
		keep = held->n < 600 ? held->n : 600;
	if (keep < held->n && take != NULL)
		take(context, (struct span){held->at, held->n - keep});
	buffer_drop(held, held->n - keep);
}

static int last_line(struct cli *c, struct buffer *held, struct buffer *text)
{
	struct span rest = buffer_span(held);
	uint64_t status = EX_PROTOCOL;
	if (rest.n > 0 && rest.at[0] == '\n') {
		rest.at++;
		rest.n--;
	}
	struct span line = span_until(&rest, '\n');
	(void)span_word(&line, " ");
	if (parse_u64(span_word(&line, " "), 255, &status) != 0)
		return cli_fail(c, EX_PROTOCOL, "the service ended the conversation; its log may say why");
	line = span_trim(line);
	if (text != NULL)
		buffer_put_span(text, line);
	else if (status != 0)
		return cli_fail(c, (int)status, "%.*s", SPAN_ARG(line));
	return (int)status;
}

int cli_ask(struct cli *c, const char *act, const char *server, const char *argument, void (*take)(void *, struct span), void *context, struct buffer *text)
{
	struct buffer held;
	int fd = connect_control(c);
	if (fd < 0)
		return cli_fail(c, errno == EACCES ? EX_NOPERM : EX_UNAVAILABLE, "%s/control: %s; is the service running? posthorn start starts it",
			c->config.service.run_directory, strerror(errno));
	buffer_init(&held, 256 * 1024 * 1024);
	int error = send_request(fd, act, server, argument);
	while (error == 0) {
		char block[65536];
		ssize_t n = read(fd, block, sizeof block);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		buffer_put(&held, block, (size_t)n);
		pass_on(&held, take, context, false);
	}
	(void)close(fd);
	pass_on(&held, take, context, true);
	int status = last_line(c, &held, text);
	buffer_free(&held);
	return status;
}

int cli_replace(const char *folder, const char *name, struct span bytes, mode_t mode)
{
	int dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return errno;
	int error = replace_file_at(dir_fd, name, bytes, mode);
	(void)close(dir_fd);
	return error;
}

int cli_edit_file(struct cli *c, const char *name, int (*edit)(void *, struct span, struct buffer *), void *context)
{
	struct buffer old, fresh;
	int lock = openat(c->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX) != 0)
		return errno;
	buffer_init(&old, 16 * 1024 * 1024);
	buffer_init(&fresh, 16 * 1024 * 1024);
	int error = read_file_at(c->dir_fd, name, 16 * 1024 * 1024, &old);
	if (error == 0)
		error = edit(context, buffer_span(&old), &fresh);
	if (error == 0)
		error = replace_file_at(c->dir_fd, name, buffer_span(&fresh), 0644);
	buffer_free(&old);
	buffer_free(&fresh);
	(void)close(lock);
	return error;
}
