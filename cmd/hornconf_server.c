/* Servers as a whole: made, removed, renamed, copied; with the service running it follows at once. */
#include "cmd/common/holder.h"
#include "cmd/common/pair.h"
#include "cmd/hornconf.h"
#include "lease/lease.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

static void file_of(char out[200], const char *server, const char *kind)
{
	(void)snprintf(out, 200, "servers/%s.%s", server, kind);
}

static int check_new_name(struct cli *c, const char *name)
{
	if (!server_name_is_valid(span_of(name)))
		return cli_fail(c, EX_USAGE, "'%s': a server's name is letters, digits, - and _, at most 64", name);
	if (config_server(&c->config, span_of(name)) != NULL)
		return cli_fail(c, EX_USAGE, "there is a server '%s' already", name);
	return 0;
}

/* A new server's file; it goes away again when the whole is not good with it. */
static int add_file(struct cli *c, const char *name, struct span text)
{
	char file[200];
	struct complaint why;
	struct config fresh;
	file_of(file, name, "conf");
	int error = replace_file_at(c->dir_fd, file, text, 0644);
	if (error != 0)
		return cli_fail(c, error == EACCES ? EX_NOPERM : EX_CANTCREAT, "%s/%s: %s", c->dir, file, strerror(error));
	if (config_load(c->dir_fd, &fresh, &why) == 0) {
		config_free(&c->config);
		c->config = fresh;
		return EX_OK;
	}
	(void)unlinkat(c->dir_fd, file, 0);
	return cli_fail(c, EX_CONFIG, "%s; nothing was changed", why.reason);
}

/* ---- the running service ---- */

static int ask(struct cli *c, const char *act, const char *name, bool loud)
{
	struct buffer text;
	buffer_init(&text, 64 * 1024);
	int status = cli_ask(c, act, "-", name, NULL, NULL, &text);
	if (status != 0 && text.n > 0)
		(void)cli_fail(c, status, "%s", buffer_cstr(&text));
	else if (loud && memmem(text.at, text.n, "did not start", 13) != NULL) {
		(void)cli_fail(c, EX_OK, "%s", buffer_cstr(&text));
		holder_say(c->program, buffer_span(&text));
	}
	buffer_free(&text);
	return status;
}

/* The service takes up what has been written; without one there is nothing to do. */
static int follow(struct cli *c)
{
	if (cli_master(c) == 0)
		return EX_OK;
	int status = pair_make_missing(c);
	return status != 0 ? status : ask(c, "reload", "", true);
}

struct run {
	char state[20];
	long long sessions, queue;
};

static void keep(void *context, struct span bytes)
{
	buffer_put_span(context, bytes);
}

/* Of a server; state "stopped" without a service. */
static int ask_run(struct cli *c, const char *name, struct run *out)
{
	struct buffer json, text;
	*out = (struct run){.state = "stopped"};
	if (cli_master(c) == 0)
		return EX_OK;
	buffer_init(&json, 16 * 1024 * 1024);
	buffer_init(&text, 4096);
	int status = cli_ask(c, "status", "-", "", keep, &json, &text);
	json_t *root = status == 0 ? json_loadb(json.at, json.n, 0, NULL) : NULL, *one;
	size_t i;
	json_array_foreach(json_object_get(root, "servers"), i, one) {
		const char *found = json_string_value(json_object_get(one, "name")), *state = json_string_value(json_object_get(one, "state"));
		if (found == NULL || state == NULL || strcmp(found, name) != 0)
			continue;
		(void)snprintf(out->state, sizeof out->state, "%s", state);
		out->sessions = json_integer_value(json_object_get(one, "sessions"));
		out->queue = json_integer_value(json_object_get(one, "queue"));
	}
	if (status != 0)
		(void)cli_fail(c, status, "%s", buffer_cstr(&text));
	json_decref(root);
	buffer_free(&json);
	buffer_free(&text);
	return status;
}

static bool is_up(const struct run *r)
{
	return strcmp(r->state, "stopped") != 0 && strcmp(r->state, "stopping") != 0;
}

/* ---- add, clone ---- */

static int put_settings(struct cli *c, char **args, int n, struct buffer *text)
{
	int status = 0;
	for (int i = 0; i < n && status == 0; i++) {
		const struct param_row *row = NULL;
		const char *value;
		struct buffer with;
		status = conf_check_setting(c, SCOPE_SERVER, args[i], c->config.service.test_mode == 1, &row, &value);
		buffer_init(&with, 16 * 1024 * 1024);
		if (status == 0 && row != NULL && config_edit(buffer_span(text), NULL, span_of(row->name), value, &with) != 0)
			status = cli_fail(c, EX_OSERR, "not enough memory");
		if (status == 0) {
			buffer_clear(text);
			buffer_put_span(text, buffer_span(&with));
		}
		buffer_free(&with);
	}
	return status;
}

static int server_add(struct cli *c, char **args, int n)
{
	struct buffer text;
	int status = n < 1 ? cli_fail(c, EX_USAGE, "server add NAME [name=value...]") : check_new_name(c, args[0]);
	if (status != 0)
		return status;
	buffer_init(&text, 1024 * 1024);
	buffer_printf(&text, "# The virtual server '%s': posthorn.conf(5).\n", args[0]);
	status = put_settings(c, args + 1, n - 1, &text);
	if (status == 0)
		status = add_file(c, args[0], buffer_span(&text));
	buffer_free(&text);
	return status == 0 ? follow(c) : status;
}

static int server_clone(struct cli *c, char **args, int n)
{
	char from[200];
	struct buffer text;
	int status = n < 2 || config_server(&c->config, span_of(args[0])) == NULL ? cli_fail(c, EX_USAGE, "server clone OLD NEW [name=value...]: no such server") :
		check_new_name(c, args[1]);
	if (status != 0)
		return status;
	file_of(from, args[0], "conf");
	buffer_init(&text, 16 * 1024 * 1024);
	int error = read_file_at(c->dir_fd, from, 16 * 1024 * 1024, &text);
	status = error != 0 ? cli_fail(c, EX_NOINPUT, "%s: %s", from, strerror(error)) : put_settings(c, args + 2, n - 2, &text);
	if (status == 0)
		status = add_file(c, args[1], buffer_span(&text));
	buffer_free(&text);
	return status == 0 ? follow(c) : status;
}

/* ---- remove ---- */

/* What an orderly stop left in the queue: -1: it can't be told, as the queue was not stopped in order. */
static long long mail_left(const struct server *s)
{
	struct buffer text;
	uint64_t n;
	long long left = -1;
	int fd = open(s->p.queue_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	buffer_init(&text, 100);
	bool there = read_file_at(fd, "left", 100, &text) == 0;
	struct span rest = buffer_span(&text);
	if (there && parse_u64(span_until(&rest, '\n'), INT64_MAX, &n) == 0)
		left = (long long)n;
	(void)close(fd);
	buffer_free(&text);
	return left;
}

static size_t files_in(const char *path)
{
	DIR *d = opendir(path);
	size_t n = 0;
	for (const struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
		n += e->d_name[0] != '.';
	if (d != NULL)
		(void)closedir(d);
	return n;
}

static int remove_tree_at(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), error = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (d == NULL)
		return errno == ENOTDIR || errno == ELOOP ? (unlinkat(dir_fd, name, 0) == 0 ? 0 : errno) : errno == ENOENT ? 0 : errno;
	for (const struct dirent *e; error == 0 && (e = readdir(d)) != NULL;)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			error = e->d_type == DT_DIR ? remove_tree_at(fd, e->d_name) : unlinkat(fd, e->d_name, 0) == 0 ? 0 : errno;
	(void)closedir(d);
	if (error == 0 && unlinkat(dir_fd, name, AT_REMOVEDIR) != 0)
		error = errno;
	return error;
}

/* Nothing new is taken; what is there leaves. */
static int drain(struct cli *c, const struct server *s)
{
	struct run now;
	int status = ask(c, "pause", s->name, false);
	bool said = false;
	while (status == 0) {
		struct timespec wait = {.tv_nsec = 200000000}; /* what is counted comes a little later */
		(void)nanosleep(&wait, NULL);
		status = ask_run(c, s->name, &now);
		if (status != 0 || !is_up(&now) || (now.queue == 0 && now.sessions == 0 && files_in(s->p.pickup_directory) == 0))
			break;
		if (!said)
			(void)fprintf(stderr, "%s: server %s is paused; %lld message(s) and %lld session(s) are waited for; if this is ended, posthorn resume %s undoes it\n", c->program, s->name, now.queue, now.sessions, s->name);
		said = true;
	}
	return status;
}

/* Has another node the queue of a clustered server?  Then it is not this one's to move or delete.  One that nobody can read is. */
static bool is_held_elsewhere(const struct server *s, char node[LEASE_NODE])
{
	struct utsname u;
	struct lease_record r;
	struct buffer text;
	int fd = s->p.cluster == 0 ? -1 : open(s->p.queue_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool held = false;
	(void)snprintf(node, LEASE_NODE, "another node");
	if (fd < 0)
		return false;
	buffer_init(&text, LEASE_BYTES);
	int error = read_file_at(fd, "lease", LEASE_BYTES, &text);
	(void)close(fd);
	if (error == 0 && lease_parse(buffer_span(&text), &r) == 0) {
		held = r.held && (uname(&u) != 0 || strncmp(u.nodename, r.node, LEASE_NODE - 1) != 0);
		(void)snprintf(node, LEASE_NODE, "%s", r.node);
	} else {
		held = error != ENOENT;
	}
	buffer_free(&text);
	return held;
}

/* 0: it is stopped and has nothing that would be lost, or discard. */
static int empty_it(struct cli *c, const struct server *s, bool drained, bool discard)
{
	struct run was;
	int status = ask_run(c, s->name, &was);
	bool up = status == 0 && is_up(&was);
	if (status == 0 && drained && !up)
		return cli_fail(c, EX_UNAVAILABLE, "--drain: server %s does not run, so nothing leaves; posthorn start %s starts it", s->name, s->name);
	long long left = -1;
	size_t files = 0;
	do {
		if (status == 0 && drained)
			status = drain(c, s);
		if (status == 0 && up)
			status = ask(c, "stop", s->name, false);
		if (status != 0 || discard)
			return status;
		left = mail_left(s);
		files = files_in(s->p.pickup_directory);
		if (left == 0 && files == 0)
			return EX_OK;
		if (up)
			(void)ask(c, "start", s->name, false);
	} while (drained && left >= 0); /* something came at the last moment */
	if (left < 0)
		return cli_fail(c, EX_TEMPFAIL, "server %s was not stopped in order, so its queue may hold mail: posthorn start, then --drain sends it; --discard deletes it; nothing was changed", s->name);
	return cli_fail(c, EX_TEMPFAIL, "server %s has %lld message(s) in its queue and %zu file(s) in Pickup: --drain sends them first, --discard deletes them; nothing was changed", s->name, left, files);
}

static int server_remove(struct cli *c, char **args, int n)
{
	static const char *const kinds[] = {"passwd"};
	char file[200];
	bool drained = n == 2 && strcmp(args[1], "--drain") == 0, discard = n == 2 && strcmp(args[1], "--discard") == 0;
	const struct server *s = n >= 1 ? config_server(&c->config, span_of(args[0])) : NULL;
	if (s == NULL || (n != 1 && !drained && !discard))
		return cli_fail(c, EX_USAGE, "server remove NAME [--drain|--discard]: no such server");
	if (c->config.servers_n == 1)
		return cli_fail(c, EX_USAGE, "the last server cannot be removed");
	char node[LEASE_NODE];
	bool elsewhere = is_held_elsewhere(s, node);
	if (elsewhere && n == 2)
		return cli_fail(c, EX_UNAVAILABLE, "server %s: its queue is held by %s: nothing of it is sent or deleted from here; nothing was changed", s->name, node);
	int status = elsewhere ? EX_OK : empty_it(c, s, drained, discard);
	if (status != 0)
		return status;
	file_of(file, s->name, "conf");
	if (unlinkat(c->dir_fd, file, 0) != 0)
		return cli_fail(c, errno == EACCES ? EX_NOPERM : EX_CANTCREAT, "%s: %s", file, strerror(errno));
	for (size_t i = 0; i < COUNT_OF(kinds); i++) {
		file_of(file, s->name, kinds[i]);
		(void)unlinkat(c->dir_fd, file, 0);
	}
	static const char *const pair[] = {"crt", "key"};
	for (size_t i = 0; i < COUNT_OF(pair); i++) {
		(void)snprintf(file, sizeof file, "state/%s.%s", s->name, pair[i]);
		(void)unlinkat(c->dir_fd, file, 0);
	}
	status = cli_master(c) == 0 ? EX_OK : ask(c, "reload", "", false);
	if (elsewhere)
		(void)printf("%s stays: it is held by %s\n", s->p.queue_directory, node);
	int error = status == 0 && !elsewhere ? remove_tree_at(AT_FDCWD, s->p.queue_directory) : 0;
	if (error != 0)
		return cli_fail(c, EX_CANTCREAT, "%s: %s", s->p.queue_directory, strerror(error));
	if (access(s->p.home_directory, F_OK) == 0)
		(void)printf("%s stays, with what is in Drop, Badmail and Pickup\n", s->p.home_directory);
	return status;
}

/* ---- rename ---- */

/* The directories of a server, the one that holds the others first. */
static const char *directory_of(const struct server *s, size_t i)
{
	const char *const all[] = {s->p.home_directory, s->p.queue_directory, s->p.pickup_directory, s->p.badmail_directory, s->p.local.drop_directory};
	return i < COUNT_OF(all) ? all[i] : NULL;
}

/* moved: a bit for each that was. */
static int move_directories(struct cli *c, const struct server *from, const struct server *to, unsigned *moved)
{
	const char *a, *b;
	for (size_t i = 0; (a = directory_of(from, i)) != NULL && (b = directory_of(to, i)) != NULL; i++) {
		if (strcmp(a, b) == 0 || access(a, F_OK) != 0)
			continue;
		if (access(b, F_OK) == 0)
			return cli_fail(c, EX_CANTCREAT, "%s is there already: move it away first", b);
		if (rename(a, b) != 0)
			return cli_fail(c, EX_CANTCREAT, "%s cannot become %s: %s", a, b, strerror(errno));
		*moved |= 1u << i;
	}
	return EX_OK;
}

/* What has been moved already goes back. */
static void move_back(const struct server *from, const struct server *to, unsigned moved)
{
	const char *a, *b;
	for (size_t i = 0; (a = directory_of(from, i)) != NULL && (b = directory_of(to, i)) != NULL; i++)
		if ((moved & 1u << i) != 0)
			(void)rename(b, a);
}

/* What goes by the server's name; the file with its settings last. */
static int move_files(struct cli *c, const char *old, const char *fresh)
{
	static const struct { const char *folder, *kind; } all[] = {{"state", "crt"}, {"state", "key"}, {"servers", "passwd"}, {"servers", "conf"}};
	for (size_t i = 0; i < COUNT_OF(all); i++) {
		char from[200], to[200];
		(void)snprintf(from, sizeof from, "%s/%s.%s", all[i].folder, old, all[i].kind);
		(void)snprintf(to, sizeof to, "%s/%s.%s", all[i].folder, fresh, all[i].kind);
		if (renameat(c->dir_fd, from, c->dir_fd, to) != 0 && errno != ENOENT)
			return cli_fail(c, errno == EACCES ? EX_NOPERM : EX_CANTCREAT, "%s/%s: %s", c->dir, to, strerror(errno));
	}
	return EX_OK;
}

struct names {
	const char *old, *fresh;
};

static int edit_states(void *context, struct span text, struct buffer *out)
{
	const struct names *n = context;
	while (text.n > 0) {
		struct span line = span_until(&text, '\n'), word = span_word(&line, " "), name = span_word(&line, " ");
		buffer_printf(out, "%.*s%s%.*s\n", SPAN_ARG(word), name.n > 0 ? " " : "", SPAN_ARG(span_is(name, n->old) ? span_of(n->fresh) : name));
	}
	return 0;
}

static int server_rename(struct cli *c, char **args, int n)
{
	struct run was;
	struct complaint why;
	struct config old;
	int status = n != 2 || config_server(&c->config, span_of(args[0])) == NULL ? cli_fail(c, EX_USAGE, "server rename OLD NEW: no such server") :
		check_new_name(c, args[1]);
	if (status == 0)
		status = ask_run(c, args[0], &was);
	if (status != 0)
		return status;
	char node[LEASE_NODE];
	if (is_held_elsewhere(config_server(&c->config, span_of(args[0])), node))
		return cli_fail(c, EX_UNAVAILABLE, "server %s: its queue is held by %s: its directories are not renamed from here; nothing was changed", args[0], node);
	struct names names = {args[0], args[1]};
	unsigned moved = 0;
	bool up = is_up(&was);
	if (up && (status = ask(c, "stop", names.old, false)) != 0)
		return status;
	old = c->config;
	status = move_files(c, names.old, names.fresh);
	if (status == 0 && config_load(c->dir_fd, &c->config, &why) != 0)
		status = cli_fail(c, EX_CONFIG, "%s: %s", why.file, why.reason);
	else if (status == 0)
		status = move_directories(c, config_server(&old, span_of(names.old)), config_server(&c->config, span_of(names.fresh)), &moved);
	if (status != 0 && config_server(&c->config, span_of(names.fresh)) != NULL)
		move_back(config_server(&old, span_of(names.old)), config_server(&c->config, span_of(names.fresh)), moved);
	if (status != 0) { /* as it was */
		(void)move_files(c, names.fresh, names.old);
		if (up)
			(void)ask(c, "start", names.old, false);
		return status;
	}
	(void)cli_edit_file(c, "state/servers", edit_states, &names);
	status = follow(c);
	if (status == 0 && up)
		status = ask(c, "start", names.fresh, true);
	config_free(&old);
	return status;
}

static int server_list(struct cli *c, char **args, int n)
{
	(void)args;
	(void)n;
	for (size_t i = 0; i < c->config.servers_n; i++)
		(void)printf("%s\n", c->config.servers[i].name);
	return EX_OK;
}

typedef int part_function(struct cli *c, char **args, int n);

int conf_server(struct cli *c, struct conf_options *o, char **args, int n)
{
	static const struct { const char *word; part_function *run; } parts[] = {
		{"add", server_add}, {"remove", server_remove}, {"rename", server_rename}, {"clone", server_clone}, {"list", server_list}};
	int status = cli_load(c);
	(void)o;
	if (status != 0)
		return status;
	for (size_t i = 0; n > 0 && i < COUNT_OF(parts); i++)
		if (strcmp(args[0], parts[i].word) == 0)
			return parts[i].run(c, args + 1, n - 1);
	return cli_fail(c, EX_USAGE, "server: add, remove, rename, clone or list is needed");
}
