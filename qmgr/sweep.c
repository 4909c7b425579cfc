/* Large bodies whose message was never recorded: their client, and cleanup or mover, died before the record. */
#include "qmgr.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DISCARD_BODY = 2, ORPHAN_AGE_S = 86400, DIRS_A_SECOND = 8 };

static bool is_orphan(struct qmgr *q, const struct qid *id)
{
	char name[64];
	if (q_now(q) - qid_wall_us(id) / 1000000 < ORPHAN_AGE_S || msg_find(q, id) != NULL)
		return false;
	qid_path(id, ".msg", name, sizeof name);
	if (faccessat(q->wait_fd, name, F_OK, 0) == 0 || errno != ENOENT)
		return false;
	(void)snprintf(name, sizeof name, "corrupt/%s.msg", id->text); /* what belongs to a damaged message is kept with it */
	return faccessat(q->queue_fd, name, F_OK, 0) != 0 && errno == ENOENT;
}

/* Is every record of the journal known that there is? */
static bool has_read_all(const struct qmgr *q)
{
	for (size_t i = 0; i < q->segs_n; i++) {
		const struct seg_state *s = &q->segs[i];
		bool here = q->reading && q->reader.segment.seq == s->seq && q->reader.offset >= s->end;
		if (!s->read && (s->complete || (s->end > SEGMENT_BLOCK && !here)))
			return false;
	}
	return true;
}

static void sweep_dir(struct qmgr *q, unsigned which)
{
	char name[8];
	(void)snprintf(name, sizeof name, "%02x", which);
	int fd = openat(q->body_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL)
		return;
	for (const struct dirent *d; (d = readdir(dir)) != NULL;) {
		struct qid id;
		if (strlen(d->d_name) != QID_N || qid_parse((struct span){d->d_name, QID_N}, &id) != 0 || !is_orphan(q, &id))
			continue;
		LOG(&q->proc.log, orphan_removed, qid_span(&id), F("age", SPAN_LIT("more than a day")));
		send_discard(q->mover, (struct msg_discard){.id = qid_span(&id), .what = DISCARD_BODY}, -1);
	}
	(void)closedir(dir);
}

void sweep_bodies(struct qmgr *q)
{
	if (q->sweep_dir >= 256 || q->pass_dir < 256 || q->mover == NULL)
		return;
	if (!has_read_all(q))
		return;
	for (unsigned i = 0; i < DIRS_A_SECOND && q->sweep_dir < 256; i++)
		sweep_dir(q, q->sweep_dir++);
}
