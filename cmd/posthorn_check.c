#include "cmd/posthorn_check.h"
#include "dns/context.h"
#include "lookup/lookup.h"
#include "proc/proc.h"

#include <arpa/inet.h>
#include <grp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

void check_say(struct check *k, enum verdict v, const char *what, const char *format, ...)
{
	static const char *const words[] = {"ok", "warning", "problem", "unknown"};
	const char *server = k->server == NULL ? "-" : k->server->name;
	char text[2000];
	va_list args;
	va_start(args, format);
	(void)vsnprintf(text, sizeof text, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): va_start is above */
	va_end(args);
	k->problems += v == CHECK_PROBLEM;
	struct buffer b;
	buffer_init(&b, 16 * 1024);
	if (k->json) {
		buffer_puts(&b, "{\"server\":");
		buffer_put_json(&b, span_of(server));
		buffer_printf(&b, ",\"check\":\"%s\",\"status\":\"%s\",\"text\":", what, words[v]);
		buffer_put_json(&b, span_of(text));
		buffer_puts(&b, "}\n");
	} else {
		buffer_printf(&b, "%-8s %-10s %-12s ", words[v], server, what);
		buffer_put_escaped(&b, span_of(text), sizeof text); /* peers and the DNS wrote some of it */
		buffer_putc(&b, '\n');
	}
	(void)fwrite(buffer_cstr(&b), 1, b.n, stdout);
	buffer_free(&b);
}

bool check_is_own(const struct check *k, const unsigned char address[16])
{
	for (size_t i = 0; i < k->own_n; i++)
		if (memcmp(k->own[i], address, 16) == 0)
			return true;
	return false;
}

void check_print_address(const unsigned char address[16], char out[INET6_ADDRSTRLEN])
{
	static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	if (memcmp(address, mapped, sizeof mapped) == 0)
		(void)inet_ntop(AF_INET, address + 12, out, INET6_ADDRSTRLEN);
	else
		(void)inet_ntop(AF_INET6, address, out, INET6_ADDRSTRLEN);
}

static bool is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

bool check_takes_mail(const struct server *s)
{
	struct endpoint e;
	for (struct listen_walk w = {0}; server_listen_next(s, &w, &e);)
		if (w.kind == LISTEN_PLAIN && (e.any || !is_loopback((const struct sockaddr *)&e.addr)))
			return true;
	return false;
}

static void find_own(struct check *k)
{
	struct own_addresses all = {.n = 0};
	if (own_read(&all) != 0)
		return;
	for (size_t i = 0; i < all.n && k->own_n < OWN_MOST; i++) {
		const unsigned char *a = all.list[i].addr;
		const struct in6_addr *v6 = (const void *)a;
		if (IN6_IS_ADDR_LOOPBACK(v6) || IN6_IS_ADDR_LINKLOCAL(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && (a[12] == 127 || a[12] == 0)) || IN6_IS_ADDR_UNSPECIFIED(v6))
			continue;
		memcpy(k->own[k->own_n++], a, 16);
	}
	free(all.list);
}

/* ---- the child that hears peers ---- */

/* Ports that the child connects to: those of the DNS, of the configuration's next hops, and the servers' own. */
static int add_ports(const struct check *k, struct port_list *ports)
{
	const struct config *c = &k->cli->config;
	struct endpoint e;
	int error = config_ports(c, ports);
	for (size_t i = 0; i < c->servers_n && error == 0; i++)
		for (struct listen_walk w = {0}; error == 0 && server_listen_next(&c->servers[i], &w, &e);)
			error = port_list_add(ports, e.port);
	return error;
}

static int become_nobody(const struct check *k)
{
	uid_t uid;
	gid_t gid;
	if (geteuid() != 0)
		return 0;
	if (proc_default_uid(k->cli->config.service.mail_owner, "dns", &uid, &gid) != 0)
		return ENOENT;
	return setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0 ? errno : 0;
}

static int confine(struct check *k, struct complaint *why)
{
	const struct service_params *p = &k->cli->config.service;
	struct port_list ports = {0};
	unsigned abi = 0;
	k->base = event_base_new();
	if (k->base == NULL)
		return ENOMEM;
	int error = dns_context_make(k->base, p->dns_servers, p->dns_trust_anchor_file, &k->dns, &ports, why);
	if (error == 0)
		error = add_ports(k, &ports);
	if (error == 0)
		error = become_nobody(k);
	if (error == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		error = errno;
	if (error == 0)
		error = confine_paths(NULL, 0, &ports, true, &abi);
#ifndef POSTHORN_SANITIZED
	if (error == 0)
		error = confine_calls(CALLS_SOCKET | CALLS_CONNECT | CALLS_POLL, false);
#endif
	free(ports.ports);
	return error;
}

static _Noreturn void ask_others(struct check *k, const char *only)
{
	struct complaint why = {.reason = ""};
	(void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* what was found is seen, whatever happens after it */
	k->problems = 0;
	int error = confine(k, &why);
	if (error != 0) {
		check_say(k, CHECK_UNKNOWN, "dns", "nothing was asked: %s", why.reason[0] != '\0' ? why.reason : strerror(error));
		_exit(0);
	}
	for (size_t i = 0; i < k->cli->config.servers_n; i++) {
		k->server = &k->cli->config.servers[i];
		if (only != NULL && strcmp(only, k->server->name) != 0)
			continue;
		check_names(k);
		check_peers(k);
	}
	(void)fflush(stdout);
	_exit(k->problems > 0 ? EX_CONFIG : 0);
}

int check_run(struct cli *c, const char *server, const char *probe, bool json)
{
	struct check k = {.cli = c, .json = json, .probe = probe};
	int status = 0;
	if (server != NULL && config_server(&c->config, span_of(server)) == NULL)
		return cli_fail(c, EX_USAGE, "no server '%s'", server);
	find_own(&k);
	check_machine(&k);
	for (size_t i = 0; i < c->config.servers_n; i++) {
		k.server = &c->config.servers[i];
		if (server == NULL || strcmp(server, k.server->name) == 0)
			check_server_files(&k);
	}
	k.server = NULL;
	(void)fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		ask_others(&k, server);
	if (pid < 0)
		return cli_fail(c, EX_OSERR, "%s", strerror(errno));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (WIFSIGNALED(status))
		return cli_fail(c, EX_SOFTWARE, "the process that asks others was ended by signal %d", WTERMSIG(status));
	return k.problems > 0 || WEXITSTATUS(status) != 0 ? EX_CONFIG : EX_OK;
}
