#include "drop.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOOK_AGAIN_MS = 3600000, FULL_LOOK_AGAIN_MS = 2000 };

/* Pickup writes there as well, and people take away: the sum is made anew now and then, and before anything is lost. */
static void look(struct drop *d)
{
	int fd = openat(d->badmail_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL)
		return;
	d->badmail_bytes = 0;
	d->badmail_oldest_s = INT64_MAX;
	for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
		struct stat st;
		if (e->d_name[0] == '.' || fstatat(d->badmail_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
			continue;
		d->badmail_bytes += (uint64_t)st.st_size;
		if (st.st_mtime < d->badmail_oldest_s)
			d->badmail_oldest_s = st.st_mtime;
	}
	(void)closedir(dir);
	d->badmail_seen_ms = clock_mono_ms();
}

static bool fits(const struct drop *d, uint64_t bytes)
{
	const struct server_params *p = &d->server->p;
	int64_t now = clock_wall_us() / 1000000;
	if (p->badmail_size_limit != PARAM_UNLIMITED && d->badmail_bytes + bytes > (uint64_t)p->badmail_size_limit)
		return false;
	return p->badmail_age_limit == PARAM_UNLIMITED || d->badmail_oldest_s == INT64_MAX || now - d->badmail_oldest_s < p->badmail_age_limit;
}

bool badmail_takes(struct drop *d, uint64_t bytes)
{
	int64_t age = clock_mono_ms() - d->badmail_seen_ms;
	if (d->badmail_seen_ms == 0 || age > LOOK_AGAIN_MS || (age > FULL_LOOK_AGAIN_MS && !fits(d, bytes)))
		look(d);
	if (!fits(d, bytes))
		return false;
	d->badmail_bytes += bytes;
	if (d->badmail_oldest_s == INT64_MAX)
		d->badmail_oldest_s = clock_wall_us() / 1000000;
	return true;
}

/* Each recipient has its line, so that all that is known of the message is in the log. */
void badmail_lose(struct drop *d, const struct drop_job *j)
{
	struct span rest = buffer_span(&j->head), sender = {"", 0};
	char count[32], size[32];
	(void)snprintf(count, sizeof count, "%llu", (unsigned long long)++d->badmail_lost);
	(void)snprintf(size, sizeof size, "%zu", j->content.n);
	while (rest.n > 0) {
		struct span value = span_until(&rest, '\n');
		struct span name = span_until(&value, '=');
		if (span_is(name, "sender"))
			sender = value;
		if (span_is(name, "recipient"))
			LOG(&d->proc.log, badmail_full, qid_span(&j->id), F("from", sender), F("to", value), F("size", span_of(size)),
				F("reason", buffer_span(&j->reason)), F("lost", span_of(count)));
	}
}
