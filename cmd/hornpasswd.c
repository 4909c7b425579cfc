/* hornpasswd: who may log in at a server, with auth_methods = basic. */
#include "cmd/common/cli.h"
#include "passwd/passwd.h"

#include <bsd/readpassphrase.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static const struct cli_option options[] = {
	{"-c", "DIR", "the configuration (/etc/posthorn)"},
	{"-s", "SERVER", "the virtual server (default)"},
	{"--cram-md5", "", "add: for CRAM-MD5 too, which old clients want"},
	{"--json", "", "list: JSON objects, one a line"},
	{"--help", "", "this text"},
};
static const char usage[] = "hornpasswd [-c DIR] [-s SERVER] add [--cram-md5] USER | check USER | remove USER | list [--json]";

struct request {
	struct cli cli;
	const char *server, *act;
	char name[PASSWD_NAME_MOST + 1], file[120];
	bool json, cram;
	int servers_fd;
	struct buffer old;
	struct passwd_file users;
};

static int read_users(struct request *r)
{
	struct stat st;
	unsigned line;
	int error = read_plain_file_at(r->servers_fd, r->file, PASSWD_FILE_MOST, &r->old, &st);
	if (error == ENOENT)
		return 0;
	if (error != 0)
		return cli_fail(&r->cli, error == EACCES ? EX_NOPERM : EX_IOERR, "%s/servers/%s: %s", r->cli.dir, r->file, strerror(error));
	error = passwd_parse(buffer_span(&r->old), &r->users, &line);
	if (error == EINVAL && line > 0)
		return cli_fail(&r->cli, EX_DATAERR, "%s/servers/%s:%u: this line is no good, or its name is there twice; nothing was changed", r->cli.dir, r->file, line);
	return error == 0 ? 0 : cli_fail(&r->cli, EX_OSERR, "%s", strerror(error));
}

static int ask_twice(struct request *r, char *first, size_t size)
{
	char *second = calloc(1, size);
	bool twice = strcmp(r->act, "add") == 0;
	int status = second == NULL || readpassphrase("Password: ", first, size, RPP_REQUIRE_TTY) == NULL ? EX_NOINPUT : 0;
	if (status == 0 && twice && (readpassphrase("Once more: ", second, size, RPP_REQUIRE_TTY) == NULL || strcmp(first, second) != 0))
		status = cli_fail(&r->cli, EX_DATAERR, "the two are not the same; nothing was changed");
	if (second != NULL)
		explicit_bzero(second, size);
	free(second);
	return status;
}

/* The first line of standard input, or what is typed when that is a terminal. */
static int read_word(struct request *r, char *word, size_t size)
{
	size_t n = 0;
	ssize_t got = 1;
	if (isatty(STDIN_FILENO))
		return ask_twice(r, word, size);
	while (n < size - 1 && got > 0 && memchr(word, '\n', n) == NULL) {
		got = read(STDIN_FILENO, word + n, size - 1 - n);
		n += got > 0 ? (size_t)got : 0;
	}
	word[n] = '\0';
	word[strcspn(word, "\r\n")] = '\0';
	if (word[0] == '\0')
		return cli_fail(&r->cli, EX_NOINPUT, "no password on standard input; nothing was changed");
	return 0;
}

/* As root, authd's user reads it by its group. */
static int write_users(struct request *r, struct span text)
{
	char user[80];
	(void)snprintf(user, sizeof user, "%s-auth", r->cli.config.service.mail_owner);
	bool root = geteuid() == 0;
	const struct passwd *pw = root ? getpwnam(user) : NULL;
	if (root && pw == NULL)
		return cli_fail(&r->cli, EX_NOUSER, "no user %s: run systemd-sysusers on conf/posthorn.sysusers (make setup does it)", user);
	int error = replace_group_file_at(r->servers_fd, r->file, text, root ? 0640 : 0600, root ? pw->pw_gid : (gid_t)-1);
	return error == 0 ? 0 : cli_fail(&r->cli, error == EACCES ? EX_NOPERM : EX_CANTCREAT, "%s/servers/%s: %s", r->cli.dir, r->file, strerror(error));
}

/* The old lines but the user's own, comments too, and what stands in its place. */
static void put_lines(struct request *r, struct span line, struct buffer *out)
{
	struct span rest = buffer_span(&r->old);
	bool placed = false;
	while (rest.n > 0) {
		struct span old = span_until(&rest, '\n'), value = old;
		struct span name = span_until(&value, ':');
		bool own = old.n > 0 && old.at[0] != '#' && span_is(span_trim(name), r->name);
		if (!own) {
			buffer_put_span(out, old);
			buffer_putc(out, '\n');
		} else if (!placed) {
			buffer_put_span(out, line);
			placed = true;
		}
	}
	if (!placed)
		buffer_put_span(out, line);
}

static int rewrite(struct request *r, struct span line)
{
	struct buffer fresh;
	int error = 0;
	buffer_init(&fresh, PASSWD_FILE_MOST);
	if (r->old.n == 0)
		error = passwd_put_head(&fresh);
	put_lines(r, line, &fresh);
	int status = error != 0 || !buffer_ok(&fresh) ? cli_fail(&r->cli, EX_OSERR, "%s", strerror(error != 0 ? error : ENOMEM)) : write_users(r, buffer_span(&fresh));
	buffer_wipe(&fresh);
	return status;
}

static int add(struct request *r, const char *word)
{
	struct buffer line;
	bool known = passwd_find(&r->users, span_of(r->name)) != NULL;
	buffer_init(&line, 4096);
	int error = passwd_put_row(&line, span_of(r->name), span_of(word), r->cram);
	int status = error == EINVAL ? cli_fail(&r->cli, EX_DATAERR, "this password can't be used: 1 to %d bytes, no control characters; nothing was changed", PASSWD_WORD_MOST) :
		error != 0 ? cli_fail(&r->cli, EX_OSERR, "%s", strerror(error)) : rewrite(r, buffer_span(&line));
	if (status == 0)
		(void)printf("%s: %s\n", r->name, known ? "password changed" : "added");
	buffer_free(&line);
	return status;
}

static int with_word(struct request *r)
{
	char word[PASSWD_WORD_MOST + 2] = "";
	bool known = passwd_find(&r->users, span_of(r->name)) != NULL;
	int status = read_word(r, word, sizeof word);
	if (status == 0 && strcmp(r->act, "add") == 0)
		status = add(r, word);
	else if (status == 0 && !passwd_verify(passwd_find(&r->users, span_of(r->name)), span_of(word)))
		status = cli_fail(&r->cli, EX_NOPERM, "%s: %s", r->name, known ? "that is not the password" : "no such user");
	else if (status == 0)
		(void)printf("%s: good\n", r->name);
	explicit_bzero(word, sizeof word);
	return status;
}

static int remove_user(struct request *r)
{
	if (passwd_find(&r->users, span_of(r->name)) == NULL)
		return cli_fail(&r->cli, EX_NOUSER, "%s: no such user of server %s", r->name, r->server);
	int status = rewrite(r, (struct span){"", 0});
	if (status == 0)
		(void)printf("%s: removed\n", r->name);
	return status;
}

static int list(struct request *r)
{
	struct buffer b;
	buffer_init(&b, PASSWD_FILE_MOST);
	for (size_t i = 0; i < r->users.n; i++) {
		if (r->json) {
			buffer_puts(&b, "{\"user\":");
			buffer_put_json(&b, r->users.rows[i].name);
			buffer_puts(&b, "}\n");
		} else {
			buffer_put_span(&b, r->users.rows[i].name);
			buffer_putc(&b, '\n');
		}
	}
	int status = fwrite(b.at == NULL ? "" : b.at, 1, b.n, stdout) == b.n && fflush(stdout) == 0 ? 0 : cli_fail(&r->cli, EX_IOERR, "standard output: %s", strerror(errno));
	buffer_free(&b);
	return status;
}

/* As at a login: a name without @ gets auth_default_domain.  One that is in the file as it was said stays that, to be checked and removed. */
static int settle_name(struct request *r)
{
	const char *domain = config_server(&r->cli.config, span_of(r->server))->p.auth_default_domain;
	bool is_there = passwd_find(&r->users, span_of(r->name)) != NULL && strcmp(r->act, "add") != 0;
	char whole[2 * sizeof r->name];
	if (domain[0] == '\0' || strchr(r->name, '@') != NULL || is_there)
		return 0;
	int n = snprintf(whole, sizeof whole, "%s@%s", r->name, domain);
	if (n < 0 || (size_t)n >= sizeof r->name)
		return cli_fail(&r->cli, EX_USAGE, "'%s': with auth_default_domain = %s this name is longer than %d characters", r->name, domain, PASSWD_NAME_MOST);
	memcpy(r->name, whole, (size_t)n + 1);
	passwd_fold(r->name, strlen(r->name));
	return 0;
}

static int open_server(struct request *r)
{
	int status = cli_load(&r->cli);
	if (status != 0)
		return status;
	if (config_server(&r->cli.config, span_of(r->server)) == NULL)
		return cli_fail(&r->cli, EX_USAGE, "there is no server %s", r->server);
	(void)snprintf(r->file, sizeof r->file, "%s.passwd", r->server);
	r->servers_fd = openat(r->cli.dir_fd, "servers", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->servers_fd < 0)
		return cli_fail(&r->cli, EX_NOINPUT, "%s/servers: %s", r->cli.dir, strerror(errno));
	if ((strcmp(r->act, "add") == 0 || strcmp(r->act, "remove") == 0) && flock(r->servers_fd, LOCK_EX) != 0)
		return cli_fail(&r->cli, EX_TEMPFAIL, "%s/servers: %s", r->cli.dir, strerror(errno));
	buffer_init(&r->old, PASSWD_FILE_MOST);
	return read_users(r);
}

static int run(struct request *r, char **args, int n)
{
	static const struct { const char *act; int args; int (*run)(struct request *); } acts[] = {
		{"add", 2, with_word}, {"check", 2, with_word}, {"remove", 2, remove_user}, {"list", 1, list}};
	for (size_t i = 0; n > 0 && i < COUNT_OF(acts); i++) {
		if (strcmp(args[0], acts[i].act) != 0 || n != acts[i].args)
			continue;
		r->act = args[0];
		if (r->cram && strcmp(r->act, "add") != 0)
			return cli_fail(&r->cli, EX_USAGE, "--cram-md5 goes with add");
		if (n == 2 && (!passwd_name_is_valid(span_of(args[1])) || strlen(args[1]) >= sizeof r->name))
			return cli_fail(&r->cli, EX_USAGE, "'%s': a user is 1 to %d characters without blanks and colons", args[1], PASSWD_NAME_MOST);
		if (n == 2)
			(void)snprintf(r->name, sizeof r->name, "%s", args[1]);
		passwd_fold(r->name, strlen(r->name));
		int status = open_server(r);
		if (status == 0)
			status = settle_name(r);
		return status != 0 ? status : acts[i].run(r);
	}
	return cli_fail(&r->cli, EX_USAGE, "usage: %s", usage);
}

int main(int argc, char **argv)
{
	struct request r = {.cli = {.program = "hornpasswd", .dir = "/etc/posthorn"}, .server = "default"};
	char *args[3] = {NULL};
	int n = 0;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			cli_help(usage, options, COUNT_OF(options));
			return 0;
		}
		if (strcmp(argv[i], "--json") == 0)
			r.json = true;
		else if (strcmp(argv[i], "--cram-md5") == 0)
			r.cram = true;
		else if (strcmp(argv[i], "-c") == 0 && i + 1 < argc)
			r.cli.dir = argv[++i];
		else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc)
			r.server = argv[++i];
		else if (argv[i][0] == '-' && argv[i][1] != '\0')
			return cli_fail(&r.cli, EX_USAGE, "%s: no such option; usage: %s", argv[i], usage);
		else if (n == 2)
			return cli_fail(&r.cli, EX_USAGE, "usage: %s", usage);
		else
			args[n++] = argv[i];
	}
	int status = run(&r, args, n);
	passwd_free(&r.users);
	config_free(&r.cli.config);
	return status;
}
