/* Large bodies, streamed by their origins. */
#include "mover.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct body_file **find_body(struct mover *m, const struct channel *origin, struct span text)
{
	struct qid id;
	if (qid_parse(text, &id) != 0)
		return NULL;
	struct body_file **p = &m->bodies[qid_hash(&id) % BODY_BUCKETS];
	while (*p != NULL && ((*p)->origin != origin || !qid_same(&(*p)->id, &id)))
		p = &(*p)->next;
	return p;
}

static void forget(struct mover *m, struct body_file **p, bool keep_file)
{
	struct body_file *b = *p;
	char name[64];
	*p = b->next;
	if (b->fd >= 0)
		(void)close(b->fd);
	(void)snprintf(name, sizeof name, "tmp/%s", b->id.text);
	if (!keep_file)
		(void)unlinkat(m->body_fd, name, 0);
	free(b);
}

int body_on_begin(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, body_begin, begin);
	struct mover *m = ch->program;
	char name[64];
	struct body_file **p = find_body(m, ch, begin.id);
	if (p == NULL || *p != NULL)
		return EBADMSG;
	struct body_file *b = calloc(1, sizeof *b);
	if (b == NULL)
		return ENOMEM;
	b->origin = ch;
	(void)!qid_parse(begin.id, &b->id);
	(void)snprintf(name, sizeof name, "tmp/%s", b->id.text);
	b->error = storage_check(m->storage);
	b->fd = b->error != 0 ? -1 : openat(m->body_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (b->error == 0 && b->fd < 0)
		b->error = errno;
	*p = b;
	return 0;
}

int body_on_data(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, body_data, data);
	struct mover *m = ch->program;
	struct body_file **p = find_body(m, ch, data.id);
	if (p == NULL)
		return EBADMSG;
	if (*p == NULL)
		return 0; /* dropped meanwhile */
	struct body_file *b = *p;
	if (b->error == 0)
		b->error = m->storage->write(m->storage, b->fd, b->id.text, data.content, (off_t)b->n);
	b->n += data.content.n;
	if (b->error == 0 && b->n - b->synced >= SYNC_AHEAD) { /* the sync at the end finds little to do */
		(void)sync_file_range(b->fd, (off_t)b->synced, (off_t)(b->n - b->synced), SYNC_FILE_RANGE_WRITE);
		b->synced = b->n;
	}
	send_body_credit(ch, (struct msg_body_credit){.id = data.id, .n = 1}, -1);
	return 0;
}

/* The bytes of another body: a report holds the whole message that it is about. */
static int copy_bytes(struct mover *m, struct body_file *b, const struct qid *from)
{
	char name[64];
	qid_path(from, "", name, sizeof name);
	int fd = openat(m->body_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), error = fd < 0 ? errno : 0;
	char *block = error == 0 ? malloc(COPY_BLOCK) : NULL;
	if (error == 0 && block == NULL)
		error = ENOMEM;
	for (off_t at = 0; error == 0;) {
		ssize_t n = pread(fd, block, COPY_BLOCK, at);
		if (n < 0 && errno == EINTR)
			continue;
		error = n < 0 ? errno : n == 0 ? 0 : m->storage->write(m->storage, b->fd, b->id.text, (struct span){block, (size_t)n}, (off_t)b->n);
		if (n <= 0)
			break;
		at += n;
		b->n += (size_t)n;
	}
	free(block);
	if (fd >= 0)
		(void)close(fd);
	return error;
}

int body_on_copy(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, body_copy, copy);
	struct mover *m = ch->program;
	struct qid from;
	struct body_file **p = find_body(m, ch, copy.id);
	if (p == NULL || qid_parse(copy.from, &from) != 0)
		return EBADMSG;
	if (*p != NULL && (*p)->error == 0)
		(*p)->error = copy_bytes(m, *p, &from);
	return 0;
}

static int name_body(struct mover *m, struct body_file *b)
{
	char from[64], to[64], dir[8];
	int error = m->storage->sync(m->storage, b->fd, b->id.text);
	if (error != 0)
		return error;
	(void)snprintf(from, sizeof from, "tmp/%s", b->id.text);
	(void)snprintf(dir, sizeof dir, "%02x", (unsigned)(qid_hash(&b->id) & 0xff));
	qid_path(&b->id, "", to, sizeof to);
	error = m->storage->rename(m->storage, m->body_fd, from, to);
	return error == 0 ? m->storage->sync_dir(m->storage, m->body_fd, dir) : error;
}

int body_on_end(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, body_end, end);
	struct mover *m = ch->program;
	struct body_file **p = find_body(m, ch, end.id);
	if (p == NULL)
		return EBADMSG;
	if (*p == NULL)
		return 0;
	struct body_file *b = *p;
	if (b->error == 0)
		b->error = name_body(m, b);
	if (b->error != 0)
		LOG(&m->proc.log, body_failed, qid_span(&b->id), F("reason", span_of(strerror(b->error))));
	send_body_done(ch, (struct msg_body_done){.id = end.id, .status = (uint32_t)b->error, .bytes = b->n}, -1);
	forget(m, p, b->error == 0);
	return 0;
}

int body_on_drop(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, body_drop, drop);
	struct mover *m = ch->program;
	struct body_file **p = find_body(m, ch, drop.id);
	if (p == NULL)
		return EBADMSG;
	if (*p != NULL)
		forget(m, p, false);
	return 0;
}

bool body_any(const struct mover *m)
{
	bool any = false;
	for (size_t i = 0; i < BODY_BUCKETS; i++)
		any = any || m->bodies[i] != NULL;
	return any;
}

void body_origin_gone(struct mover *m, const struct channel *origin)
{
	for (size_t i = 0; i < BODY_BUCKETS; i++) {
		for (struct body_file **p = &m->bodies[i]; *p != NULL;) {
			if ((*p)->origin == origin)
				forget(m, p, false);
			else
				p = &(*p)->next;
		}
	}
}
