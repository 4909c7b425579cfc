/* Large bodies without a message: client, cleanup or mover died before its record, or the record is damaged.  Which of
 * the two nobody can tell: they are set aside, not deleted. */
#include "qmgr.h"

#include <fcntl.h>
#include <unistd.h>

enum { ORPHAN_AGE_S = 86400, DIRS_A_SECOND = 8 };

static bool look_at_body(struct qmgr *q, const struct qid *id)
{
	char name[64];
	qid_path(id, ".msg", name, sizeof name);
	bool old = q_now(q) - qid_wall_us(id) / 1000000 >= ORPHAN_AGE_S;
	if (old && msg_find(q, id) == NULL && faccessat(q->wait_fd, name, F_OK, 0) != 0 && errno == ENOENT)
		damage_orphan(q, id);
	return true;
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

void sweep_bodies(struct qmgr *q)
{
	if (q->sweep_dir >= 256 || q->pass_dir < 256 || !has_read_all(q))
		return;
	for (unsigned i = 0; i < DIRS_A_SECOND && q->sweep_dir < 256; i++)
		(void)!wait_each_id(q, q->body_fd, q->sweep_dir++, "", look_at_body); /* what is not seen stays */
}
