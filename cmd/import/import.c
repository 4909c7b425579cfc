#include "cmd/common/run.h"
#include "cmd/import/import.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

enum { TEXT_MOST = 64 * 1024 };

/* Room for one more; NULL: no memory. */
static void *grow(struct import *im, void **list, size_t n, size_t size)
{
	void *more = n % 64 == 0 ? realloc(*list, (n + 64) * size) : *list;
	if (more == NULL) {
		im->failed = true;
		return NULL;
	}
	*list = more;
	return (char *)more + n * size;
}

void import_say(struct import *im, enum fate fate, const char *what, const char *format, ...)
{
	char text[2000];
	va_list args;
	va_start(args, format);
	(void)vsnprintf(text, sizeof text, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): va_start is above */
	va_end(args);
	struct import_row *r = grow(im, (void **)&im->rows, im->rows_n, sizeof *r);
	if (r == NULL)
		return;
	*r = (struct import_row){.fate = fate, .what = arena_dup(&im->arena, span_of(what)), .text = arena_dup(&im->arena, span_of(text))};
	im->failed = im->failed || im->arena.failed;
	im->rows_n += r->what != NULL && r->text != NULL;
}

static bool same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static struct import_setting *find(const struct import *im, const char *server, const char *domain, const char *name)
{
	for (size_t i = 0; i < im->settings_n; i++) {
		struct import_setting *s = &im->settings[i];
		if (strcmp(s->name, name) == 0 && same(s->server, server) && same(s->domain, domain))
			return s;
	}
	return NULL;
}

const char *import_value(const struct import *im, const char *server, const char *domain, const char *name)
{
	const struct import_setting *s = find(im, server, domain, name);
	return s == NULL ? NULL : s->value;
}

bool import_set(struct import *im, const char *what, const char *server, const char *domain, const char *name, const char *value)
{
	enum param_scope scope = domain != NULL ? SCOPE_DOMAIN : server != NULL ? SCOPE_SERVER : SCOPE_SERVICE;
	const struct param_row *row = param_find(span_of(name), scope);
	struct complaint why = {.reason = ""};
	if (row == NULL || strlen(value) >= TEXT_MOST || strpbrk(value, "\r\n") != NULL || param_check(row, value, false, &why) != 0) {
		import_say(im, IMPORT_DIFFERS, what, "%s = %.300s is not taken: %s", name, value, why.reason[0] != '\0' ? why.reason : "no such value");
		return false;
	}
	struct import_setting *s = find(im, server, domain, name);
	if (s == NULL && (s = grow(im, (void **)&im->settings, im->settings_n, sizeof *s)) == NULL)
		return false;
	if (s == &im->settings[im->settings_n])
		*s = (struct import_setting){.server = server == NULL ? NULL : arena_dup(&im->arena, span_of(server)),
			.domain = domain == NULL ? NULL : arena_dup(&im->arena, span_of(domain)), .name = row->name};
	s->value = arena_dup(&im->arena, span_of(value));
	im->failed = im->failed || im->arena.failed;
	im->settings_n += s == &im->settings[im->settings_n] && !im->failed;
	return !im->failed;
}

void import_take(struct import *im, const char *what, const char *server, const char *name, const char *value)
{
	if (import_set(im, what, server, NULL, name, value))
		import_say(im, IMPORT_TAKEN, what, "%s = %.500s", name, value);
}

void import_add_server(struct import *im, const char *name)
{
	char **place = grow(im, (void **)&im->servers, im->servers_n, sizeof *place);
	if (place == NULL)
		return;
	*place = arena_dup(&im->arena, span_of(name));
	im->servers_n += *place != NULL;
	im->failed = im->failed || *place == NULL;
}

int import_begin(struct import *im)
{
	char path[1200], here[4096];
	if (im->cli.dir[0] != '/') { /* files of it are named in the configuration */
		im->cli.dir = getcwd(here, sizeof here) == NULL ? NULL : arena_printf(&im->arena, "%s/%s", here, im->cli.dir);
		if (im->cli.dir == NULL)
			return cli_fail(&im->cli, EX_OSERR, "the current directory cannot be told");
	}
	(void)snprintf(path, sizeof path, "%s/posthorn.conf", im->cli.dir);
	if (!im->report_only && access(path, F_OK) == 0)
		return cli_fail(&im->cli, EX_CANTCREAT, "%s is there already and is not written over: -c names another directory, --report only tells", path);
	return 0;
}

bool import_take_option(struct import *im, char **argv, int argc, int *i)
{
	if (strcmp(argv[*i], "-c") == 0 && *i + 1 < argc)
		im->cli.dir = argv[++*i];
	else if (strcmp(argv[*i], "--report") == 0)
		im->report_only = true;
	else if (strcmp(argv[*i], "--json") == 0)
		im->json = true;
	else
		return false;
	return true;
}

const char *import_secret(struct import *im, const char *name, struct span text)
{
	struct import_secret *s = grow(im, (void **)&im->secrets, im->secrets_n, sizeof *s);
	if (s == NULL)
		return "";
	*s = (struct import_secret){.name = arena_dup(&im->arena, span_of(name)), .text = arena_printf(&im->arena, "%.*s\n", SPAN_ARG(text))};
	const char *path = arena_printf(&im->arena, "%s/%s", im->cli.dir, name);
	im->failed = im->failed || im->arena.failed;
	im->secrets_n += !im->failed;
	return path == NULL ? "" : path;
}

/* ---- the files ---- */

/* hornconf init would take it for the service's. */
static bool is_in_both(const char *name)
{
	return param_find(span_of(name), SCOPE_SERVICE) != NULL && param_find(span_of(name), SCOPE_SERVER) != NULL;
}

static int run_init(struct import *im)
{
	char **argv = calloc(im->settings_n + 5, sizeof *argv);
	size_t n = 0;
	if (argv == NULL)
		return EX_OSERR;
	argv[n++] = arena_dup(&im->arena, SPAN_LIT("hornconf"));
	argv[n++] = arena_dup(&im->arena, SPAN_LIT("-c"));
	argv[n++] = arena_dup(&im->arena, span_of(im->cli.dir));
	argv[n++] = arena_dup(&im->arena, SPAN_LIT("init"));
	for (size_t i = 0; i < im->settings_n; i++) {
		const struct import_setting *s = &im->settings[i];
		if (s->domain == NULL && (s->server == NULL || (strcmp(s->server, "default") == 0 && !is_in_both(s->name))))
			argv[n++] = arena_printf(&im->arena, "%s=%s", s->name, s->value);
	}
	char program[RUN_PATH];
	run_beside(program, "hornconf");
	int status = im->arena.failed ? EX_OSERR : run_and_wait(program, argv);
	free(argv);
	return status < 0 ? cli_fail(&im->cli, EX_OSFILE, "cannot run %s", program) : status;
}

static void put_domains(const struct import *im, struct buffer *b, const char *server)
{
	for (size_t i = 0; i < im->settings_n; i++) {
		const struct import_setting *s = &im->settings[i];
		bool first = s->domain != NULL && same(s->server, server);
		for (size_t k = 0; k < i && first; k++)
			first = !same(im->settings[k].server, server) || !same(im->settings[k].domain, s->domain);
		if (!first)
			continue;
		buffer_printf(b, "\n[domain %s]\n", s->domain);
		for (size_t k = i; k < im->settings_n; k++)
			if (same(im->settings[k].server, server) && same(im->settings[k].domain, s->domain))
				buffer_printf(b, "%s = %s\n", im->settings[k].name, im->settings[k].value);
	}
}

static int write_server(struct import *im, const char *name, bool is_new)
{
	char file[200];
	struct buffer b;
	buffer_init(&b, 64 * 1024 * 1024);
	(void)snprintf(file, sizeof file, "servers/%s.conf", name);
	int error = is_new ? 0 : read_file_at(im->cli.dir_fd, file, 1024 * 1024, &b);
	for (size_t i = 0; i < im->settings_n; i++) {
		const struct import_setting *s = &im->settings[i];
		if (same(s->server, name) && s->domain == NULL && (is_new || is_in_both(s->name)))
			buffer_printf(&b, "%s = %s\n", s->name, s->value);
	}
	put_domains(im, &b, name);
	if (error == 0)
		error = buffer_ok(&b) ? replace_file_at(im->cli.dir_fd, file, buffer_span(&b), 0644) : ENOMEM;
	buffer_free(&b);
	return error == 0 ? 0 : cli_fail(&im->cli, EX_CANTCREAT, "%s/%s: %s", im->cli.dir, file, strerror(error));
}

/* Root's alone, beside the configuration. */
static int write_secrets(const struct import *im)
{
	for (size_t i = 0; i < im->secrets_n; i++) {
		const struct import_secret *s = &im->secrets[i];
		int error = replace_file_at(im->cli.dir_fd, s->name, span_of(s->text), 0600);
		if (error != 0)
			return cli_fail(&im->cli, EX_CANTCREAT, "%s/%s: %s", im->cli.dir, s->name, strerror(error));
	}
	return 0;
}

/* A configuration that is not good as a whole is not left behind. */
static void take_back(struct import *im)
{
	char file[200];
	for (size_t i = 0; i < im->secrets_n; i++)
		(void)unlinkat(im->cli.dir_fd, im->secrets[i].name, 0);
	(void)unlinkat(im->cli.dir_fd, "posthorn.conf", 0);
	(void)unlinkat(im->cli.dir_fd, "servers/default.conf", 0);
	for (size_t i = 0; i < im->servers_n; i++) {
		(void)snprintf(file, sizeof file, "servers/%s.conf", im->servers[i]);
		(void)unlinkat(im->cli.dir_fd, file, 0);
	}
}

static int write_all_of_it(struct import *im)
{
	int status = run_init(im);
	if (status != 0)
		return status;
	status = cli_open(&im->cli);
	if (status != 0)
		return status;
	status = write_secrets(im);
	if (status == 0)
		status = write_server(im, "default", false);
	for (size_t i = 0; i < im->servers_n && status == 0; i++)
		status = write_server(im, im->servers[i], true);
	if (status == 0)
		status = cli_load(&im->cli);
	if (status != 0)
		take_back(im);
	return status;
}

/* ---- the report ---- */

static void report(const struct import *im)
{
	static const char *const titles[] = {"taken over", "differs", "has no counterpart"};
	static const char *const words[] = {"taken", "differs", "none"};
	struct buffer b;
	buffer_init(&b, 64 * 1024 * 1024);
	for (size_t fate = 0; fate < COUNT_OF(titles); fate++) {
		bool any = false;
		for (size_t i = 0; i < im->rows_n; i++) {
			const struct import_row *r = &im->rows[i];
			if (r->fate != (enum fate)fate)
				continue;
			if (im->json) {
				buffer_printf(&b, "{\"fate\":\"%s\",\"what\":", words[fate]);
				buffer_put_json(&b, span_of(r->what));
				buffer_puts(&b, ",\"text\":");
				buffer_put_json(&b, span_of(r->text));
				buffer_puts(&b, "}\n");
				continue;
			}
			if (!any)
				buffer_printf(&b, "%s%s:\n", b.n == 0 ? "" : "\n", titles[fate]);
			any = true;
			buffer_puts(&b, "  ");
			buffer_put_escaped(&b, span_of(r->what), 300);
			buffer_puts(&b, ": ");
			buffer_put_escaped(&b, span_of(r->text), 2000);
			buffer_putc(&b, '\n');
		}
	}
	(void)fwrite(buffer_cstr(&b), 1, b.n, stdout);
	buffer_free(&b);
}

int import_end(struct import *im)
{
	int status = im->failed ? cli_fail(&im->cli, EX_OSERR, "not enough memory") : 0;
	if (status == 0 && !im->report_only)
		status = write_all_of_it(im);
	if (status == 0)
		report(im);
	if (status == 0 && fflush(stdout) != 0)
		status = cli_fail(&im->cli, EX_IOERR, "standard output: %s", strerror(errno));
	return status;
}

void import_free(struct import *im)
{
	free(im->rows);
	free(im->settings);
	free(im->servers);
	free(im->secrets);
	arena_free(&im->arena);
	config_free(&im->cli.config);
}
