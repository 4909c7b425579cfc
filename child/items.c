/* What stands on the right side of an alias or in a .forward, item by item. */
#include "child.h"
#include "map/map.h"
#include "proc/proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INCLUDE_MOST = 1024 * 1024, INCLUDE_DEPTH = 5, ITEMS_MOST = 20000, WORDS_SIZE = 1000 };

/* One delivery in a process of its own, since each of the ways ends its process; not 2xx: its words are ours. */
static void run_apart(struct items *it, const char *action, struct span target)
{
	int words[2], status;
	char text[WORDS_SIZE + 1];
	size_t n = 0;
	ssize_t got;
	struct child_task t = *it->task;
	t.action = span_of(action);
	t.target = target;
	if (pipe2(words, O_CLOEXEC) != 0)
		child_fail(&t, "a pipe", errno);
	pid_t pid = fork();
	if (pid == 0) {
		if (dup2(words[1], WORDS_FD) < 0)
			_exit(71);
		(void)close(ADDRESSES_FD);
		child_deliver(&t);
	}
	(void)close(words[1]);
	while (pid > 0 && (got = read(words[0], text + n, WORDS_SIZE - n)) > 0)
		n += (size_t)got;
	(void)close(words[0]);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		child_fail(&t, "a process", errno);
	text[n] = '\0';
	if (n == 0)
		child_end(451, "4.3.0", "a delivery to %.*s ended without a word", SPAN_ARG(target));
	if (text[0] == '2')
		return;
	(void)!write_all(WORDS_FD, text, n);
	_exit(0);
}

/* %, which the names of mailboxes give a meaning, means itself here. */
static void to_file(struct items *it, struct span path)
{
	struct buffer b;
	if (span_is(path, "/dev/null"))
		return;
	buffer_init(&b, 8192);
	for (size_t i = 0; i < path.n; i++)
		buffer_puts(&b, path.at[i] == '%' ? "%%" : (char[]){path.at[i], '\0'});
	bool maildir = path.at[path.n - 1] == '/';
	run_apart(it, maildir ? "maildir" : "mbox", buffer_span(&b));
	buffer_free(&b);
}

static void add_address(struct items *it, struct span address)
{
	for (size_t i = 0; i < address.n; i++)
		if ((unsigned char)address.at[i] < 0x20 || address.at[i] == 0x7f)
			child_end(550, "5.1.3", "an alias or .forward holds an address with a control character");
	buffer_put_span(&it->addresses, address);
	buffer_putc(&it->addresses, '\n');
	if (!buffer_ok(&it->addresses) || it->addresses.n >= RUN_ADDRESSES - 1)
		child_end(550, "5.2.4", "the list has more addresses than one alias may have; split it into several");
}

/* Is that the user whose .forward it is? */
static bool is_own(const struct items *it, struct span address)
{
	struct span domain = address, local = span_until(&domain, '@');
	if (it->own.n == 0 || !span_case_eq(local, it->own))
		return false;
	return domain.n == 0 || span_case_eq(domain, it->task->domain);
}

static void include(struct items *it, struct span path)
{
	char name[4200];
	struct stat st;
	bool runs = it->runs;
	if (!it->includes || it->depth >= INCLUDE_DEPTH)
		child_end(550, "5.3.5", ":include: lists are nested too deep");
	(void)snprintf(name, sizeof name, "%.*s", SPAN_ARG(path));
	int fd = name[0] == '/' ? open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	if (fd < 0)
		child_end(451, "4.3.5", ":include:%s: %s", name, name[0] == '/' ? strerror(errno) : "the whole path is needed");
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > INCLUDE_MOST)
		child_end(451, "4.3.5", ":include:%s: not a file of at most 1 MB", name);
	char *bytes = malloc((size_t)st.st_size + 1);
	int error = bytes == NULL ? ENOMEM : pread_all(fd, bytes, (size_t)st.st_size, 0);
	(void)close(fd);
	if (error != 0)
		child_end(451, "4.3.5", ":include:%s: %s", name, strerror(error));
	it->depth++;
	it->runs = false; /* who may write a list may not run commands by it */
	items_do(it, (struct span){bytes, (size_t)st.st_size}, name);
	it->runs = runs;
	it->depth--;
	free(bytes);
}

static void do_one(struct items *it, const struct alias_item *item, const char *where)
{
	if ((item->kind == ALIAS_PIPE || item->kind == ALIAS_FILE) && !it->runs)
		child_end(550, "5.7.0", "%s: commands and files are not taken from there", where);
	switch (item->kind) {
	case ALIAS_ADDRESS:
		if (is_own(it, item->text))
			it->mailbox = true;
		else
			add_address(it, item->text);
		break;
	case ALIAS_SELF:
		if (it->own.n == 0 || is_own(it, item->text))
			it->mailbox = it->mailbox || it->own.n > 0;
		if (it->own.n == 0 || !is_own(it, item->text))
			add_address(it, item->text);
		break;
	case ALIAS_PIPE:
		run_apart(it, "pipe", item->text);
		break;
	case ALIAS_FILE:
		to_file(it, item->text);
		break;
	case ALIAS_INCLUDE:
		include(it, item->text);
		break;
	}
}

void items_do(struct items *it, struct span text, const char *where)
{
	struct arena arena = {0};
	struct alias_item item;
	int more;
	while ((more = alias_next(&text, &item, &arena)) > 0) {
		if (++it->items > ITEMS_MOST)
			child_end(550, "5.2.4", "%s: more than %d items", where, ITEMS_MOST);
		do_one(it, &item, where);
	}
	if (more < 0)
		child_end(550, "5.3.5", "%s: malformed (an open quote, or an empty command)", where);
	arena_free(&arena);
}

_Noreturn void child_go_on(void)
{
	_exit(RUN_GO_ON);
}

_Noreturn void items_end(struct items *it, struct child_task *t)
{
	if (it->addresses.n > 0 && pwrite(ADDRESSES_FD, it->addresses.at, it->addresses.n, 0) != (ssize_t)it->addresses.n)
		child_end(451, "4.3.0", "the addresses could not be handed on");
	if (it->mailbox && span_is(t->forward, "only"))
		child_go_on();
	if (it->mailbox)
		child_deliver(t);
	child_end(250, "2.1.5", "forwarded");
}
