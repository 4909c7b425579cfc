#include "pickup.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BODY_CREDIT = 8, IN_MEMORY = 128 * 1024 };

static struct submission **find(struct pickup *p, struct span text)
{
	struct submission **s = &p->submissions;
	while (*s != NULL && !span_is(text, (*s)->id.text))
		s = &(*s)->next;
	return s;
}

static void forget(struct pickup *p, struct submission **at)
{
	struct submission *s = *at;
	*at = s->next;
	p->submissions_n--;
	buffer_free(&s->envelope);
	buffer_free(&s->content);
	screen_free(s);
	free(s);
	event_active(p->more, 0, 0);
}

/* What lies in .taken and is not on its way. */
static void look_again(struct pickup *p)
{
	if (p->left_ms == 0)
		p->left_ms = clock_mono_ms() + LEFT_MS;
}

static void set_aside(struct pickup *p, const struct place *pl, const struct qid *id, const char *file, struct span text, const char *reason)
{
	char name[40];
	struct buffer why;
	buffer_init(&why, 1024);
	if (file[0] != '\0') {
		buffer_put_escaped(&why, span_of(file), 255);
		buffer_puts(&why, ": ");
	}
	buffer_printf(&why, "%s\n", reason);
	LOG(&p->proc.log, bad_file, qid_span(id), F("file", span_of(file)), F("reason", span_of(reason)));
	(void)snprintf(name, sizeof name, "%s.BDR", id->text);
	int error = replace_file_at(p->badmail_fd, name, buffer_span(&why), 0640);
	(void)snprintf(name, sizeof name, "%s.BAD", id->text);
	/* the file itself moves there; to another file system it is copied, as far as it could be read */
	if (error == 0 && renameat(pl->taken_fd, id->text, p->badmail_fd, name) != 0)
		error = replace_file_at(p->badmail_fd, name, text, 0640);
	if (error == 0)
		(void)unlinkat(pl->taken_fd, id->text, 0);
	else
		look_again(p);
	buffer_free(&why);
}

static void send_content(struct pickup *p, struct submission *s)
{
	struct span rest = {s->content.at + s->sent_bytes, s->content.n - s->sent_bytes};
	while (s->credit > 0 && rest.n > 0) {
		size_t n = rest.n < IPC_INLINE ? rest.n : IPC_INLINE;
		send_body_data(p->mover, (struct msg_body_data){.id = qid_span(&s->id), .content = {rest.at, n}}, -1);
		rest.at += n;
		rest.n -= n;
		s->sent_bytes += n;
		s->credit--;
	}
	if (rest.n == 0)
		send_body_end(p->mover, (struct msg_body_end){.id = qid_span(&s->id)}, -1);
}

static void send_submission(struct pickup *p, struct submission *s)
{
	struct span content = s->in_file ? (struct span){"", 0} : buffer_span(&s->content);
	if (p->cleanup == NULL)
		return;
	while (content.n > IPC_INLINE) {
		send_submit_part(p->cleanup, (struct msg_submit_part){.id = qid_span(&s->id), .content = {content.at, IPC_INLINE}}, -1);
		content.at += IPC_INLINE;
		content.n -= IPC_INLINE;
	}
	send_submit(p->cleanup, (struct msg_submit){.id = qid_span(&s->id), .envelope = buffer_span(&s->envelope), .content = content}, -1);
}

static void begin(struct pickup *p, struct submission *s)
{
	if (s->screening != NULL) {
		screen_ask(p, s);
	} else if (s->in_file && s->body != BODY_STORED) {
		if (p->mover == NULL || s->body == BODY_ON_ITS_WAY)
			return;
		s->body = BODY_ON_ITS_WAY;
		s->sent_bytes = 0;
		s->credit = BODY_CREDIT;
		send_body_begin(p->mover, (struct msg_body_begin){.id = qid_span(&s->id)}, -1);
		send_content(p, s);
	} else {
		send_submission(p, s);
	}
}

static void mark_in_file(struct submission *s)
{
	struct arena arena = {0};
	struct envelope e;
	struct buffer fresh;
	buffer_init(&fresh, s->envelope.limit);
	if (envelope_parse(buffer_span(&s->envelope), &arena, &e) == 0) {
		e.flags |= ENV_BODY_FILE;
		envelope_put(&fresh, &e);
	}
	buffer_free(&s->envelope);
	s->envelope = fresh;
	arena_free(&arena);
	s->in_file = true;
}

static void keep(struct pickup *p, struct place *pl, const struct qid *id, struct draft *d, const char *name)
{
	struct submission *s = calloc(1, sizeof *s);
	if (s == NULL) {
		buffer_free(&d->content);
		buffer_free(&d->envelope);
		look_again(p); /* the file stays in .taken */
		return;
	}
	*s = (struct submission){.id = *id, .place = pl, .envelope = d->envelope, .content = d->content, .size = d->content.n, .next = p->submissions};
	p->submissions = s;
	p->submissions_n++;
	if (d->screened && screen_begin(s, d, name) != 0)
		submit_leave(p, s, "not enough memory");
	else if (d->screened)
		screen_ask(p, s);
	else
		submit_screened(p, s);
}

void submit_screened(struct pickup *p, struct submission *s)
{
	s->size = s->content.n;
	if (s->content.n > IN_MEMORY)
		mark_in_file(s);
	begin(p, s);
}

void submit_later(struct pickup *p, const struct submission *s, const char *reason)
{
	struct timeval tv = {.tv_sec = 5};
	LOG(&p->proc.log, not_taken, qid_span(&s->id), F("reason", span_of(reason)));
	(void)event_add(p->again, &tv);
}

/* It holds no place meanwhile: others' files go on. */
void submit_leave(struct pickup *p, struct submission *s, const char *reason)
{
	LOG(&p->proc.log, not_taken, qid_span(&s->id), F("reason", span_of(reason)));
	look_again(p);
	forget(p, find(p, qid_span(&s->id)));
}

void submit_refuse(struct pickup *p, struct submission *s, const char *reason)
{
	struct buffer text;
	struct stat st;
	buffer_init(&text, FILE_LIMIT + 1);
	if (read_plain_file_at(s->place->taken_fd, s->id.text, FILE_LIMIT, &text, &st) == 0)
		set_aside(p, s->place, &s->id, s->screening->file, buffer_span(&text), reason);
	else
		look_again(p);
	buffer_free(&text);
	forget(p, find(p, qid_span(&s->id)));
}

void submit_drop(struct pickup *p, struct submission *s)
{
	LOG(&p->proc.log, discarded, qid_span(&s->id), F("from", s->screening->e.sender), F("status", SPAN_LIT("discarded")));
	(void)unlinkat(s->place->taken_fd, s->id.text, 0);
	forget(p, find(p, qid_span(&s->id)));
}

void submit_file(struct pickup *p, struct place *pl, const struct qid *id, const char *name)
{
	struct buffer text;
	struct stat st = {0};
	struct draft d = {.screened = screen_is_needed(p->server)};
	if (*find(p, qid_span(id)) != NULL)
		return;
	buffer_init(&text, FILE_LIMIT + 1);
	buffer_init(&d.content, 2 * FILE_LIMIT);
	buffer_init(&d.envelope, FILE_LIMIT);
	int error = read_plain_file_at(pl->taken_fd, id->text, FILE_LIMIT, &text, &st);
	if (error == 0)
		error = draft_make(p, pl, id, buffer_span(&text), st.st_uid, &d);
	if (error == 0) {
		keep(p, pl, id, &d, name);
	} else {
		buffer_free(&d.content);
		buffer_free(&d.envelope);
		if (error == ENOMEM)
			look_again(p);
		else if (error != ENOENT)
			set_aside(p, pl, id, name, buffer_span(&text), d.reason[0] != '\0' ? d.reason : error == ELOOP ? "a link, or a file with more than one name" : strerror(error));
	}
	buffer_free(&text);
}

void submit_again(struct pickup *p)
{
	struct submission *next;
	for (struct submission *s = p->submissions; s != NULL; s = next) {
		next = s->next;
		begin(p, s);
	}
}

void submit_mover_gone(struct pickup *p)
{
	for (struct submission *s = p->submissions; s != NULL; s = s->next)
		if (s->body == BODY_ON_ITS_WAY)
			s->body = BODY_HERE;
}

int submit_on_submitted(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, submitted, done);
	struct pickup *p = ch->program;
	struct submission **s = find(p, done.id);
	struct timeval tv = {.tv_sec = 5};
	if (*s == NULL)
		return 0;
	if (done.status != 0) { /* disk full, say: the file stays and is tried again */
		LOG(&p->proc.log, not_taken, done.id, F("reason", span_of(strerror((int)done.status))));
		(void)event_add(p->again, &tv);
		return 0;
	}
	LOG(&p->proc.log, taken, done.id, F("from", (*s)->place->maildrop ? SPAN_LIT("maildrop") : SPAN_LIT("Pickup")));
	(void)unlinkat((*s)->place->taken_fd, (*s)->id.text, 0);
	forget(p, s);
	return 0;
}

int submit_on_credit(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, body_credit, credit);
	struct submission **s = find(ch->program, credit.id);
	if (*s == NULL || (*s)->body != BODY_ON_ITS_WAY)
		return 0;
	(*s)->credit += credit.n;
	if ((*s)->sent_bytes < (*s)->content.n)
		send_content(ch->program, *s);
	return 0;
}

int submit_on_body_done(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, body_done, done);
	struct pickup *p = ch->program;
	struct submission **s = find(p, done.id);
	struct timeval tv = {.tv_sec = 5};
	if (*s == NULL)
		return 0;
	if ((*s)->body != BODY_ON_ITS_WAY)
		return 0;
	(*s)->body = done.status == 0 ? BODY_STORED : BODY_HERE;
	if (done.status == 0)
		send_submission(p, *s);
	else
		(void)event_add(p->again, &tv);
	return 0;
}
