/* One event as a line of text or a JSON object; here outside text is escaped and cut. */
#include "logd.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { VALUE_LIMIT = 1000, LINES_LIMIT = 64 * 1024 };

static void put_json_text(struct buffer *b, struct span s)
{
	buffer_put_json(b, s.n < VALUE_LIMIT ? s : (struct span){s.at, VALUE_LIMIT});
}

static void put_plain(struct buffer *b, struct span s)
{
	size_t n = s.n < VALUE_LIMIT ? s.n : VALUE_LIMIT, start = 0;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s.at[i];
		if (c >= 0x20 && c != 0x7f)
			continue;
		buffer_put(b, s.at + start, i - start);
		buffer_printf(b, "\\x%02x", c);
		start = i + 1;
	}
	buffer_put(b, s.at + start, n - start);
	if (n < s.n)
		buffer_puts(b, "...");
}

static void put_text_fields(struct buffer *b, struct span fields)
{
	struct span key, value;
	bool first = true;
	while (take_lspan(&fields, &key) && take_lspan(&fields, &value)) {
		if (!first)
			buffer_puts(b, ", ");
		first = false;
		put_plain(b, key);
		buffer_putc(b, '=');
		put_plain(b, value);
	}
}

/* A time stamp is made once a second: strftime and the zone cost more than the rest of a line. */
static const char *stamp(struct logd *l)
{
	struct timespec now;
	struct tm tm;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec != l->stamp_s && localtime_r(&now.tv_sec, &tm) != NULL) {
		l->stamp_s = now.tv_sec;
		(void)strftime(l->stamp, sizeof l->stamp, l->json ? "%Y-%m-%dT%H:%M:%S%z" : "%b %e %H:%M:%S", &tm);
	}
	return l->stamp;
}

static void put_text(struct logd *l, const struct channel *from, enum log_level level, struct span event, struct span id, struct span fields)
{
	static const char *const severities[] = {"error: ", "warning: ", "", "debug: "};
	static const int priorities[] = {2 << 3 | 3, 2 << 3 | 4, 2 << 3 | 6, 2 << 3 | 7}; /* facility mail */
	struct buffer *b = &l->lines;
	if (l->datagrams)
		buffer_printf(b, "<%d>%s posthorn/%s[%d]: %s", priorities[level], stamp(l), role_name(from->peer), (int)from->pid, severities[level]);
	else
		buffer_printf(b, "%s %s posthorn/%s[%d]: %s", stamp(l), l->host, role_name(from->peer), (int)from->pid, severities[level]);
	/* mail log lines read like Postfix's; what wants somebody's eye names its event too */
	if (id.n == 0 || level <= LOG_LEVEL_WARNING) {
		put_plain(b, event);
		buffer_puts(b, ": ");
	}
	if (id.n > 0) {
		put_plain(b, id);
		buffer_puts(b, ": ");
	}
	put_text_fields(b, fields);
}

static void put_json(struct logd *l, const struct channel *from, enum log_level level, struct span event, struct span id, struct span fields)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	struct buffer *b = &l->lines;
	struct span key, value;
	const char *time_text = stamp(l);
	if (l->datagrams)
		buffer_puts(b, "<22>posthorn: ");
	buffer_printf(b, "{\"time\":\"%.22s:%s\",\"program\":\"%s\",\"pid\":%d,\"level\":\"%s\",\"event\":", time_text, time_text + 22,
		role_name(from->peer), (int)from->pid, names[level]);
	put_json_text(b, event);
	if (id.n > 0) {
		buffer_puts(b, ",\"id\":");
		put_json_text(b, id);
	}
	while (take_lspan(&fields, &key) && take_lspan(&fields, &value)) {
		buffer_putc(b, ',');
		put_json_text(b, key);
		buffer_putc(b, ':');
		put_json_text(b, value);
	}
	buffer_putc(b, '}');
}

void logd_line(struct logd *l, const struct channel *from, enum log_level level, struct span event, struct span id, struct span fields)
{
	if (l->json)
		put_json(l, from, level, event, id, fields);
	else
		put_text(l, from, level, event, id, fields);
	if (!l->datagrams)
		buffer_putc(&l->lines, '\n');
	if (l->datagrams || l->lines.n > LINES_LIMIT) {
		logd_flush(l);
	} else if (!l->flush_due) {
		l->flush_due = true;
		event_active(l->flush, 0, 0);
	}
}

void logd_flush(struct logd *l)
{
	if (l->lines.n > 0 && (!buffer_ok(&l->lines) || write_all(l->fd, l->lines.at, l->lines.n) != 0))
		l->lost++;
	buffer_clear(&l->lines);
}
