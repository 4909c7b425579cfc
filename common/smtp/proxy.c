/* What a proxy says of its client before the client's own bytes (HAProxy's "The PROXY protocol", versions 1 and 2). */
#include "smtp/smtp.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

enum { V1_MOST = 107, V2_HEAD = 16, V2_MOST = V2_HEAD + 2048 };

static void set_v4(struct proxy_client *c, const void *addr, uint16_t port)
{
	struct sockaddr_in *sa = (struct sockaddr_in *)&c->addr;
	*sa = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
	memcpy(&sa->sin_addr, addr, 4);
	c->addr_n = sizeof *sa;
}

static void set_v6(struct proxy_client *c, const void *addr, uint16_t port)
{
	struct sockaddr_in6 *sa = (struct sockaddr_in6 *)&c->addr;
	*sa = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
	memcpy(&sa->sin6_addr, addr, 16);
	c->addr_n = sizeof *sa;
}

static bool take_address(struct span word, int family, unsigned char out[16])
{
	char text[INET6_ADDRSTRLEN];
	if (word.n == 0 || word.n >= sizeof text || memchr(word.at, '\0', word.n) != NULL)
		return false;
	memcpy(text, word.at, word.n);
	text[word.n] = '\0';
	return inet_pton(family, text, out) == 1;
}

/* "PROXY TCP4 192.0.2.1 192.0.2.2 56324 25": words parted by one blank each (2.1). */
static int take_v1(struct span line, struct proxy_client *out)
{
	unsigned char from[16], to[16];
	uint64_t from_port, to_port;
	(void)span_until(&line, ' ');
	struct span family = span_until(&line, ' ');
	if (span_is(family, "UNKNOWN"))
		return 0;
	int af = span_is(family, "TCP4") ? AF_INET : span_is(family, "TCP6") ? AF_INET6 : AF_UNSPEC;
	struct span source = span_until(&line, ' '), target = span_until(&line, ' '), source_port = span_until(&line, ' ');
	if (af == AF_UNSPEC || !take_address(source, af, from) || !take_address(target, af, to) || parse_u64(source_port, 65535, &from_port) != 0 ||
		parse_u64(line, 65535, &to_port) != 0)
		return EBADMSG;
	if (af == AF_INET)
		set_v4(out, from, (uint16_t)from_port);
	else
		set_v6(out, from, (uint16_t)from_port);
	return 0;
}

/* Addresses of the command PROXY; LOCAL, and families that are none of ours, say nothing (2.2). */
static int take_v2(const unsigned char *p, size_t length, struct proxy_client *out)
{
	unsigned char command = p[12], family = p[13];
	const unsigned char *at = p + V2_HEAD;
	if (command >> 4 != 2 || (command & 15) > 1)
		return EBADMSG;
	if ((command & 15) == 0)
		return 0;
	if (family == 0x11 && length >= 12)
		set_v4(out, at, (uint16_t)(at[8] << 8 | at[9]));
	else if (family == 0x21 && length >= 36)
		set_v6(out, at, (uint16_t)(at[32] << 8 | at[33]));
	else if (family == 0x11 || family == 0x21)
		return EBADMSG;
	return 0;
}

int proxy_parse(struct span in, struct proxy_client *out, size_t *used)
{
	static const char v1[] = "PROXY ", v2[] = "\r\n\r\n\0\r\nQUIT\n";
	const unsigned char *p = (const unsigned char *)in.at;
	*out = (struct proxy_client){.addr_n = 0};
	*used = 0;
	if (in.n == 0)
		return EAGAIN;
	if (memcmp(in.at, v1, in.n < 6 ? in.n : 6) == 0) {
		const char *lf = memchr(in.at, '\n', in.n < V1_MOST ? in.n : V1_MOST);
		if (lf == NULL)
			return in.n < V1_MOST ? EAGAIN : EBADMSG;
		*used = (size_t)(lf - in.at) + 1;
		return *used > 7 && lf[-1] == '\r' ? take_v1((struct span){in.at, *used - 2}, out) : EBADMSG;
	}
	if (memcmp(in.at, v2, in.n < 12 ? in.n : 12) != 0)
		return EBADMSG;
	if (in.n < V2_HEAD)
		return EAGAIN;
	size_t length = (size_t)(p[14] << 8 | p[15]);
	if (V2_HEAD + length > V2_MOST)
		return EBADMSG;
	if (in.n < V2_HEAD + length)
		return EAGAIN;
	*used = V2_HEAD + length;
	return take_v2(p, length, out);
}
