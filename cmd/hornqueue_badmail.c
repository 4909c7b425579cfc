/* What could be neither delivered nor returned: ID.BAD, with ID.BDR (why) and ID.BDP (envelope).  Processes of other users
 * write there and in Pickup: no link of theirs is followed, nothing that they planted is written into. */
#include "cmd/hornqueue.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum { TEXT_LIMIT = 16 * 1024 * 1024, BAD_LIMIT = 1024 * 1024 * 1024 };

/* One message there. */
struct bad {
	const struct server *server;
	int dir_fd;
	char id[64];
	struct stat st;
	struct buffer envelope, reason;
};

static int read_tail(const struct bad *b, const char *tail, size_t limit, struct buffer *out)
{
	char name[80];
	(void)snprintf(name, sizeof name, "%s.%s", b->id, tail);
	struct stat st;
	buffer_init(out, limit + 1);
	return read_plain_file_at(b->dir_fd, name, limit, out, &st);
}

/* "name=value" lines of the envelope; the n-th of that name. */
static bool value_of(const struct bad *b, const char *name, size_t nth, struct span *out)
{
	struct span rest = buffer_span(&b->envelope);
	while (rest.n > 0) {
		struct span value = span_until(&rest, '\n');
		if (span_is(span_until(&value, '='), name) && nth-- == 0) {
			*out = value;
			return true;
		}
	}
	return false;
}

static struct span without_angles(struct span s)
{
	return s.n >= 2 && s.at[0] == '<' ? (struct span){s.at + 1, s.n - 2} : s;
}

static void print_span(struct span s)
{
	char *text = span_dup(s);
	print_safe(text == NULL ? "?" : text);
	free(text);
}

static void print_json(const struct bad *b)
{
	struct buffer out;
	struct span value = {"", 0};
	buffer_init(&out, TEXT_LIMIT);
	buffer_printf(&out, "{\"id\":\"%s\",\"server\":", b->id);
	buffer_put_json(&out, span_of(b->server->name));
	buffer_printf(&out, ",\"size\":%lld,\"time\":\"", (long long)b->st.st_size);
	format_rfc3339(&out, b->st.st_mtime);
	buffer_puts(&out, "\",\"sender\":");
	if (value_of(b, "sender", 0, &value))
		buffer_put_json(&out, without_angles(value));
	else
		buffer_puts(&out, "null"); /* a file that pickup could not read */
	buffer_puts(&out, ",\"recipients\":[");
	for (size_t i = 0; value_of(b, "recipient", i, &value); i++) {
		buffer_puts(&out, i == 0 ? "" : ",");
		buffer_put_json(&out, without_angles(value));
	}
	buffer_puts(&out, "],\"reason\":");
	buffer_put_json(&out, span_trim(buffer_span(&b->reason)));
	(void)printf("%s}\n", buffer_cstr(&out));
	buffer_free(&out);
}

static void print_text(const struct bad *b)
{
	struct buffer time;
	struct span value = {"", 0}, rest = buffer_span(&b->reason);
	buffer_init(&time, 64);
	format_rfc3339(&time, b->st.st_mtime);
	(void)printf("%s %8lld %s %s", b->id, (long long)b->st.st_size, buffer_cstr(&time), b->server->name);
	if (value_of(b, "sender", 0, &value)) {
		(void)printf(" ");
		print_span(value);
	}
	(void)putchar('\n');
	for (size_t i = 0; value_of(b, "recipient", i, &value); i++) {
		(void)printf("    to ");
		print_span(value);
		(void)putchar('\n');
	}
	while (rest.n > 0) {
		(void)printf("    ");
		print_span(span_until(&rest, '\n'));
		(void)putchar('\n');
	}
	buffer_free(&time);
}

typedef int bad_act(struct cli *c, const struct request *r, struct bad *b);

static int list_one(struct cli *c, const struct request *r, struct bad *b)
{
	(void)c;
	(r->json ? print_json : print_text)(b);
	return EX_OK;
}

static int show_one(struct cli *c, const struct request *r, struct bad *b)
{
	struct buffer text;
	(void)r;
	int error = read_tail(b, "BAD", BAD_LIMIT, &text);
	if (error == 0)
		(void)fwrite(text.at, 1, text.n, stdout);
	buffer_free(&text);
	return error == 0 ? EX_OK : cli_fail(c, EX_NOINPUT, "%s: %s", b->id, strerror(error));
}

static int remove_one(struct cli *c, const struct request *r, struct bad *b)
{
	static const char *const tails[] = {"BDP", "BDR", "BAD"};
	int error = 0;
	(void)r;
	for (size_t i = 0; i < COUNT_OF(tails) && error == 0; i++) {
		char name[80];
		(void)snprintf(name, sizeof name, "%s.%s", b->id, tails[i]);
		if (unlinkat(b->dir_fd, name, 0) != 0 && errno != ENOENT)
			error = errno;
	}
	return error == 0 ? EX_OK : cli_fail(c, error == EACCES ? EX_NOPERM : EX_IOERR, "%s: %s", b->id, strerror(error));
}

/* The file that goes to Pickup: the envelope as X- lines, then the message; a file that came from there is as it was. */
static int compose(const struct bad *b, struct buffer *out)
{
	struct buffer text;
	struct span value = {"", 0};
	if (value_of(b, "sender", 0, &value))
		buffer_printf(out, "X-Sender: %.*s\r\n", SPAN_ARG(value));
	for (size_t i = 0; value_of(b, "recipient", i, &value); i++)
		buffer_printf(out, "X-Receiver: %.*s\r\n", SPAN_ARG(value));
	int error = read_tail(b, "BAD", BAD_LIMIT, &text);
	buffer_put_span(out, buffer_span(&text));
	buffer_free(&text);
	return error != 0 ? error : buffer_ok(out) ? 0 : ENOMEM;
}

/* Into Pickup, whole and on disk, then out of Badmail: a kill between them sends it twice, never loses it. */
static int requeue_one(struct cli *c, const struct request *r, struct bad *b)
{
	struct buffer file;
	char name[80];
	buffer_init(&file, BAD_LIMIT);
	int error = compose(b, &file), fd = -1;
	if (error == 0) {
		fd = open(b->server->p.pickup_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		error = fd < 0 ? errno : 0;
	}
	(void)snprintf(name, sizeof name, "%s.eml", b->id);
	if (error == 0)
		error = replace_file_at(fd, name, buffer_span(&file), 0660);
	if (fd >= 0)
		(void)close(fd);
	buffer_free(&file);
	if (error != 0)
		return cli_fail(c, error == EACCES ? EX_NOPERM : EX_CANTCREAT, "%s: %s: %s", b->id, b->server->p.pickup_directory, strerror(error));
	return remove_one(c, r, b);
}

static int act_on(struct cli *c, const struct request *r, const struct server *s, int dir_fd, const char *file, bad_act *act)
{
	struct bad b = {.server = s, .dir_fd = dir_fd};
	(void)snprintf(b.id, sizeof b.id, "%.*s", (int)(strlen(file) - 4), file);
	if (fstatat(dir_fd, file, &b.st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(b.st.st_mode))
		return EX_NOINPUT;
	(void)!read_tail(&b, "BDP", TEXT_LIMIT, &b.envelope); /* a file that pickup refused has none */
	(void)!read_tail(&b, "BDR", TEXT_LIMIT, &b.reason);
	int status = act(c, r, &b);
	buffer_free(&b.envelope);
	buffer_free(&b.reason);
	return status;
}

static int is_bad(const struct dirent *d)
{
	struct span name = span_of(d->d_name);
	return name.n > 4 && name.n < 60 && name.at[0] != '.' && span_ends_case(name, SPAN_LIT(".BAD"));
}

static int list_all(struct cli *c, const struct request *r, const struct server *s, int dir_fd)
{
	struct dirent **names = NULL;
	int n = scandirat(dir_fd, ".", &names, is_bad, alphasort), status = EX_OK;
	for (int i = 0; i < n; i++) {
		if (status == EX_OK)
			status = act_on(c, r, s, dir_fd, names[i]->d_name, list_one);
		free(names[i]);
	}
	free(names);
	return n < 0 ? cli_fail(c, EX_NOPERM, "%s: %s", s->p.badmail_directory, strerror(errno)) : status;
}

static int one_of(struct cli *c, const struct request *r, const char *id, bad_act *act)
{
	int status = EX_NOINPUT;
	char file[80];
	if (strlen(id) > 50 || strchr(id, '/') != NULL || id[0] == '.')
		return cli_fail(c, EX_NOINPUT, "'%s': no such message in Badmail", id);
	(void)snprintf(file, sizeof file, "%s.BAD", id);
	for (size_t i = 0; i < c->config.servers_n && status == EX_NOINPUT; i++) {
		const struct server *s = &c->config.servers[i];
		if (r->server != NULL && strcmp(r->server, s->name) != 0)
			continue;
		int fd = open(s->p.badmail_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return cli_fail(c, errno == EACCES ? EX_NOPERM : EX_NOINPUT, "%s: %s", s->p.badmail_directory, strerror(errno));
		status = act_on(c, r, s, fd, file, act);
		(void)close(fd);
	}
	return status == EX_NOINPUT ? cli_fail(c, EX_NOINPUT, "%s: no such message in Badmail", id) : status;
}

static int list(struct cli *c, const struct request *r)
{
	int status = EX_OK;
	for (size_t i = 0; i < c->config.servers_n && status == EX_OK; i++) {
		const struct server *s = &c->config.servers[i];
		if (r->server != NULL && strcmp(r->server, s->name) != 0)
			continue;
		int fd = open(s->p.badmail_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			continue; /* the service has never run */
		status = fd < 0 ? cli_fail(c, EX_NOPERM, "%s: %s", s->p.badmail_directory, strerror(errno)) : list_all(c, r, s, fd);
		if (fd >= 0)
			(void)close(fd);
	}
	return status;
}

int badmail_run(struct cli *c, const struct request *r, char **args, int n)
{
	static const struct { const char *word; bad_act *act; } acts[] = {{"show", show_one}, {"requeue", requeue_one}, {"remove", remove_one}};
	int worst = EX_OK;
	if (n == 1 && strcmp(args[0], "list") == 0)
		return list(c, r);
	for (size_t i = 0; n > 1 && i < COUNT_OF(acts); i++) {
		if (strcmp(args[0], acts[i].word) != 0)
			continue;
		for (int k = 1; k < n; k++) {
			int status = one_of(c, r, args[k], acts[i].act);
			worst = status != EX_OK ? status : worst;
		}
		return worst;
	}
	return cli_fail(c, EX_USAGE, "badmail: list, or show, requeue or remove with ids, is needed");
}
