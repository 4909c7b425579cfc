/* hornconf import: the configuration of another machine (MISSION A10). */
#include "cmd/hornconf.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum { EXPORT_MOST = 256 * 1024 * 1024 };

struct import_job {
	struct cli *cli;
	json_t *root, *files, *secrets, *here; /* here: this machine's addresses */
	char aside[40]; /* a directory below DIR, until all is checked */
	int aside_fd;
	struct config fresh;
};

static int read_all(struct cli *c, const char *file, struct buffer *out)
{
	int fd = strcmp(file, "-") == 0 ? 0 : open(file, O_RDONLY | O_CLOEXEC), error = fd < 0 ? errno : 0;
	char part[65536];
	for (ssize_t n; error == 0 && (n = read(fd, part, sizeof part)) != 0;) {
		if (n < 0 && errno != EINTR)
			error = errno;
		else if (n > 0)
			buffer_put(out, part, (size_t)n);
	}
	if (fd > 0)
		(void)close(fd);
	if (error == 0 && !buffer_ok(out))
		error = EFBIG;
	return error == 0 ? 0 : cli_fail(c, EX_NOINPUT, "%s: %s", file, strerror(error));
}

static const char *name_of(json_t *one)
{
	return json_string_value(json_object_get(one, "name"));
}

static struct span text_of(json_t *one)
{
	json_t *text = json_object_get(one, "text");
	return (struct span){json_string_value(text), json_string_length(text)};
}

/* posthorn.conf, servers/NAME.conf, and nothing else. */
static bool is_file(const char *name)
{
	size_t n = name == NULL ? 0 : strlen(name);
	if (n > 0 && strcmp(name, "posthorn.conf") == 0)
		return true;
	return n > 13 && strncmp(name, "servers/", 8) == 0 && strcmp(name + n - 5, ".conf") == 0 && server_name_is_valid((struct span){name + 8, n - 13});
}

static bool is_export(struct import_job *j)
{
	json_t *one;
	size_t i;
	const char *form = json_string_value(json_object_get(j->root, "posthorn"));
	bool whole = false;
	j->files = json_object_get(j->root, "files");
	j->secrets = json_object_get(j->root, "secrets");
	if (form == NULL || strcmp(form, EXPORT_FORM) != 0 || !json_is_array(j->files) || !json_is_array(j->secrets))
		return false;
	json_array_foreach(j->files, i, one) {
		if (!is_file(name_of(one)) || text_of(one).at == NULL)
			return false;
		whole = whole || strcmp(name_of(one), "posthorn.conf") == 0;
	}
	json_array_foreach(j->secrets, i, one)
		if (name_of(one) == NULL || text_of(one).at == NULL)
			return false;
	return whole;
}

/* ---- what is of the machine ---- */

static size_t place_in(json_t *list, const char *text)
{
	json_t *one;
	size_t i;
	json_array_foreach(list, i, one)
		if (json_is_string(one) && strcmp(json_string_value(one), text) == 0)
			return i;
	return SIZE_MAX;
}

/* The address of this machine that stands for the other one's: the one of its family at the same place, else the first. */
static const char *counterpart(const struct import_job *j, json_t *there, const char *text)
{
	bool six = strchr(text, ':') != NULL;
	const char *best = NULL;
	size_t wanted = 0, n = 0, i;
	json_t *one;
	json_array_foreach(there, i, one) {
		const char *other = json_string_value(one);
		if (other == NULL || strcmp(other, text) == 0)
			break;
		wanted += (strchr(other, ':') != NULL) == six;
	}
	json_array_foreach(j->here, i, one) {
		const char *own = json_string_value(one);
		if ((strchr(own, ':') != NULL) != six)
			continue;
		if (n == 0 || n == wanted)
			best = own;
		n++;
	}
	return best;
}

/* "192.0.2.1:25, [2001:db8::1]:25": each address that was the other machine's and is not this one's. */
static bool change_listen(const struct import_job *j, const char *value, struct buffer *out)
{
	json_t *there = json_object_get(j->root, "addresses");
	struct span rest = span_of(value);
	bool changed = false;
	for (struct span word; (word = span_word(&rest, " \t,")).n > 0;) {
		const char *colon = memrchr(word.at, ':', word.n);
		struct span host = {word.at, colon == NULL ? word.n : (size_t)(colon - word.at)}, port = {colon == NULL ? "" : colon, colon == NULL ? 0 : word.n - host.n};
		char address[100];
		if (host.n > 2 && host.at[0] == '[')
			host = (struct span){host.at + 1, host.n - 2};
		(void)snprintf(address, sizeof address, "%.*s", SPAN_ARG(host));
		const char *own = place_in(there, address) == SIZE_MAX || place_in(j->here, address) != SIZE_MAX ? NULL : counterpart(j, there, address);
		buffer_puts(out, out->n > 0 ? ", " : "");
		if (own == NULL)
			buffer_put_span(out, word);
		else
			buffer_printf(out, strchr(own, ':') != NULL ? "[%s]%.*s" : "%s%.*s", own, SPAN_ARG(port));
		changed = changed || own != NULL;
	}
	return changed;
}

static int edit(struct span *text, struct buffer *keep, const char *name, const char *value)
{
	struct buffer fresh;
	buffer_init(&fresh, EXPORT_MOST);
	int error = config_edit(*text, NULL, span_of(name), value, &fresh);
	buffer_free(keep);
	*keep = fresh;
	*text = buffer_span(keep);
	return error;
}

/* One server's file as it is to be here.  A clustered server's name and addresses go with it from node to node. */
static int make_local(struct import_job *j, const struct server *s, struct span *text, struct buffer *keep)
{
	static const char *const lists[] = {"listen", "listen_tls", "listen_submission"};
	const char *values[] = {s->p.listen, s->p.listen_tls, s->p.listen_submission}, *there = json_string_value(json_object_get(j->root, "host"));
	char own[256];
	int error = 0;
	if (s->p.cluster != 0)
		return 0;
	machine_name(own);
	if (there != NULL && strcasecmp(s->p.fqdn, there) == 0 && strcasecmp(there, own) != 0 && setting_text(s->settings, param_find(SPAN_LIT("fqdn"), SCOPE_SERVER))[0] != '\0') {
		(void)printf("server %s: fqdn = %s, this machine's, for %s\n", s->name, own, there);
		error = edit(text, keep, "fqdn", own);
	}
	for (size_t i = 0; i < COUNT_OF(lists) && error == 0; i++) {
		struct buffer value;
		buffer_init(&value, 64 * 1024);
		if (change_listen(j, values[i], &value)) {
			(void)printf("server %s: %s = %s, this machine's, for %s\n", s->name, lists[i], buffer_cstr(&value), values[i]);
			error = edit(text, keep, lists[i], buffer_cstr(&value));
		}
		buffer_free(&value);
	}
	return error;
}

/* ---- aside, checked, then put into its place ---- */

static int write_aside(struct import_job *j, bool local)
{
	json_t *one;
	size_t i;
	int error = 0;
	json_array_foreach(j->files, i, one) {
		const char *name = name_of(one);
		struct span text = text_of(one);
		struct buffer keep;
		buffer_init(&keep, EXPORT_MOST);
		const struct server *s = NULL;
		if (local && strncmp(name, "servers/", 8) == 0)
			s = config_server(&j->fresh, (struct span){name + 8, strlen(name) - 13});
		if (s != NULL)
			error = make_local(j, s, &text, &keep);
		if (error == 0)
			error = replace_file_at(j->aside_fd, name, text, 0644);
		buffer_free(&keep);
		if (error != 0)
			return cli_fail(j->cli, EX_CANTCREAT, "%s/%s/%s: %s", j->cli->dir, j->aside, name, strerror(error));
	}
	return 0;
}

static int load_aside(struct import_job *j)
{
	struct complaint why;
	config_free(&j->fresh);
	j->fresh = (struct config){.servers = NULL};
	if (config_load(j->aside_fd, &j->fresh, &why) == 0)
		return 0;
	j->fresh = (struct config){.servers = NULL};
	return cli_fail(j->cli, EX_CONFIG, "%s%s%s; nothing was changed", why.file, why.file[0] == '\0' ? "" : ": ", why.reason);
}

/* Servers with their mail are not taken away in passing. */
static int check_servers(struct import_job *j)
{
	for (size_t i = 0; i < j->cli->config.servers_n; i++)
		if (config_server(&j->fresh, span_of(j->cli->config.servers[i].name)) == NULL)
			return cli_fail(j->cli, EX_CANTCREAT, "server %s is not in what is imported: hornconf server remove %s first; nothing was changed", j->cli->config.servers[i].name, j->cli->config.servers[i].name);
	return 0;
}

struct wanted_secret {
	const char *name;
	bool found;
};

static bool is_wanted(void *context, const char *name)
{
	struct wanted_secret *w = context;
	w->found = w->found || strcmp(name, w->name) == 0;
	return !w->found;
}

/* authd reads the logins, as hornpasswd leaves them; the others master opens as root. */
static gid_t group_of(const struct import_job *j, const char *name)
{
	char user[80];
	size_t n = strlen(name);
	(void)snprintf(user, sizeof user, "%s-auth", j->fresh.service.mail_owner);
	const struct passwd *pw = geteuid() == 0 && n > 7 && strcmp(name + n - 7, ".passwd") == 0 ? getpwnam(user) : NULL;
	return pw == NULL ? (gid_t)-1 : pw->pw_gid;
}

static int put_secrets(struct import_job *j)
{
	json_t *one;
	size_t i;
	json_array_foreach(j->secrets, i, one) {
		struct wanted_secret w = {.name = name_of(one)};
		(void)secret_each(&j->fresh, j->cli->dir, is_wanted, &w);
		if (!w.found || strstr(w.name, "..") != NULL || w.name[0] == '/')
			return cli_fail(j->cli, EX_DATAERR, "%s: the configuration names no such file; nothing was changed", w.name);
		const char *slash = strrchr(w.name, '/');
		char folder[PAIR_PATH];
		(void)snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 0 : (int)(slash - w.name), w.name);
		if (folder[0] != '\0' && mkdirat(j->cli->dir_fd, folder, 0755) != 0 && errno != EEXIST)
			return cli_fail(j->cli, EX_CANTCREAT, "%s/%s: %s", j->cli->dir, folder, strerror(errno));
		gid_t gid = group_of(j, w.name);
		int error = replace_group_file_at(j->cli->dir_fd, w.name, text_of(one), gid == (gid_t)-1 ? 0600 : 0640, gid);
		if (error != 0)
			return cli_fail(j->cli, EX_CANTCREAT, "%s/%s: %s", j->cli->dir, w.name, strerror(error));
	}
	return 0;
}

/* All of it is on the disk by now: names change, one after the other, and back when one can't. */
static int put_files(struct import_job *j)
{
	json_t *one;
	size_t i, done = 0;
	int error = 0;
	json_array_foreach(j->files, i, one) {
		char from[300];
		(void)snprintf(from, sizeof from, "%s/%s", j->aside, name_of(one));
		/* exchanged, where there was one: what it was is aside then */
		if (renameat2(j->cli->dir_fd, from, j->cli->dir_fd, name_of(one), 2 /* RENAME_EXCHANGE */) != 0 && ((errno != ENOENT && errno != EINVAL) || renameat(j->cli->dir_fd, from, j->cli->dir_fd, name_of(one)) != 0))
			error = errno;
		if (error != 0)
			break;
		done++;
	}
	for (size_t k = 0; error != 0 && k < done; k++) {
		char from[300];
		const char *name = name_of(json_array_get(j->files, k));
		(void)snprintf(from, sizeof from, "%s/%s", j->aside, name);
		if (renameat2(j->cli->dir_fd, from, j->cli->dir_fd, name, 2) != 0)
			(void)renameat(j->cli->dir_fd, name, j->cli->dir_fd, from);
	}
	return error == 0 ? 0 : cli_fail(j->cli, EX_CANTCREAT, "%s: %s; nothing was changed", j->cli->dir, strerror(error));
}

static void clear_aside(struct import_job *j)
{
	json_t *one;
	size_t i;
	if (j->aside_fd < 0)
		return;
	json_array_foreach(j->files, i, one)
		(void)unlinkat(j->aside_fd, name_of(one), 0);
	(void)unlinkat(j->aside_fd, "servers", AT_REMOVEDIR);
	(void)close(j->aside_fd);
	(void)unlinkat(j->cli->dir_fd, j->aside, AT_REMOVEDIR);
}

/* ---- what is missing here ---- */

static void tell_missing(const char *server, const char *domain, const struct setting *list)
{
	for (const struct setting *s = list; s != NULL; s = s->next) {
		struct span rest = span_of(s->text), word;
		bool bad = false;
		if (s->row->kind != KIND_PATH && s->row->kind != KIND_FILES && s->row->kind != KIND_MAPS)
			continue;
		while (s->row->kind == KIND_MAPS ? map_spec_next(&rest, &word, &bad) : (word = span_word(&rest, " \t,")).n > 0) {
			char path[1200];
			(void)snprintf(path, sizeof path, "%.*s", SPAN_ARG(word));
			if (s->row->kind == KIND_MAPS)
				map_spec_path(word, path, sizeof path);
			if (path[0] == '/' && access(path, F_OK) != 0)
				(void)printf("%s%s%s%s%s: %s is not there\n", server, domain[0] == '\0' ? "" : " [", domain, domain[0] == '\0' ? " " : "] ", s->row->name, path);
		}
	}
}

static void tell_all_missing(const struct config *c)
{
	tell_missing("service", "", c->settings);
	for (size_t i = 0; i < c->servers_n; i++) {
		tell_missing(c->servers[i].name, "", c->servers[i].settings);
		for (size_t k = 0; k < c->servers[i].domains_n; k++)
			tell_missing(c->servers[i].name, c->servers[i].domains[k].name, c->servers[i].domains[k].settings);
	}
}

static int run(struct import_job *j)
{
	(void)snprintf(j->aside, sizeof j->aside, ".import-%d", (int)getpid());
	if (mkdirat(j->cli->dir_fd, j->aside, 0700) != 0)
		return cli_fail(j->cli, errno == EACCES ? EX_NOPERM : EX_CANTCREAT, "%s/%s: %s", j->cli->dir, j->aside, strerror(errno));
	j->aside_fd = openat(j->cli->dir_fd, j->aside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (j->aside_fd < 0 || mkdirat(j->aside_fd, "servers", 0755) != 0)
		return cli_fail(j->cli, EX_CANTCREAT, "%s/%s: %s", j->cli->dir, j->aside, strerror(errno));
	int status = write_aside(j, false);
	if (status == 0)
		status = load_aside(j);
	if (status == 0)
		status = check_servers(j);
	if (status == 0)
		status = write_aside(j, true);
	if (status == 0)
		status = load_aside(j);
	if (status == 0)
		status = put_secrets(j);
	if (status == 0)
		status = put_files(j);
	if (status == 0)
		tell_all_missing(&j->fresh);
	return status;
}

int conf_import(struct cli *c, struct conf_options *o, char **args, int n)
{
	struct import_job j = {.cli = c, .aside_fd = -1};
	struct buffer text;
	json_error_t e;
	(void)o;
	if (n != 1)
		return cli_fail(c, EX_USAGE, "import FILE; - is standard input");
	(void)umask(022);
	if (mkdir_chain(c->dir, 0755) != 0 && errno != EEXIST)
		return cli_fail(c, EX_CANTCREAT, "%s: %s", c->dir, strerror(errno));
	int status = cli_open(c);
	if (status == 0 && faccessat(c->dir_fd, "posthorn.conf", F_OK, 0) == 0)
		status = cli_load(c);
	else if (status == 0 && mkdirat(c->dir_fd, "servers", 0755) != 0 && errno != EEXIST)
		status = cli_fail(c, EX_CANTCREAT, "%s/servers: %s", c->dir, strerror(errno));
	buffer_init(&text, EXPORT_MOST);
	if (status == 0)
		status = read_all(c, args[0], &text);
	if (status == 0 && ((j.root = json_loadb(text.at, text.n, JSON_REJECT_DUPLICATES, &e)) == NULL || !is_export(&j)))
		status = cli_fail(c, EX_DATAERR, "%s: not what hornconf export writes%s%s", args[0], j.root == NULL ? ": " : "", j.root == NULL ? e.text : "");
	if (status == 0) {
		j.here = machine_addresses();
		status = run(&j);
		clear_aside(&j);
	}
	buffer_wipe(&text);
	json_decref(j.here);
	json_decref(j.root);
	config_free(&j.fresh);
	if (status == 0 && c->config.service.run_directory != NULL && cli_master(c) != 0)
		(void)printf("the service goes on as it was: posthorn reload puts the new configuration into force\n");
	return status;
}
