#include "qmgr.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_journal(struct qmgr *q, const struct qmsg *m, struct buffer *into, struct span *content)
{
	struct segment s;
	struct record r;
	int error = segment_open(q->journal_fd, m->seq, false, &s);
	if (error != 0)
		return error;
	error = buffer_reserve(into, m->length);
	if (error == 0)
		error = pread_all(s.fd, into->at, m->length, (off_t)m->offset);
	into->n = m->length;
	if (error == 0)
		error = record_parse(buffer_span(into), s.random, &r);
	if (error == 0)
		*content = r.content;
	segment_close(&s);
	return error;
}

static int read_wait(struct qmgr *q, const struct qmsg *m, struct buffer *into, struct span *content)
{
	char name[64];
	struct record r;
	struct span fates;
	qid_path(&m->id, ".msg", name, sizeof name);
	int error = read_file_at(q->wait_fd, name, 64 * 1024 * 1024, into);
	if (error == 0)
		error = wait_parse(buffer_span(into), &r, &fates);
	if (error == 0)
		*content = r.content;
	return error;
}

static int read_body(struct qmgr *q, const struct qmsg *m, struct buffer *into, struct span *content, size_t limit)
{
	int fd = content_body_fd(q, m);
	if (fd < 0)
		return errno;
	int error = buffer_reserve(into, limit);
	ssize_t n = error == 0 ? pread(fd, into->at, limit, 0) : -1;
	(void)close(fd);
	if (n < 0)
		return error != 0 ? error : errno;
	into->n = (size_t)n;
	*content = buffer_span(into);
	return 0;
}

/* limit 0: all of it; a body file is read only with a limit. */
int content_read(struct qmgr *q, struct qmsg *m, struct buffer *into, struct span *content, size_t limit, bool *truncated)
{
	int error;
	buffer_clear(into);
	if ((m->e.flags & ENV_BODY_FILE) != 0)
		error = read_body(q, m, into, content, limit);
	else if (m->in_wait)
		error = read_wait(q, m, into, content);
	else
		error = read_journal(q, m, into, content);
	*truncated = false;
	if (error == 0 && limit > 0 && m->e.size > limit) {
		*truncated = true;
		if (content->n > limit)
			content->n = limit;
	}
	return error;
}

int content_body_fd(struct qmgr *q, const struct qmsg *m)
{
	char name[64];
	qid_path(&m->id, "", name, sizeof name);
	return openat(q->body_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}
