/* The task: what deliver and local said, and how it ends. */
#include "child.h"
#include "proc/proc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

_Noreturn void child_end(int code, const char *enhanced, const char *format, ...)
{
	char text[600], words[700];
	va_list args;
	va_start(args, format);
	(void)vsnprintf(text, sizeof text, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): va_start is above */
	va_end(args);
	int n = snprintf(words, sizeof words, "%d %s %s\n", code, enhanced, text);
	(void)!write_all(WORDS_FD, words, n > 0 && (size_t)n < sizeof words ? (size_t)n : sizeof words - 1);
	_exit(EX_OK);
}

_Noreturn void child_fail(const struct child_task *t, const char *what, int error)
{
	if (error == EDQUOT && span_is(t->quota, "552"))
		child_end(552, "5.2.2", "the mailbox is full (%s: %s)", what, strerror(error));
	if (error == EDQUOT)
		child_end(452, "4.2.2", "the mailbox is full (%s: %s)", what, strerror(error));
	if (error == ENOSPC)
		child_end(452, "4.3.1", "%s: %s", what, strerror(error));
	child_end(451, "4.2.0", "%s: %s", what, strerror(error));
}

static int take_line(struct child_task *t, struct span name, struct span value)
{
	struct { const char *name; struct span *place; } known[] = {{"id", &t->id},
		{"sender", &t->sender}, {"recipient", &t->recipient}, {"local", &t->local}, {"domain", &t->domain}, {"extension", &t->extension},
		{"original", &t->original}, {"arrived", &t->arrived}};
	for (size_t i = 0; i < COUNT_OF(known); i++) {
		if (span_is(name, known[i].name)) {
			*known[i].place = value;
			return 0;
		}
	}
	return EBADMSG;
}

static int read_task(struct buffer *bytes, struct child_task *t)
{
	char block[4096];
	ssize_t n;
	buffer_init(bytes, TASK_LIMIT);
	while ((n = read(TASK_FD, block, sizeof block)) > 0)
		buffer_put(bytes, block, (size_t)n);
	struct span rest = buffer_span(bytes);
	int error = n < 0 ? errno : buffer_ok(bytes) ? 0 : EFBIG;
	while (error == 0 && rest.n > 0) {
		struct span value = span_until(&rest, '\n'), name = span_until(&value, '=');
		error = take_line(t, name, value);
	}
	return error;
}

/* %u is the user, %d the domain; neither can lead out of the place where it stands. */
static int put_word(struct buffer *b, struct span word)
{
	for (size_t i = 0; i < word.n; i++)
		if (word.at[i] == '/' || (i == 0 && word.at[i] == '.'))
			return EINVAL;
	buffer_put_span(b, word);
	return 0;
}

static char *path_of(const struct child_task *t, struct span target)
{
	struct buffer b;
	int error = 0;
	buffer_init(&b, 4096);
	if (target.n > 0 && target.at[0] != '/')
		buffer_printf(&b, "%s/", getenv("HOME") == NULL ? "" : getenv("HOME"));
	for (size_t i = 0; i < target.n && error == 0; i++) {
		if (target.at[i] != '%' || i + 1 == target.n) {
			buffer_putc(&b, target.at[i]);
			continue;
		}
		i++;
		if (target.at[i] == 'u')
			error = put_word(&b, t->name.n > 0 ? t->name : span_of(getenv("USER")));
		else if (target.at[i] == 'd')
			error = put_word(&b, t->domain);
		else
			buffer_putc(&b, target.at[i]);
	}
	char *path = error == 0 && buffer_ok(&b) && b.n > 0 && b.at[0] == '/' ? span_dup(buffer_span(&b)) : NULL;
	buffer_free(&b);
	return path;
}

/* What deliver says; a command of the recipient's does not see it. */
static struct span take_environment(const char *name)
{
	char *value = getenv(name) == NULL ? NULL : span_dup(span_of(getenv(name)));
	(void)unsetenv(name);
	return span_of(value); /* until the process ends */
}

void child_begin(struct child_task *t)
{
	if (read_task(&t->bytes, t) != 0)
		child_end(451, "4.3.0", "the delivery's task could not be read");
	const struct { const char *name; struct span *place; } told[] = {{CHILD_ACTION, &t->action}, {CHILD_TARGET, &t->target}, {CHILD_QUOTA, &t->quota},
		{CHILD_FORWARD, &t->forward}, {CHILD_MAPS, &t->maps}, {CHILD_DELIMITER, &t->delimiter}, {CHILD_OWNER, &t->owner}, {CHILD_NAME, &t->name}};
	for (size_t i = 0; i < COUNT_OF(told); i++)
		*told[i].place = take_environment(told[i].name);
	if (content_has_been_here(t))
		child_end(554, "5.4.6", "mail forwarding loop: the message has been delivered to this recipient before");
}

_Noreturn void child_deliver(struct child_task *t)
{
	if (span_is(t->action, "pipe"))
		pipe_deliver(t);
	t->path = path_of(t, t->target);
	if (t->path == NULL)
		child_end(451, "4.3.5", "the mailbox's name is of no use");
	if (span_is(t->action, "maildir"))
		maildir_deliver(t);
	if (span_is(t->action, "mbox"))
		mbox_deliver(t);
	child_end(451, "4.3.5", "no such way of delivery");
}
