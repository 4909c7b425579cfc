/* posthorn check: what needs no peer. */
#include "cmd/common/run.h"
#include "cmd/posthorn_check.h"

#include <fcntl.h>
#include <jansson.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

/* ---- the machine ---- */

static void check_startup(struct check *k)
{
	static const char *const words[] = {"automatic", "manual", "disabled"};
	struct buffer out;
	char *const argv[] = {"systemctl", "is-enabled", "posthorn.service", NULL};
	int64_t startup = k->cli->config.service.startup;
	if (strcmp(k->cli->dir, "/etc/posthorn") != 0 || access("/run/systemd/system", F_OK) != 0)
		return;
	buffer_init(&out, 4096);
	int status = run_output("systemctl", argv, true, &out);
	struct span said = span_trim(buffer_span(&out));
	said = span_until(&said, '\n');
	bool enabled = span_is(said, "enabled") || span_is(said, "enabled-runtime");
	if (status < 0 || said.n == 0)
		check_say(k, CHECK_UNKNOWN, "startup", "systemctl does not say whether the unit posthorn.service comes up at boot");
	else if (enabled == (startup == STARTUP_AUTOMATIC))
		check_say(k, CHECK_OK, "startup", "startup = %s, and the unit is %.*s", words[startup], SPAN_ARG(said));
	else
		check_say(k, CHECK_PROBLEM, "startup", "startup = %s, but the unit is %.*s: systemctl %s posthorn, or hornconf -e startup=%s", words[startup], SPAN_ARG(said),
			enabled ? "disable" : "enable", enabled ? "automatic" : "manual");
	buffer_free(&out);
}

static void check_clock(struct check *k)
{
	struct timex t = {.modes = 0};
	struct stat st;
	if (stat("/proc/self/exe", &st) == 0 && time(NULL) + 86400 < st.st_mtime)
		check_say(k, CHECK_PROBLEM, "clock", "it is earlier than when this program was made: mail's times, retries and certificates go by it");
	else if (adjtimex(&t) < 0)
		check_say(k, CHECK_UNKNOWN, "clock", "the kernel does not say whether it is set by a time server");
	else if ((t.status & STA_UNSYNC) != 0)
		check_say(k, CHECK_WARNING, "clock", "no time server sets it: install chrony or systemd-timesyncd");
	else
		check_say(k, CHECK_OK, "clock", "it is set by a time server");
}

static void check_sendmail(struct check *k)
{
	char ours[RUN_PATH];
	struct stat a, b;
	if (strcmp(k->cli->dir, "/etc/posthorn") != 0)
		return;
	run_beside(ours, "sendmail");
	if (stat("/usr/sbin/sendmail", &a) != 0)
		check_say(k, CHECK_PROBLEM, "sendmail", "there is no /usr/sbin/sendmail: programs of this machine cannot send mail");
	else if (stat(ours, &b) != 0 || a.st_dev != b.st_dev || a.st_ino != b.st_ino)
		check_say(k, CHECK_WARNING, "sendmail", "/usr/sbin/sendmail is not Posthorn's: what programs of this machine send goes elsewhere");
	else
		check_say(k, CHECK_OK, "sendmail", "/usr/sbin/sendmail is Posthorn's");
}

/* ---- permissions ---- */

static const char *name_of(uid_t uid, char out[40])
{
	const struct passwd *pw = getpwuid(uid);
	if (pw != NULL)
		(void)snprintf(out, 40, "%s", pw->pw_name);
	else
		(void)snprintf(out, 40, "%u", (unsigned)uid);
	return out;
}

/* May somebody but root and this user put another file in its place? */
static bool path_is_safe(struct check *k, const char *path)
{
	char part[1200], who[40];
	struct stat st;
	(void)snprintf(part, sizeof part, "%s", path);
	for (char *slash; (slash = strrchr(part, '/')) != NULL;) {
		slash[slash == part] = '\0';
		if (stat(part, &st) != 0)
			return true;
		if (st.st_uid != 0 && st.st_uid != geteuid()) {
			check_say(k, CHECK_PROBLEM, "permissions", "%s belongs to %s, who can exchange %s: chown root %s", part, name_of(st.st_uid, who), path, part);
			return false;
		}
		if ((st.st_mode & S_IWOTH) != 0 && (st.st_mode & S_ISVTX) == 0) {
			check_say(k, CHECK_PROBLEM, "permissions", "everybody may write into %s and exchange %s: chmod o-w %s", part, path, part);
			return false;
		}
		if (slash == part)
			break;
	}
	return true;
}

/* bad: bits of its mode that must not be. */
static bool file_is_safe(struct check *k, const char *path, mode_t bad)
{
	char who[40];
	struct stat st;
	if (path[0] == '\0' || stat(path, &st) != 0)
		return true; /* that it is missing others say */
	if (st.st_uid != 0 && st.st_uid != geteuid()) {
		check_say(k, CHECK_PROBLEM, "permissions", "%s belongs to %s: chown root %s", path, name_of(st.st_uid, who), path);
		return false;
	}
	if ((st.st_mode & bad) != 0) {
		check_say(k, CHECK_PROBLEM, "permissions", "%s can be %s by others (mode %04o): chmod %s %s", path, (st.st_mode & bad & 022) != 0 ? "written" : "read", (unsigned)(st.st_mode & 07777),
			(bad & 044) != 0 ? "o-rwx,g-w" : "o-w,g-w", path);
		return false;
	}
	return path_is_safe(k, path);
}

static bool files_are_safe(struct check *k, const char *list, mode_t bad)
{
	struct span rest = span_of(list);
	bool safe = true;
	for (struct span word; (word = span_word(&rest, " \t,")).n > 0;) {
		char path[1200];
		(void)snprintf(path, sizeof path, "%.*s", SPAN_ARG(word));
		safe = file_is_safe(k, path, bad) && safe;
	}
	return safe;
}

enum { WRITABLE = S_IWOTH | S_IWGRP, READABLE = S_IROTH | S_IWOTH | S_IWGRP };

void check_machine(struct check *k)
{
	char path[1200];
	const struct service_params *p = &k->cli->config.service;
	pid_t pid = cli_master(k->cli);
	if (pid != 0)
		check_say(k, CHECK_OK, "service", "it runs, process %d", (int)pid);
	else
		check_say(k, CHECK_WARNING, "service", "it is not running: posthorn start");
	check_startup(k);
	check_clock(k);
	check_sendmail(k);
	(void)snprintf(path, sizeof path, "%s/posthorn.conf", k->cli->dir);
	if (file_is_safe(k, path, WRITABLE) && files_are_safe(k, p->auth_keytab_file, READABLE) && files_are_safe(k, p->auth_ntlm_file, READABLE))
		check_say(k, CHECK_OK, "permissions", "nobody else can change the configuration");
}

static bool directory_is_safe(struct check *k, const char *path)
{
	char who[40], name[64];
	struct stat st;
	const char *owner = k->cli->config.service.mail_owner;
	if (stat(path, &st) != 0)
		return true; /* it is made at the start */
	(void)name_of(st.st_uid, who);
	(void)snprintf(name, sizeof name, "%s-pick", owner);
	if (st.st_uid != 0 && st.st_uid != geteuid() && strcmp(who, owner) != 0 && strcmp(who, name) != 0) {
		check_say(k, CHECK_PROBLEM, "permissions", "%s belongs to %s: look at what is in it, then chown %s %s", path, who, owner, path);
		return false;
	}
	if ((st.st_mode & S_IWOTH) != 0) {
		check_say(k, CHECK_PROBLEM, "permissions", "everybody may write into %s: look at what is in it, then chmod o-w %s", path, path);
		return false;
	}
	return true;
}

static void check_permissions(struct check *k)
{
	const struct server *s = k->server;
	const char *const directories[] = {s->p.home_directory, s->p.pickup_directory, s->p.local.drop_directory, s->p.queue_directory, s->p.badmail_directory};
	char path[1200];
	struct pair_files f;
	bool safe = true;
	for (size_t i = 0; i < COUNT_OF(directories); i++)
		safe = directory_is_safe(k, directories[i]) && safe;
	(void)snprintf(path, sizeof path, "%s/servers/%s.conf", k->cli->dir, s->name);
	safe = file_is_safe(k, path, WRITABLE) && safe;
	(void)snprintf(path, sizeof path, "%s/servers/%s.passwd", k->cli->dir, s->name);
	safe = file_is_safe(k, path, READABLE) && safe;
	safe = files_are_safe(k, s->p.out.outbound_password_file, READABLE) && safe;
	for (size_t i = 0; i < s->domains_n; i++)
		if (strcmp(s->domains[i].p.out.outbound_password_file, s->p.out.outbound_password_file) != 0)
			safe = files_are_safe(k, s->domains[i].p.out.outbound_password_file, READABLE) && safe;
	for (struct pair_walk w = {0}; s->p.tls != TLS_NONE && server_pair_next(s, &w, &f);) {
		server_pair_path(s, &f, k->cli->dir, "key", path);
		safe = file_is_safe(k, path, READABLE) && safe;
	}
	if (safe)
		check_say(k, CHECK_OK, "permissions", "directories, passwords and keys are out of others' reach");
}

/* ---- certificates: horncert knows ---- */

static void say_certificates(struct check *k, struct span lines)
{
	bool any = false;
	while (lines.n > 0) {
		struct span line = span_until(&lines, '\n');
		json_t *one = json_loadb(line.at, line.n, 0, NULL);
		const char *file = json_string_value(json_object_get(one, "file")), *problem = json_string_value(json_object_get(one, "problem"));
		if (problem != NULL) {
			any = true;
			check_say(k, strncmp(problem, "it expires in", 13) == 0 ? CHECK_WARNING : CHECK_PROBLEM, "certificate", "%s: %s", file, problem);
		}
		json_decref(one);
	}
	if (!any)
		check_say(k, CHECK_OK, "certificate", "valid, for %s", k->server->p.fqdn);
}

static void check_certificate(struct check *k)
{
	char program[RUN_PATH];
	char *const argv[] = {"horncert", "-c", (char *)(uintptr_t)k->cli->dir, "-s", (char *)(uintptr_t)k->server->name, "--json", "check", NULL};
	char path[PAIR_PATH];
	struct buffer out;
	struct pair_files f;
	struct pair_walk w = {0};
	if (k->server->p.tls == TLS_NONE) {
		check_say(k, CHECK_WARNING, "certificate", "tls = none: mail that others send comes in clear text");
		return;
	}
	if (server_pair_next(k->server, &w, &f) && f.certificate.n == 0) {
		server_pair_path(k->server, &f, k->cli->dir, "crt", path);
		if (access(path, F_OK) != 0 && errno == ENOENT) {
			check_say(k, CHECK_OK, "certificate", "none yet: a self-signed one is made at the first start");
			return;
		}
	}
	run_beside(program, "horncert");
	buffer_init(&out, 256 * 1024);
	if (run_output(program, argv, true, &out) < 0)
		check_say(k, CHECK_UNKNOWN, "certificate", "%s cannot be run", program);
	else
		say_certificates(k, buffer_span(&out));
	buffer_free(&out);
}

void check_server_files(struct check *k)
{
	check_permissions(k);
	check_certificate(k);
}
