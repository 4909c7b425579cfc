/* storage of a queue that lies on shared storage: nothing is written, and nothing is taken for written, without the lease. */
#include "queuefile/queuefile.h"

static int check(struct storage *s)
{
	return lease_holds(s->context) ? 0 : ESTALE;
}

static int leased_write(struct storage *s, int fd, const char *name, struct span bytes, off_t at)
{
	int error = check(s);
	return error != 0 ? error : storage_real.write(&storage_real, fd, name, bytes, at);
}

/* What was synced while the lease held is seen by whoever has the queue next; of what came later nobody may rely on. */
static int leased_sync(struct storage *s, int fd, const char *name)
{
	int error = check(s);
	if (error == 0)
		error = storage_real.sync(&storage_real, fd, name);
	return error != 0 ? error : check(s);
}

static int leased_rename(struct storage *s, int dir_fd, const char *from, const char *to)
{
	int error = check(s);
	return error != 0 ? error : storage_real.rename(&storage_real, dir_fd, from, to);
}

static int leased_unlink(struct storage *s, int dir_fd, const char *name)
{
	int error = check(s);
	return error != 0 ? error : storage_real.unlink(&storage_real, dir_fd, name);
}

static int leased_sync_dir(struct storage *s, int dir_fd, const char *name)
{
	int error = check(s);
	if (error == 0)
		error = storage_real.sync_dir(&storage_real, dir_fd, name);
	return error != 0 ? error : check(s);
}

struct storage storage_leased(const struct lease_slot *slot)
{
	return (struct storage){.write = leased_write, .sync = leased_sync, .rename = leased_rename, .unlink = leased_unlink, .sync_dir = leased_sync_dir,
		.check = check, .context = (void *)(uintptr_t)slot};
}

int storage_check(struct storage *s)
{
	return s->check == NULL ? 0 : s->check(s);
}
