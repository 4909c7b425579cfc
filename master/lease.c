/* Servers whose queue lies on shared storage (MISSION A9): nothing of them runs here without the lease. */
#include "master.h"
#include "lease/lease.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_leased(const struct master *m, uint32_t server)
{
	return m->config.servers[server].p.cluster != 0;
}

int master_make_leases(struct master *m)
{
	size_t size = SERVERS_MOST * sizeof(struct lease_slot);
	if (m->leases_fd <= 0) {
		int fd = memfd_create("posthorn-leases", MFD_CLOEXEC);
		m->leases_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 4); /* out of the way of what children get as 3 */
		if (fd >= 0)
			(void)close(fd);
		if (m->leases_fd < 0 || fchmod(m->leases_fd, 0600) != 0 || ftruncate(m->leases_fd, (off_t)size) != 0)
			return errno;
	}
	m->leases = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m->leases_fd, 0);
	if (m->leases == MAP_FAILED) {
		m->leases = NULL;
		return errno;
	}
	return 0;
}

/* Whom a lease concerns gets the table, all but lease itself to read it. */
int master_leases_for(const struct master *m, enum role role)
{
	static const unsigned readers = R_CLEANUP | R_QMGR | R_MOVER | R_PICKUP | R_DROP | R_LOCAL | R_SMTP;
	char path[64];
	if (role == R_LEASE)
		return fcntl(m->leases_fd, F_DUPFD_CLOEXEC, 4);
	if ((readers & (unsigned)role) == 0)
		return -1;
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", m->leases_fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

bool master_lease_due(struct master *m, uint32_t server)
{
	if (!is_leased(m, server))
		return false;
	m->runs[server].leased = false;
	atomic_store(&m->leases[server].until_ms, 0);
	atomic_store(&m->leases[server].token, 0);
	return true;
}

bool master_waits_for_lease(const struct master *m, uint32_t server)
{
	return is_leased(m, server) && !m->runs[server].leased;
}

int master_on_lease_taken(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, lease_taken, taken);
	const struct child *c = ch->peer_state;
	struct master *m = c->master;
	(void)taken;
	if (c->server == NO_SERVER || m->runs[c->server].state != RUN_STARTING || m->runs[c->server].leased)
		return 0; /* a successor goes on with what it has */
	m->runs[c->server].leased = true;
	master_start_leased(m, c->server);
	return 0;
}

/* What runs would only fail from now on, or worse: it ends at once. */
static void lost(struct master *m, uint32_t server, const char *why)
{
	struct server_run *r = &m->runs[server];
	if (r->state != RUN_STARTING && r->state != RUN_RUNNING)
		return;
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->server == server && c->pid > 0 && c->role != R_LEASE)
			(void)kill(c->pid, SIGKILL);
	master_end_server(m, server, why);
}

int master_on_lease_lost(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, lease_lost, what);
	const struct child *c = ch->peer_state;
	char why[400];
	(void)snprintf(why, sizeof why, "the lease of its queue: %.*s", (int)(what.why.n < 300 ? what.why.n : 300), what.why.at);
	if (c->server != NO_SERVER)
		lost(c->master, c->server, why);
	return 0;
}

/* lease itself may hang in a disk: the others must not go on. */
void master_check_leases(struct master *m)
{
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		if (m->runs[i].state == RUN_RUNNING && is_leased(m, i) && !lease_holds(&m->leases[i]))
			lost(m, i, "the lease of its queue was not renewed in time");
}
