/* posthorn check: connects to the server as a stranger would, and to another server's port 25. */
#include "cmd/posthorn_check.h"
#include "route/route.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PEER_MS = 10000, LINE_MOST = 1000, TRIED_MOST = 4 };

struct peer {
	int fd;
	int64_t until;
	size_t n;
	char text[4096]; /* what was read and not yet taken */
	char line[LINE_MOST];
};

static bool wait_until(const struct peer *p, short events)
{
	for (;;) {
		struct pollfd one = {.fd = p->fd, .events = events};
		int64_t left = p->until - clock_mono_ms();
		int n = left <= 0 ? 0 : poll(&one, 1, (int)left);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = ETIMEDOUT;
		return n > 0;
	}
}

static void make_address(const unsigned char a[16], uint16_t port, struct sockaddr_storage *out, socklen_t *n)
{
	memset(out, 0, sizeof *out);
	if (memcmp(a, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0) {
		struct sockaddr_in *in = (void *)out;
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		memcpy(&in->sin_addr, a + 12, 4);
		*n = sizeof *in;
		return;
	}
	struct sockaddr_in6 *in6 = (void *)out;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, a, 16);
	*n = sizeof *in6;
}

/* 0 or errno. */
static int peer_connect(struct peer *p, const unsigned char address[16], uint16_t port)
{
	struct sockaddr_storage sa;
	socklen_t n, size = sizeof(int);
	int error = 0;
	*p = (struct peer){.until = clock_mono_ms() + PEER_MS};
	make_address(address, port, &sa, &n);
	p->fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (p->fd < 0)
		return errno;
	if (connect(p->fd, (struct sockaddr *)&sa, n) == 0)
		return 0;
	if (errno != EINPROGRESS || !wait_until(p, POLLOUT) || getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
		error = errno;
	if (error != 0)
		(void)close(p->fd);
	return error;
}

/* The reply's code, its last line in p->line; 0: none came. */
static unsigned peer_hear(struct peer *p)
{
	for (;;) {
		char *end = memchr(p->text, '\n', p->n);
		if (end == NULL) {
			if (p->n == sizeof p->text || !wait_until(p, POLLIN))
				return 0;
			ssize_t got = recv(p->fd, p->text + p->n, sizeof p->text - p->n, 0);
			if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
				return 0;
			p->n += got > 0 ? (size_t)got : 0;
			continue;
		}
		size_t length = (size_t)(end - p->text) + 1;
		struct span line = span_trim((struct span){p->text, length - 1});
		if (line.n > 0 && line.at[line.n - 1] == '\r')
			line.n--;
		(void)snprintf(p->line, sizeof p->line, "%.*s", SPAN_ARG(line));
		memmove(p->text, p->text + length, p->n - length);
		p->n -= length;
		uint64_t code;
		if (strlen(p->line) < 3 || parse_u64((struct span){p->line, 3}, 599, &code) != 0 || code < 200)
			return 0;
		if (p->line[3] != '-')
			return (unsigned)code;
	}
}

static unsigned peer_ask(struct peer *p, const char *command)
{
	struct buffer b;
	buffer_init(&b, 2000);
	buffer_printf(&b, "%s\r\n", command);
	p->until = clock_mono_ms() + PEER_MS;
	bool sent = buffer_ok(&b) && send(p->fd, b.at, b.n, MSG_NOSIGNAL) == (ssize_t)b.n;
	buffer_free(&b);
	return sent ? peer_hear(p) : 0;
}

static void peer_end(struct peer *p)
{
	(void)peer_ask(p, "QUIT");
	(void)close(p->fd);
}

/* ---- an open relay ---- */

/* What the configuration says about a client of this address without a name and without a login. */
static enum relay_answer answer_for(const struct check *k, const struct client_list *l, const unsigned char address[16], const char *recipient, bool *own)
{
	struct address a;
	struct route r;
	struct sockaddr_storage sa;
	socklen_t n;
	struct reverse names = {.state = REVERSE_NAMED};
	enum relay_reason why;
	struct span text = span_of(recipient);
	make_address(address, 0, &sa, &n);
	if (address_parse_path(&text, 0, &a) != 0)
		return RELAY_REFUSED;
	route_find(k->server, &a, &r);
	*own = r.kind == ROUTE_LOCAL;
	return relay_decide(k->server, l, &(struct relay_client){.address = (const struct sockaddr *)&sa, .names = &names}, &r, &why);
}

static const unsigned char strangers[][16] = { /* RFC 5737, RFC 3849: addresses that nobody has */
	{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 77},
	{0x20, 0x01, 0x0d, 0xb8, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77},
};

enum { FORMS = 3 };
static const char *recipient_form(const struct check *k, size_t i, char out[400])
{
	if (i == 0)
		(void)snprintf(out, 400, "<somebody@relay-test.invalid>");
	else if (i == 1)
		(void)snprintf(out, 400, "<@%s:somebody@relay-test.invalid>", k->server->p.default_domain);
	else
		(void)snprintf(out, 400, "<somebody@[192.0.2.1]>");
	return out;
}

static bool check_open_by_rules(struct check *k, const struct client_list *l)
{
	char form[400], text[INET6_ADDRSTRLEN];
	bool own = false, open = false;
	for (size_t s = 0; s < COUNT_OF(strangers) && !open; s++)
		for (size_t i = 0; i < FORMS && !open; i++) {
			open = answer_for(k, l, strangers[s], recipient_form(k, i, form), &own) == RELAY_TAKEN && !own;
			check_print_address(strangers[s], text);
		}
	if (open)
		check_say(k, CHECK_PROBLEM, "relay", "an open relay: any client, such as %s, may send to any domain (%s): set relay = deny and name who may in relay_exceptions", text, form);
	return open;
}

/* An endpoint for mail from other servers that this machine's own address reaches. */
static bool find_door(const struct check *k, const unsigned char **address, uint16_t *port)
{
	struct endpoint e;
	for (struct listen_walk w = {0}; server_listen_next(k->server, &w, &e);) {
		unsigned char a[16];
		if (w.kind != LISTEN_PLAIN)
			continue;
		for (size_t i = 0; i < k->own_n; i++)
			if (e.any || (sockaddr_to_v6((const struct sockaddr *)&e.addr, a) == 0 && memcmp(a, k->own[i], 16) == 0)) {
				*address = k->own[i];
				*port = e.port;
				return true;
			}
	}
	return false;
}

/* The recipient that the running server took from this machine's address, false: none. */
static bool is_taken(struct check *k, struct peer *p, char form[400])
{
	for (size_t s = 0; s < 2; s++) {
		char command[800];
		(void)snprintf(command, sizeof command, "MAIL FROM:<%s%s>", s == 0 ? "" : "postmaster@", s == 0 ? "" : k->server->p.default_domain);
		if (peer_ask(p, command) / 100 != 2)
			continue;
		for (size_t i = 0; i < FORMS; i++) {
			(void)snprintf(command, sizeof command, "RCPT TO:%s", recipient_form(k, i, form));
			if (peer_ask(p, command) / 100 == 2)
				return true;
		}
		(void)peer_ask(p, "RSET");
	}
	return false;
}

static void check_open_by_trial(struct check *k, const struct client_list *l)
{
	const unsigned char *address;
	uint16_t port;
	char text[INET6_ADDRSTRLEN], form[400], command[300];
	struct peer p;
	bool own = false;
	if (!find_door(k, &address, &port)) {
		check_say(k, CHECK_OK, "relay", "only this machine can connect, and by its rules strangers may not relay");
		return;
	}
	check_print_address(address, text);
	if (answer_for(k, l, address, recipient_form(k, 0, form), &own) == RELAY_TAKEN) {
		check_say(k, CHECK_OK, "relay", "by its rules strangers may not relay; not tried, since this machine's own %s may", text);
		return;
	}
	int error = peer_connect(&p, address, port);
	if (error != 0) {
		check_say(k, CHECK_WARNING, "relay", "by its rules strangers may not relay; not tried: %s port %u: %s", text, port, strerror(error));
		return;
	}
	(void)snprintf(command, sizeof command, "EHLO [%s%s]", strchr(text, ':') == NULL ? "" : "IPv6:", text);
	if (peer_hear(&p) != 220 || peer_ask(&p, command) != 250)
		check_say(k, CHECK_WARNING, "relay", "by its rules strangers may not relay; not tried, since %s port %u says: %s", text, port, p.line[0] == '\0' ? "nothing" : p.line);
	else if (is_taken(k, &p, form))
		check_say(k, CHECK_PROBLEM, "relay", "an open relay: what listens on %s port %u took %s from a client that may not relay", text, port, form);
	else
		check_say(k, CHECK_OK, "relay", "tried from %s: mail for other domains is refused", text);
	peer_end(&p);
}

static void check_relay(struct check *k)
{
	struct client_list list = {.n = 0};
	struct span bad;
	if (client_list_parse(span_of(k->server->p.relay_exceptions), &list, &bad) == 0 && !check_open_by_rules(k, &list))
		check_open_by_trial(k, &list);
	client_list_free(&list);
}

/* ---- port 25 of others ---- */

/* Connects to a host's addresses until one greets.  True: something was said about it. */
static bool greets(struct check *k, const char *host, const unsigned char (*found)[16], size_t n, uint16_t port)
{
	char text[INET6_ADDRSTRLEN] = "", said[LINE_MOST + 200] = "it has no address";
	for (size_t i = 0; i < n && i < TRIED_MOST; i++) {
		struct peer p;
		check_print_address(found[i], text);
		int error = peer_connect(&p, found[i], port);
		if (error != 0) {
			(void)snprintf(said, sizeof said, "%s: %s", text, strerror(error));
			continue;
		}
		unsigned code = peer_hear(&p);
		if (code == 220) {
			check_say(k, CHECK_OK, "port 25", "%s [%s]:%u greets: %s", host, text, port, p.line);
			peer_end(&p);
			return true;
		}
		(void)snprintf(said, sizeof said, "%s: %s", text, p.line[0] == '\0' ? "no greeting" : p.line);
		(void)close(p.fd);
	}
	check_say(k, CHECK_PROBLEM, "port 25", "%s port %u cannot be reached (%s)%s", host, port, said,
		port == 25 ? ": many providers block port 25 until they are asked; else mail has to go through a smart_host" : "");
	return true;
}

static bool try_host(struct check *k, const char *host, uint16_t port, bool skip_own)
{
	unsigned char found[TRIED_MOST][16];
	struct sockaddr_storage sa;
	socklen_t sa_n;
	size_t n = 0;
	if (literal_to_sockaddr(span_of(host), 0, &sa, &sa_n) == 0 && sockaddr_to_v6((const struct sockaddr *)&sa, found[0]) == 0)
		n = 1;
	else
		n = check_addresses(k, host, found, TRIED_MOST);
	if (skip_own && n == 0)
		return false; /* that its names lead nowhere is told elsewhere */
	for (size_t i = 0; skip_own && i < n; i++)
		if (check_is_own(k, found[i]))
			return false;
	return greets(k, host, (const unsigned char (*)[16])found, n, port);
}

/* The first MX of a domain that is not this machine, else the domain's own host. */
static bool try_domain(struct check *k, const char *domain, uint16_t port, bool skip_own)
{
	struct buffer records;
	struct dns_mx mx, best = {.preference = UINT32_MAX};
	char host[256];
	(void)check_ask(k, DNS_MX, domain, &records);
	for (struct span rest = buffer_span(&records); dns_take_mx(&rest, &mx);)
		if (mx.preference < best.preference && mx.host.n > 0 && mx.host.n < sizeof host)
			best = mx;
	(void)snprintf(host, sizeof host, "%.*s", SPAN_ARG(best.host.n > 0 ? best.host : span_of(domain)));
	buffer_free(&records);
	return try_host(k, host, port, skip_own);
}

static void check_port(struct check *k)
{
	const struct server_params *p = &k->server->p;
	struct span rest = span_of(p->smart_host);
	bool equal, bad;
	char name[256];
	uint16_t port = (uint16_t)p->out.outbound_port;
	for (struct nexthop h; p->smart_host[0] != '\0' && nexthop_next(&rest, &h, &equal, &bad);) {
		(void)snprintf(name, sizeof name, "%.*s", SPAN_ARG(h.name));
		(void)(h.kind == NEXTHOP_MX ? try_domain(k, name, h.port != 0 ? h.port : port, false) : try_host(k, name, h.port != 0 ? h.port : port, false));
	}
	if (k->probe != NULL)
		(void)try_domain(k, k->probe, port, false);
	else if (p->smart_host[0] == '\0' && (strchr(p->default_domain, '.') == NULL || !try_domain(k, p->default_domain, port, true)))
		check_say(k, CHECK_UNKNOWN, "port 25", "whether mail can leave: name a domain whose server may be connected to, --probe DOMAIN");
}

void check_peers(struct check *k)
{
	check_relay(k);
	check_port(k);
}
