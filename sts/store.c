/* spool_directory/sts: a file for each policy that holds, named by a digest of its domain. */
#include "sts_agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_MOST = STS_TEXT_MOST + 8192 };

static void name_of(const struct domain_policy *d, char out[FILE_NAME])
{
	unsigned char digest[SHA256_DIGEST_LENGTH];
	char text[1500];
	int n = snprintf(text, sizeof text, "%s\n%s", d->domain, d->agent->authorities[d->authorities].path);
	(void)SHA256((const unsigned char *)text, n < (int)sizeof text ? (size_t)n : sizeof text - 1, digest);
	for (size_t i = 0; i < sizeof digest; i++)
		(void)snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static void complain_of(struct sts_agent *a, const char *what, int error)
{
	LOG(&a->proc.log, cache_failed, NO_ID, F("file", span_of(what)), F("reason", span_of(strerror(error))));
}

void store_write(struct domain_policy *d)
{
	char name[FILE_NAME];
	struct buffer b;
	struct span hosts = buffer_span(&d->mx), host;
	name_of(d, name);
	buffer_init(&b, FILE_MOST);
	buffer_printf(&b, "domain %s\nauthorities %s\npolicy %s\nmode %s\nfetched %lld\nuntil %lld\n", d->domain, d->agent->authorities[d->authorities].path, d->id,
		sts_mode_name(d->mode), (long long)d->fetched_s, (long long)d->until_s);
	while (take_lspan(&hosts, &host))
		buffer_printf(&b, "mx %.*s\n", SPAN_ARG(host));
	buffer_puts(&b, "end\n");
	int error = !buffer_ok(&b) ? ENOMEM : replace_file_at(d->agent->dir_fd, name, buffer_span(&b), 0600);
	if (error != 0)
		complain_of(d->agent, name, error);
	buffer_free(&b);
}

void store_remove(const struct domain_policy *d)
{
	char name[FILE_NAME];
	name_of(d, name);
	(void)unlinkat(d->agent->dir_fd, name, 0);
}

/* What a file says. */
struct stored {
	struct span domain, authorities, id;
	enum sts_mode mode;
	uint64_t fetched, until;
	struct buffer mx;
	bool whole;
};

static bool take_mode(struct span value, enum sts_mode *mode)
{
	for (enum sts_mode m = STS_NONE; m <= STS_ENFORCE; m++)
		if (span_is(value, sts_mode_name(m))) {
			*mode = m;
			return true;
		}
	return false;
}

static bool parse(struct span text, struct stored *s)
{
	bool good = true;
	while (text.n > 0 && good) {
		struct span line = span_until(&text, '\n'), key = span_until(&line, ' ');
		if (span_is(key, "domain"))
			s->domain = line;
		else if (span_is(key, "authorities"))
			s->authorities = line;
		else if (span_is(key, "policy"))
			s->id = line;
		else if (span_is(key, "mode"))
			good = take_mode(line, &s->mode);
		else if (span_is(key, "fetched"))
			good = parse_u64(line, INT64_MAX / 4, &s->fetched) == 0;
		else if (span_is(key, "until"))
			good = parse_u64(line, INT64_MAX / 4, &s->until) == 0;
		else if (span_is(key, "mx"))
			buffer_put_lspan(&s->mx, line);
		else
			s->whole = span_is(key, "end");
	}
	return good && s->whole && s->domain.n > 0 && s->id.n <= STS_ID_MOST && s->until >= s->fetched && s->until - s->fetched <= STS_AGE_MOST && buffer_ok(&s->mx);
}

/* By which server's authorities it was checked; no server has them any more: it is of no use. */
static bool find_authorities(const struct sts_agent *a, struct span path, uint32_t *found)
{
	for (uint32_t i = 0; i < a->proc.config.servers_n; i++)
		if (span_is(path, a->authorities[i].path)) {
			*found = authorities_of(a, i);
			return true;
		}
	return false;
}

static bool take(struct sts_agent *a, const struct stored *s)
{
	uint32_t authorities;
	struct domain_policy *d = (int64_t)s->until <= clock_wall_us() / 1000000 || !find_authorities(a, s->authorities, &authorities) ? NULL : domain_get(a, authorities, s->domain);
	if (d == NULL || d->kept)
		return d != NULL;
	d->kept = true;
	d->mode = s->mode;
	d->fetched_s = (int64_t)s->fetched;
	d->until_s = (int64_t)s->until;
	(void)snprintf(d->id, sizeof d->id, "%.*s", SPAN_ARG(s->id));
	buffer_put_span(&d->mx, buffer_span(&s->mx));
	return true;
}

static void read_one(struct sts_agent *a, const char *name)
{
	struct buffer text;
	struct stored s = {.mode = STS_NONE};
	buffer_init(&text, FILE_MOST);
	buffer_init(&s.mx, FILE_MOST);
	int error = read_file_at(a->dir_fd, name, FILE_MOST, &text);
	if (error != 0 && error != ENOENT)
		complain_of(a, name, error);
	if (error == 0 && (!parse(buffer_span(&text), &s) || !take(a, &s)))
		(void)unlinkat(a->dir_fd, name, 0);
	buffer_free(&s.mx);
	buffer_free(&text);
}

void store_read_all(struct sts_agent *a)
{
	int fd = openat(a->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		complain_of(a, ".", errno);
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	for (const struct dirent *e; (e = readdir(dir)) != NULL;)
		if (strlen(e->d_name) == FILE_NAME - 1)
			read_one(a, e->d_name);
	(void)closedir(dir);
}
