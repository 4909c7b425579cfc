/* posthorn: starts, stops, shows the service. */
#include "cmd/common/cli.h"
#include "cmd/common/holder.h"
#include "cmd/common/pair.h"
#include "cmd/common/run.h"
#include "cmd/posthorn_check.h"
#include "route/explain.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

static const struct cli_option options[] = {
	{"-c", "DIR", "the configuration (/etc/posthorn)"},
	{"-F", "", "start in the foreground"},
	{"-s", "SERVER", "explain: for this server (default); log, check: of this server alone"},
	{"--from", "ADDRESS", "explain: the sender, and the relay decision"},
	{"--client", "ADDRESS", "explain: the client, and the relay decision"},
	{"--probe", "DOMAIN", "check: a domain whose mail server is connected to"},
	{"--json", "", "status, explain, log and check as JSON"},
	{"--help", "", "this text"},
};
static const char usage[] = "posthorn [-c DIR] start [-F] [SERVER...] | stop [SERVER...] | pause [SERVER...] | resume [SERVER...] | reload | upgrade | status [--json]\n"
	"       posthorn [-c DIR] explain [-s SERVER] [--from ADDRESS] [--client ADDRESS] [--json] ADDRESS\n"
	"       posthorn [-c DIR] log operators [-s SERVER] [--json]\n"
	"       posthorn [-c DIR] check [-s SERVER] [--probe DOMAIN] [--json]";

struct request {
	bool foreground, json;
	const char *verb, *server, *from, *client, *probe, *address;
	char names[4096]; /* of servers, with blanks */
};

static void libexec_path(char *out, size_t size)
{
	char beside[RUN_PATH];
	run_beside(beside, "libexec");
	(void)snprintf(out, size, "%s", beside);
	if (access(out, X_OK) != 0)
		(void)snprintf(out, size, "%s", POSTHORN_LIBEXEC);
}

static _Noreturn void exec_master(const struct cli *c, const char *libexec, const struct request *r, int notify)
{
	char program[4200], fd[16];
	(void)snprintf(program, sizeof program, "%s/master", libexec);
	(void)snprintf(fd, sizeof fd, "%d", notify);
	if (r->foreground)
		(void)execl(program, "posthorn: master", "-F", "-c", c->dir, "-l", libexec, "-s", r->names, (char *)NULL);
	else
		(void)execl(program, "posthorn: master", "-c", c->dir, "-l", libexec, "-s", r->names, "-n", fd, (char *)NULL);
	(void)fprintf(stderr, "posthorn: cannot run %s: %s\n", program, strerror(errno));
	_exit(EX_OSFILE);
}

/* The master says "STATUS TEXT" when mail is accepted, or why not. */
static int wait_for_start(struct cli *c, int fd)
{
	char line[1000];
	size_t used = 0;
	ssize_t n;
	while (used < sizeof line - 1 && (n = read(fd, line + used, sizeof line - 1 - used)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		used += (size_t)n;
	}
	struct span rest = {line, used};
	uint64_t status;
	struct span text = span_until(&rest, '\n');
	if (parse_u64(span_word(&text, " "), 255, &status) != 0)
		return cli_fail(c, EX_SOFTWARE, "the master ended without a word; its log may say why");
	text = span_trim(text);
	holder_say(c->program, text);
	if (status == 0 && text.n > 0) /* the service runs, but not all of its servers */
		return cli_fail(c, EX_OK, "%.*s", SPAN_ARG(text));
	return status == 0 ? EX_OK : cli_fail(c, (int)status, "%.*s", SPAN_ARG(text));
}

/* Each must be there before anything is done. */
static int known_names(struct cli *c, const struct request *r)
{
	struct span names = span_of(r->names);
	for (struct span name; (name = span_word(&names, " ")).n > 0;)
		if (config_server(&c->config, name) == NULL)
			return cli_fail(c, EX_USAGE, "no server '%.*s'; nothing was changed", SPAN_ARG(name));
	return EX_OK;
}

static int act(struct cli *c, const struct request *r);

static int start(struct cli *c, const struct request *r)
{
	char libexec[4200];
	int ends[2];
	int status = known_names(c, r);
	if (status == 0)
		status = pair_make_missing(c);
	if (status != 0)
		return status;
	if (r->names[0] != '\0' && cli_master(c) != 0)
		return act(c, r);
	libexec_path(libexec, sizeof libexec);
	if (r->foreground)
		exec_master(c, libexec, r, -1);
	if (pipe(ends) != 0)
		return cli_fail(c, EX_OSERR, "%s", strerror(errno));
	pid_t pid = fork();
	if (pid < 0)
		return cli_fail(c, EX_OSERR, "%s", strerror(errno));
	if (pid == 0) {
		(void)setsid();
		(void)close(ends[0]);
		int null = open("/dev/null", O_RDWR);
		(void)dup2(null, 0);
		(void)dup2(null, 1);
		if (strcmp(c->config.service.log_target, "stderr") != 0 && strcmp(c->config.service.log_target, "journal") != 0)
			(void)dup2(null, 2);
		exec_master(c, libexec, r, ends[1]);
	}
	(void)close(ends[1]);
	return wait_for_start(c, ends[0]);
}

static int stop(struct cli *c)
{
	pid_t pid = cli_master(c);
	if (pid == 0)
		return cli_fail(c, EX_UNAVAILABLE, "the service is not running");
	if (kill(pid, SIGTERM) != 0)
		return cli_fail(c, EX_NOPERM, "cannot end process %d: %s", (int)pid, strerror(errno));
	for (unsigned i = 0; i < 12000; i++) { /* two minutes: the master itself ends what does not end */
		struct timespec wait = {.tv_nsec = 10000000};
		if (cli_master(c) == 0)
			return EX_OK;
		(void)nanosleep(&wait, NULL);
	}
	return cli_fail(c, EX_TEMPFAIL, "the service has not ended after two minutes");
}

static void keep(void *context, struct span bytes)
{
	buffer_put_span(context, bytes);
}

static void print_server(const struct server *s, const char *state, const char *reason)
{
	(void)printf("  %-16s %-8s listens on %s", s->name, state == NULL ? "" : state, s->p.listen);
	if (s->p.listen_tls[0] != '\0')
		(void)printf("; with TLS on %s", s->p.listen_tls);
	if (s->p.listen_submission[0] != '\0')
		(void)printf("; for submission on %s", s->p.listen_submission);
	if (reason != NULL && reason[0] != '\0')
		(void)printf("; it did not start: %s", reason);
	(void)putchar('\n');
}

static int status_text(struct cli *c, const struct buffer *answer)
{
	pid_t pid = cli_master(c);
	json_t *root = json_loadb(answer->at, answer->n, 0, NULL), *one;
	const char *state = json_string_value(json_object_get(root, "state"));
	size_t i;
	(void)printf("the service is %s, process %d\n", state == NULL ? "running" : state, (int)pid);
	json_array_foreach(json_object_get(root, "servers"), i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));
		const struct server *s = name == NULL ? NULL : config_server(&c->config, span_of(name));
		if (s != NULL)
			print_server(s, json_string_value(json_object_get(one, "state")), json_string_value(json_object_get(one, "reason")));
	}
	json_decref(root);
	return EX_OK;
}

static int status(struct cli *c, const struct request *r)
{
	struct buffer json, text;
	if (cli_master(c) == 0) {
		if (r->json)
			(void)printf("{\"state\":\"stopped\",\"pid\":null,\"processes\":[],\"servers\":[]}\n");
		else
			(void)printf("the service is not running\n");
		return EX_UNAVAILABLE;
	}
	buffer_init(&json, 4 * 1024 * 1024);
	buffer_init(&text, 4096);
	int result = cli_ask(c, "status", "-", "", keep, &json, &text);
	if (result == 0 && r->json)
		(void)printf("%s\n", buffer_cstr(&json));
	else if (result == 0)
		result = status_text(c, &json);
	else if (text.n > 0)
		(void)cli_fail(c, result, "%s", buffer_cstr(&text));
	buffer_free(&json);
	buffer_free(&text);
	return result;
}

/* reload, pause, resume; start and stop of servers. */
static int act(struct cli *c, const struct request *r)
{
	struct buffer text;
	int status;
	if (cli_master(c) == 0)
		return cli_fail(c, EX_UNAVAILABLE, "the service is not running; posthorn start starts it");
	if (strcmp(r->verb, "reload") == 0 && (status = pair_make_missing(c)) != 0) /* of servers that are new */
		return status;
	buffer_init(&text, 256 * 1024);
	int result = cli_ask(c, r->verb, "-", r->names, NULL, NULL, &text);
	bool reloaded = result == 0 && strcmp(r->verb, "reload") == 0;
	holder_say(c->program, buffer_span(&text));
	if (result != 0)
		(void)cli_fail(c, result, "%s", buffer_cstr(&text));
	else if (text.n > 0 && (!reloaded || strcmp(buffer_cstr(&text), "reloaded") != 0))
		(void)printf("%s\n", buffer_cstr(&text));
	buffer_free(&text);
	return result;
}

static void print(void *context, struct span bytes)
{
	(void)context;
	(void)fwrite(bytes.at, 1, bytes.n, stdout);
}

/* Without the service: what the configuration alone decides. */
static int explain_alone(struct cli *c, const struct request *r, const struct server *s)
{
	struct buffer out;
	struct sockaddr_storage sa;
	socklen_t n;
	struct explain e = {.server = s, .address = span_of(r->address), .from = span_of(r->from), .client_text = span_of(r->client), .json = r->json, .out = &out};
	if (r->client != NULL && literal_to_sockaddr(span_of(r->client), 0, &sa, &n) != 0)
		return cli_fail(c, EX_USAGE, "--client: '%s' is no address", r->client);
	e.client = r->client == NULL ? NULL : (const struct sockaddr *)&sa;
	buffer_init(&out, 128 * 1024);
	int error = explain_begin(&e);
	if (error == 0) {
		explain_end(&e, NULL, e.route.kind == ROUTE_LOCAL ? NULL : "not asked: the service is not running");
		(void)printf("%s%s", buffer_cstr(&out), r->json ? "\n" : "");
	} else {
		(void)cli_fail(c, EX_DATAERR, "%s", buffer_cstr(&out));
	}
	buffer_free(&out);
	return error == 0 ? EX_OK : EX_DATAERR;
}

static int explain(struct cli *c, const struct request *r)
{
	const char *name = r->server == NULL ? "default" : r->server;
	const struct server *s = config_server(&c->config, span_of(name));
	struct buffer words, text;
	if (r->address == NULL)
		return cli_fail(c, EX_USAGE, "explain: which address?");
	if (s == NULL)
		return cli_fail(c, EX_USAGE, "no server '%s'", name);
	if (strpbrk(r->address, "\t\r\n") != NULL || (r->from != NULL && strpbrk(r->from, "\t\r\n") != NULL))
		return cli_fail(c, EX_DATAERR, "not a mail address");
	if (cli_master(c) == 0)
		return explain_alone(c, r, s);
	buffer_init(&words, 4096);
	buffer_init(&text, 4096);
	buffer_printf(&words, "%s\t%s\t%s\t%s", r->json ? "json" : "text", r->from == NULL ? "-" : r->from, r->client == NULL ? "-" : r->client, r->address);
	int result = cli_ask(c, "explain", name, buffer_cstr(&words), print, NULL, &text);
	if (result != 0)
		(void)cli_fail(c, result, "%s", buffer_cstr(&text));
	buffer_free(&words);
	buffer_free(&text);
	return result;
}

/* The running service becomes this build.  state/upgrade says where it is; the master answers there: gone when it is done. */
static int upgrade(struct cli *c)
{
	char libexec[4200];
	struct buffer text;
	pid_t pid = cli_master(c);
	if (pid == 0)
		return cli_fail(c, EX_UNAVAILABLE, "the service is not running; posthorn start starts it");
	libexec_path(libexec, sizeof libexec);
	int dir = openat(c->dir_fd, "state", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	buffer_init(&text, 4300);
	buffer_printf(&text, "libexec %s\n", libexec);
	int error = dir < 0 ? errno : replace_file_at(dir, "upgrade", buffer_span(&text), 0600);
	if (error == 0 && kill(pid, SIGUSR2) != 0)
		error = errno;
	if (error != 0) {
		buffer_free(&text);
		return cli_fail(c, error == EACCES || error == EPERM ? EX_NOPERM : EX_OSERR, "the master cannot be told: %s", strerror(error));
	}
	int status = EX_TEMPFAIL;
	for (unsigned i = 0; i < 12000 && status == EX_TEMPFAIL; i++) { /* two minutes */
		struct timespec wait = {.tv_nsec = 10000000};
		(void)nanosleep(&wait, NULL);
		buffer_clear(&text);
		error = read_file_at(dir, "upgrade", 4300, &text);
		struct span rest = buffer_span(&text), line = span_until(&rest, '\n');
		if (error == ENOENT)
			status = EX_OK;
		else if (error == 0 && span_is(span_word(&line, " "), "refused"))
			status = cli_fail(c, EX_UNAVAILABLE, "%.*s", SPAN_ARG(line));
	}
	if (status != EX_OK)
		(void)unlinkat(dir, "upgrade", 0);
	if (status == EX_TEMPFAIL)
		(void)cli_fail(c, status, "the processes are still being replaced after two minutes; the log says how far it is");
	buffer_free(&text);
	(void)close(dir);
	return status;
}

static void print_act(json_t *one)
{
	json_t *status = json_object_get(one, "status");
	const char *part[] = {"time", "user", "act", "server", "what"};
	for (size_t i = 0; i < COUNT_OF(part); i++) {
		const char *text = json_string_value(json_object_get(one, part[i]));
		(void)printf("%s%s", i > 0 ? " " : "", text == NULL || text[0] == '\0' ? "-" : text);
	}
	(void)printf("%s\n", json_integer_value(status) == 0 ? "" : " (refused)");
}

/* An act on several servers names them in what. */
static bool concerns(json_t *one, const char *server)
{
	const char *text = json_string_value(json_object_get(one, "server")), *what = json_string_value(json_object_get(one, "what"));
	struct span names = span_of(what == NULL ? "" : what);
	if (server == NULL || (text != NULL && strcmp(text, server) == 0))
		return true;
	for (struct span name; text != NULL && strcmp(text, "-") == 0 && (name = span_word(&names, " ")).n > 0;)
		if (span_is(name, server))
			return true;
	return false;
}

/* Who did what, by the control socket. */
static int log_operators(struct cli *c, const struct request *r)
{
	char *line = NULL;
	size_t size = 0;
	if (r->address == NULL || strcmp(r->address, "operators") != 0)
		return cli_fail(c, EX_USAGE, "log: operators is what can be shown");
	int fd = openat(c->dir_fd, "state/operators.log", O_RDONLY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	if (f == NULL)
		return errno == ENOENT ? EX_OK : cli_fail(c, errno == EACCES ? EX_NOPERM : EX_NOINPUT, "%s/state/operators.log: %s", c->dir, strerror(errno));
	while (getline(&line, &size, f) > 0) {
		json_t *one = json_loads(line, 0, NULL);
		if (one != NULL && concerns(one, r->server) && r->json)
			(void)fputs(line, stdout);
		else if (one != NULL && concerns(one, r->server))
			print_act(one);
		json_decref(one);
	}
	free(line);
	(void)fclose(f);
	return EX_OK;
}

static int run(struct cli *c, const struct request *r)
{
	int result = cli_load(c);
	if (strcmp(r->verb, "reload") == 0 && result == EX_CONFIG)
		return result;
	if (result != 0)
		return result;
	if (strcmp(r->verb, "start") == 0)
		return start(c, r);
	if (strcmp(r->verb, "stop") == 0)
		return r->names[0] == '\0' ? stop(c) : act(c, r);
	if (strcmp(r->verb, "status") == 0)
		return status(c, r);
	if (strcmp(r->verb, "reload") == 0 || strcmp(r->verb, "pause") == 0 || strcmp(r->verb, "resume") == 0)
		return act(c, r);
	if (strcmp(r->verb, "explain") == 0)
		return explain(c, r);
	if (strcmp(r->verb, "upgrade") == 0)
		return upgrade(c);
	if (strcmp(r->verb, "log") == 0)
		return log_operators(c, r);
	if (strcmp(r->verb, "check") == 0)
		return check_run(c, r->server, r->probe, r->json);
	return cli_fail(c, EX_USAGE, "'%s': start, stop, pause, resume, reload, upgrade, status, explain, log or check is needed", r->verb);
}

static bool takes_names(const char *verb)
{
	return strcmp(verb, "start") == 0 || strcmp(verb, "stop") == 0 || strcmp(verb, "pause") == 0 || strcmp(verb, "resume") == 0;
}

static bool add_name(struct request *r, const char *name)
{
	size_t n = strlen(r->names);
	int more = snprintf(r->names + n, sizeof r->names - n, "%s%s", n > 0 ? " " : "", name);
	return name[0] != '\0' && strpbrk(name, " \t\r\n") == NULL && more > 0 && (size_t)more < sizeof r->names - n;
}

int main(int argc, char **argv)
{
	struct cli c = {.program = "posthorn", .dir = "/etc/posthorn"};
	struct request r = {.verb = NULL};
	char real[4096];
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			cli_help(usage, options, COUNT_OF(options));
			return EX_OK;
		}
		const char **value = strcmp(argv[i], "-c") == 0 ? &c.dir : strcmp(argv[i], "-s") == 0 ? &r.server :
			strcmp(argv[i], "--from") == 0 ? &r.from : strcmp(argv[i], "--client") == 0 ? &r.client : strcmp(argv[i], "--probe") == 0 ? &r.probe : NULL;
		if (value != NULL && i + 1 < argc)
			*value = argv[++i];
		else if (strcmp(argv[i], "-F") == 0)
			r.foreground = true;
		else if (strcmp(argv[i], "--json") == 0)
			r.json = true;
		else if (argv[i][0] != '-' && r.verb != NULL && r.address == NULL && (strcmp(r.verb, "explain") == 0 || strcmp(r.verb, "log") == 0))
			r.address = argv[i];
		else if (argv[i][0] != '-' && r.verb != NULL && takes_names(r.verb) && add_name(&r, argv[i]))
			continue;
		else if (argv[i][0] == '-' || r.verb != NULL)
			return cli_fail(&c, EX_USAGE, "'%s' is not understood; --help shows the options", argv[i]);
		else
			r.verb = argv[i];
	}
	if (r.verb == NULL)
		return cli_fail(&c, EX_USAGE, "usage: %s", usage);
	if (realpath(c.dir, real) != NULL)
		c.dir = real;
	return run(&c, &r);
}
