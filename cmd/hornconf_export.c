/* hornconf export, copy: the configuration for another machine, without mail, logs and state (MISSION A10). */
#include "cmd/hornconf.h"
#include "lookup/lookup.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <jansson.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

extern char **environ;

enum { FILE_MOST = 16 * 1024 * 1024, HOSTS_MOST = 64 };

/* ---- this machine ---- */

void machine_name(char out[256])
{
	(void)snprintf(out, 256, "localhost");
	(void)gethostname(out, 255);
}

/* Those that are not loopback's or of a link alone, as text. */
json_t *machine_addresses(void)
{
	struct own_addresses all = {.n = 0};
	json_t *list = json_array();
	if (own_read(&all) != 0)
		return list;
	for (size_t i = 0; i < all.n; i++) {
		char text[INET6_ADDRSTRLEN];
		const struct in6_addr *a = (const void *)all.list[i].addr;
		bool four = IN6_IS_ADDR_V4MAPPED(a);
		if (IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_LINKLOCAL(a) || IN6_IS_ADDR_UNSPECIFIED(a) || (four && (a->s6_addr[12] == 127 || a->s6_addr[12] == 0)))
			continue;
		if (inet_ntop(four ? AF_INET : AF_INET6, four ? (const void *)(a->s6_addr + 12) : a, text, sizeof text) != NULL)
			(void)json_array_append_new(list, json_string(text));
	}
	free(all.list);
	return list;
}

/* ---- export ---- */

static int add_file(struct cli *c, json_t *list, const char *name, bool must)
{
	struct buffer text;
	buffer_init(&text, FILE_MOST);
	int error = read_file_at(c->dir_fd, name, FILE_MOST, &text);
	json_t *bytes = error == 0 ? json_stringn(buffer_cstr(&text), text.n) : NULL;
	buffer_wipe(&text);
	if (error == ENOENT && !must)
		return 0;
	if (bytes == NULL)
		return cli_fail(c, error == EACCES ? EX_NOPERM : EX_NOINPUT, "%s/%s: %s", c->dir, name, error == 0 ? "not a text in UTF-8" : strerror(error));
	json_t *one = json_object();
	(void)json_object_set_new(one, "name", json_string(name));
	(void)json_object_set_new(one, "text", bytes);
	(void)json_array_append_new(list, one);
	return 0;
}

bool secret_each(const struct config *c, const char *dir, bool (*take)(void *context, const char *name), void *context)
{
	char name[PAIR_PATH];
	size_t n = strlen(dir);
	bool go_on = true;
	for (size_t i = 0; go_on && i < c->servers_n; i++) {
		const struct server *s = &c->servers[i];
		(void)snprintf(name, sizeof name, "servers/%s.passwd", s->name);
		go_on = take(context, name);
		for (size_t k = 0; go_on && k <= s->domains_n; k++) {
			const char *lists[] = {k == 0 ? s->p.out.outbound_password_file : s->domains[k - 1].p.out.outbound_password_file, k == 0 ? s->p.tls_certificate_file : "", k == 0 ? s->p.tls_key_file : "",
				i == 0 && k == 0 ? c->service.auth_ntlm_file : ""};
			for (size_t l = 0; go_on && l < COUNT_OF(lists); l++) {
				struct span rest = span_of(lists[l]);
				for (struct span word; go_on && (word = span_word(&rest, " \t,")).n > 0;) {
					(void)snprintf(name, sizeof name, "%.*s", SPAN_ARG(word));
					if (strncmp(name, dir, n) == 0 && name[n] == '/')
						go_on = take(context, name + n + 1);
				}
			}
		}
	}
	return go_on;
}

struct secrets {
	struct cli *cli;
	json_t *list;
	int status;
};

static bool add_secret(void *context, const char *name)
{
	struct secrets *s = context;
	json_t *one;
	size_t i;
	json_array_foreach(s->list, i, one)
		if (strcmp(json_string_value(json_object_get(one, "name")), name) == 0)
			return true;
	s->status = add_file(s->cli, s->list, name, false);
	return s->status == 0;
}

static int compose(struct cli *c, bool with_secrets, json_t **out)
{
	char host[256], name[200];
	json_t *root = json_object(), *files = json_array(), *secrets = json_array();
	machine_name(host);
	(void)json_object_set_new(root, "posthorn", json_string(EXPORT_FORM));
	(void)json_object_set_new(root, "host", json_string(host));
	(void)json_object_set_new(root, "addresses", machine_addresses());
	(void)json_object_set_new(root, "files", files);
	(void)json_object_set_new(root, "secrets", secrets);
	int status = add_file(c, files, "posthorn.conf", true);
	for (size_t i = 0; status == 0 && i < c->config.servers_n; i++) {
		(void)snprintf(name, sizeof name, "servers/%s.conf", c->config.servers[i].name);
		status = add_file(c, files, name, true);
	}
	struct secrets s = {.cli = c, .list = secrets};
	if (status == 0 && with_secrets && !secret_each(&c->config, c->dir, add_secret, &s))
		status = s.status;
	if (status != 0) {
		json_decref(root);
		root = NULL;
	}
	*out = root;
	return status;
}

static int write_out(struct cli *c, const char *file, const char *text)
{
	int fd = strcmp(file, "-") == 0 ? 1 : open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int error = fd < 0 || (fd > 1 && fchmod(fd, 0600) != 0) ? errno : write_all(fd, text, strlen(text));
	if (fd > 1 && close(fd) != 0 && error == 0)
		error = errno;
	return error == 0 ? 0 : cli_fail(c, EX_CANTCREAT, "%s: %s", file, strerror(error));
}

static char *dump(struct cli *c, bool with_secrets, int *status)
{
	json_t *root;
	*status = cli_load(c);
	if (*status == 0)
		*status = compose(c, with_secrets, &root);
	if (*status != 0)
		return NULL;
	char *text = json_dumps(root, JSON_INDENT(1));
	json_decref(root);
	if (text == NULL)
		*status = cli_fail(c, EX_OSERR, "not enough memory");
	return text;
}

int conf_export(struct cli *c, struct conf_options *o, char **args, int n)
{
	bool with_secrets = false;
	const char *file = NULL;
	int status;
	(void)o;
	for (int i = 0; i < n; i++)
		if (strcmp(args[i], "--with-secrets") == 0)
			with_secrets = true;
		else if (file == NULL)
			file = args[i];
		else
			return cli_fail(c, EX_USAGE, "export FILE [--with-secrets]");
	if (file == NULL)
		return cli_fail(c, EX_USAGE, "export FILE [--with-secrets]; - is standard output");
	char *text = dump(c, with_secrets, &status);
	if (text != NULL) {
		status = write_out(c, file, text);
		explicit_bzero(text, strlen(text));
		free(text);
	}
	return status;
}

/* ---- copy ---- */

/* The other side's hornconf reads it from its standard input. */
static int send_to(struct cli *c, const char *host, const char *user, const char *text)
{
	char command[4300];
	char *argv[8] = {NULL};
	size_t n = 0;
	int ends[2], status = 0;
	pid_t pid;
	posix_spawn_file_actions_t actions;
	(void)snprintf(command, sizeof command, "hornconf -c '%s' import -", c->dir);
	argv[n++] = (char *)(uintptr_t)"ssh";
	if (user != NULL) {
		argv[n++] = (char *)(uintptr_t)"-l";
		argv[n++] = (char *)(uintptr_t)user;
	}
	argv[n++] = (char *)(uintptr_t)"--";
	argv[n++] = (char *)(uintptr_t)host;
	argv[n++] = command;
	if (pipe2(ends, O_CLOEXEC) != 0)
		return cli_fail(c, EX_OSERR, "%s", strerror(errno));
	int error = posix_spawn_file_actions_init(&actions);
	if (error == 0)
		error = posix_spawn_file_actions_adddup2(&actions, ends[0], 0);
	if (error == 0)
		error = posix_spawnp(&pid, "ssh", &actions, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)close(ends[0]);
	if (error == 0)
		(void)!write_all(ends[1], text, strlen(text)); /* one that ends early says why itself */
	(void)close(ends[1]);
	if (error != 0)
		return cli_fail(c, EX_OSFILE, "ssh: %s", strerror(error));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	status = WIFEXITED(status) ? WEXITSTATUS(status) : EX_SOFTWARE;
	return status == 0 ? 0 : cli_fail(c, status, "%s: nothing was copied there", host);
}

int conf_copy(struct cli *c, struct conf_options *o, char **args, int n)
{
	static const char how[] = "copy --to HOST [--to HOST...] [--user USER] [--with-secrets]";
	const char *hosts[HOSTS_MOST], *user = NULL;
	size_t hosts_n = 0;
	bool with_secrets = false;
	int status, first = 0;
	(void)o;
	for (int i = 0; i < n; i++)
		if (strcmp(args[i], "--with-secrets") == 0)
			with_secrets = true;
		else if (strcmp(args[i], "--to") == 0 && i + 1 < n && hosts_n < HOSTS_MOST)
			hosts[hosts_n++] = args[++i];
		else if (strcmp(args[i], "--user") == 0 && i + 1 < n)
			user = args[++i];
		else
			return cli_fail(c, EX_USAGE, "%s", how);
	if (hosts_n == 0)
		return cli_fail(c, EX_USAGE, "%s", how);
	if (strpbrk(c->dir, "'\n") != NULL)
		return cli_fail(c, EX_USAGE, "%s: a directory of such a name cannot be named to the other side", c->dir);
	char *text = dump(c, with_secrets, &status);
	for (size_t i = 0; text != NULL && i < hosts_n; i++) {
		status = send_to(c, hosts[i], user, text);
		first = first == 0 ? status : first;
	}
	if (text != NULL)
		explicit_bzero(text, strlen(text));
	free(text);
	return first != 0 ? first : status;
}
