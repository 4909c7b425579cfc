/* What the service manager is told (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names. */
#include "master.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void master_notify_begin(struct master *m)
{
	const char *path = getenv("NOTIFY_SOCKET"), *watchdog = getenv("WATCHDOG_USEC");
	uint64_t us;
	if (path != NULL && (path[0] == '/' || path[0] == '@') && strlen(path) < sizeof((struct sockaddr_un){0}).sun_path)
		m->manager = strdup(path);
	if (watchdog != NULL && parse_u64(span_of(watchdog), INT64_MAX, &us) == 0)
		m->watchdog_ms = (int64_t)(us / 1000);
	(void)unsetenv("NOTIFY_SOCKET"); /* nobody else's */
	(void)unsetenv("WATCHDOG_USEC");
	(void)unsetenv("WATCHDOG_PID");
}

/* Before it becomes another build: that one is told as this one was. */
void master_notify_hand_over(const struct master *m)
{
	char text[32];
	if (m->manager == NULL)
		return;
	(void)snprintf(text, sizeof text, "%lld", (long long)m->watchdog_ms * 1000);
	(void)setenv("NOTIFY_SOCKET", m->manager, 1);
	if (m->watchdog_ms > 0)
		(void)setenv("WATCHDOG_USEC", text, 1);
}

void master_notify(const struct master *m, const char *text)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = m->manager == NULL ? -1 : socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	size_t n = strlen(m->manager);
	memcpy(sa.sun_path, m->manager, n);
	if (sa.sun_path[0] == '@')
		sa.sun_path[0] = '\0';
	(void)sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&sa, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
	(void)close(fd);
}

/* Called each second; the manager wants to hear at least once in the time that it gave. */
void master_notify_alive(struct master *m, int64_t now_ms)
{
	if (m->watchdog_ms == 0 || now_ms - m->notified_ms < m->watchdog_ms / 4)
		return;
	m->notified_ms = now_ms;
	master_notify(m, "WATCHDOG=1");
}
