/* sendmail: hands in mail as Unix programs expect; setgid to the group that may write into maildrop. */
#include "cmd/sendmail.h"

#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

static const struct cli_option options[] = {
	{"-C", "DIR", "the configuration (/etc/posthorn)"},
	{"-t", "", "recipients from the header"},
	{"-i, -oi", "", "a dot alone on a line does not end the message"},
	{"-f", "ADDRESS", "the envelope's sender (also -r)"},
	{"-F", "NAME", "the full name for a From that is added"},
	{"-bm", "", "take a message (the standard)"},
	{"-bs", "", "speak SMTP on standard input and output"},
	{"-bp", "", "list the queue, as mailq"},
	{"-bi", "", "rebuild aliases, as newaliases"},
	{"-q", "", "try all that waits now"},
	{"-N", "NOTIFY", "taken for compatibility"},
	{"-R", "RETURN", "taken for compatibility"},
	{"-V", "ENVID", "taken for compatibility"},
	{"--help", "", "this text"},
};
static const char usage[] = "sendmail [-C DIR] [-t] [-i] [-f ADDRESS] [-F NAME] [-bm|-bs|-bp|-bi|-q] [recipient...]";

static const char *user_name(char out[64])
{
	const struct passwd *pw = getpwuid(getuid());
	if (pw != NULL)
		(void)snprintf(out, 64, "%s", pw->pw_name);
	else
		(void)snprintf(out, 64, "uid%u", (unsigned)getuid());
	return out;
}

/* "-X value" or "-Xvalue". */
static const char *value_of(int argc, char **argv, int *i, size_t flag_n)
{
	if (argv[*i][flag_n] != '\0')
		return argv[*i] + flag_n;
	return *i + 1 < argc ? argv[++*i] : NULL;
}

static int take_mode(struct sendmail *s, const char *arg)
{
	switch (arg[2]) {
	case 'm': return 0;
	case 's': s->mode = MODE_SMTP; return 0;
	case 'p': s->mode = MODE_LIST; return 0;
	case 'i': s->mode = MODE_ALIASES; return 0;
	default: return cli_fail(&s->cli, EX_USAGE, "mode '%s' is not there", arg);
	}
}

/* Historic flags that change nothing here are taken and ignored. */
static int take_option(struct sendmail *s, int argc, char **argv, int *i)
{
	const char *arg = argv[*i], *value;
	switch (arg[1]) {
	case 'C': value = value_of(argc, argv, i, 2); s->cli.dir = value; return value == NULL ? EX_USAGE : 0;
	case 'f': case 'r': value = value_of(argc, argv, i, 2); s->sender = value; return value == NULL ? EX_USAGE : 0;
	case 'F': value = value_of(argc, argv, i, 2); s->full_name = value; return value == NULL ? EX_USAGE : 0;
	case 't': s->from_header = true; return 0;
	case 'i': s->ignore_dots = true; return 0;
	case 'b': return take_mode(s, arg);
	case 'q': s->mode = MODE_FLUSH; return 0;
	case 'o':
		if (arg[2] == 'i')
			s->ignore_dots = true;
		else if (arg[2] == '\0' || arg[3] == '\0')
			(void)(arg[2] == '\0' ? value_of(argc, argv, i, 2) : NULL);
		return 0;
	case 'N': case 'R': case 'V': case 'B': case 'h': case 'L': case 'O': case 'p': case 'X':
		return value_of(argc, argv, i, 2) == NULL ? EX_USAGE : 0;
	default: return 0; /* -m, -n, -v, -G, -U, -e...: nothing to do */
	}
}

static int exec_sibling(struct sendmail *s, const char *name, const char *verb)
{
	char path[4200];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
	path[n > 0 ? n : 0] = '\0';
	char *slash = strrchr(path, '/');
	(void)snprintf(slash == NULL ? path : slash + 1, 16, "%s", name);
	if (setgid(getgid()) != 0)
		return EX_OSERR;
	(void)execl(path, name, "-c", s->cli.dir, verb, (char *)NULL);
	(void)snprintf(path, sizeof path, "/usr/sbin/%s", name);
	(void)execl(path, name, "-c", s->cli.dir, verb, (char *)NULL);
	return cli_fail(&s->cli, EX_UNAVAILABLE, "%s is not there", name);
}

/* All of standard input, without the dot that may end it. */
static int read_message(struct sendmail *s, struct buffer *out)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	while ((n = getline(&line, &size, stdin)) > 0) {
		if (!s->ignore_dots && (strcmp(line, ".\n") == 0 || strcmp(line, ".\r\n") == 0))
			break;
		buffer_put(out, line, (size_t)n);
		if (!buffer_ok(out))
			break;
	}
	free(line);
	if (!buffer_ok(out))
		return cli_fail(&s->cli, EX_DATAERR, "the message is too large");
	return 0;
}

static void put_sender(const struct sendmail *s, struct buffer *b)
{
	char user[64];
	const char *sender = s->sender == NULL ? user_name(user) : s->sender;
	struct span text = span_of(sender);
	if (text.n >= 2 && text.at[0] == '<' && text.at[text.n - 1] == '>')
		text = (struct span){text.at + 1, text.n - 2};
	buffer_printf(b, "X-Sender: <%.*s>\n", SPAN_ARG(text));
}

static bool line_is_safe(const char *text)
{
	return strpbrk(text, "\r\n") == NULL;
}

static void put_from(const struct sendmail *s, struct buffer *b, struct span message)
{
	struct header_walk w;
	char user[64];
	header_walk_init(&w);
	header_walk(&w, message);
	if ((w.seen & SEEN_FROM) == 0 && s->full_name != NULL)
		buffer_printf(b, "From: \"%s\" <%s>\n", s->full_name, s->sender == NULL ? user_name(user) : s->sender);
}

/* Written aside and renamed: pickup sees it only when it is whole. */
int sendmail_store(struct sendmail *s, struct span text)
{
	char path[1200], name[64];
	(void)snprintf(path, sizeof path, "%s/maildrop", s->cli.config.service.spool_directory);
	int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), error = dir < 0 ? errno : 0;
	(void)snprintf(name, sizeof name, "%llx-%d-%u", (unsigned long long)clock_wall_us(), (int)getpid(), ++s->serial);
	if (error == 0)
		error = hand_in_file_at(dir, name, text, 0640);
	if (dir >= 0)
		(void)close(dir);
	return error == 0 ? EX_OK : cli_fail(&s->cli, error == EACCES ? EX_NOPERM : EX_CANTCREAT, "%s: %s", path, strerror(error));
}

static int hand_in(struct sendmail *s, char **rcpts, int n)
{
	struct buffer message, file;
	int status;
	buffer_init(&message, 64 * 1024 * 1024);
	buffer_init(&file, 80 * 1024 * 1024);
	if (!s->from_header && n == 0)
		return cli_fail(&s->cli, EX_USAGE, "recipients are needed, or -t");
	if ((s->sender != NULL && !line_is_safe(s->sender)) || (s->full_name != NULL && !line_is_safe(s->full_name)))
		return cli_fail(&s->cli, EX_DATAERR, "a line break in an address or name");
	put_sender(s, &file);
	for (int i = 0; i < n; i++) {
		struct address a;
		if (address_parse(span_of(rcpts[i]), ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0)
			return cli_fail(&s->cli, EX_NOUSER, "'%s' is no address", rcpts[i]);
		buffer_printf(&file, "X-Receiver: <%s>\n", rcpts[i]);
	}
	status = read_message(s, &message);
	if (status == 0) {
		put_from(s, &file, buffer_span(&message));
		struct header_field h;
		struct span probe = buffer_span(&message);
		/* text without a header is a body */
		if (!header_next(&probe, &h) && message.n > 0 && message.at[0] != '\n' && message.at[0] != '\r')
			buffer_putc(&file, '\n');
		buffer_put_span(&file, buffer_span(&message));
		status = buffer_ok(&file) ? sendmail_store(s, buffer_span(&file)) : cli_fail(&s->cli, EX_DATAERR, "the message is too large");
	}
	buffer_free(&message);
	buffer_free(&file);
	return status;
}

static int run(struct sendmail *s, char **rcpts, int n)
{
	if (s->mode == MODE_LIST)
		return exec_sibling(s, "hornqueue", "list");
	if (s->mode == MODE_FLUSH)
		return exec_sibling(s, "hornqueue", "flush");
	if (s->mode == MODE_ALIASES)
		return exec_sibling(s, "hornmap", "aliases");
	int status = cli_load(&s->cli);
	if (status != 0)
		return status;
	return s->mode == MODE_SMTP ? sendmail_smtp(s) : hand_in(s, rcpts, n);
}

int main(int argc, char **argv)
{
	struct sendmail s = {.cli = {.program = "sendmail", .dir = "/etc/posthorn"}};
	char **rcpts = calloc((size_t)argc + 1, sizeof *rcpts);
	const char *self = strrchr(argv[0], '/') == NULL ? argv[0] : strrchr(argv[0], '/') + 1;
	int n = 0, status = 0;
	bool only_rcpts = false;
	if (rcpts == NULL)
		return EX_OSERR;
	(void)umask(027);
	s.mode = strcmp(self, "mailq") == 0 ? MODE_LIST : strcmp(self, "newaliases") == 0 ? MODE_ALIASES : MODE_MESSAGE;
	for (int i = 1; i < argc && status == 0; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			cli_help(usage, options, COUNT_OF(options));
			free(rcpts);
			return EX_OK;
		}
		if (!only_rcpts && strcmp(argv[i], "--") == 0)
			only_rcpts = true;
		else if (!only_rcpts && argv[i][0] == '-' && argv[i][1] != '\0')
			status = take_option(&s, argc, argv, &i);
		else
			rcpts[n++] = argv[i];
	}
	status = status != 0 ? cli_fail(&s.cli, status, "usage: %s", usage) : run(&s, rcpts, n);
	free(rcpts);
	return status;
}
