#include "cmd/common/holder.h"
#include "params/params.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STATE_LISTEN = 0x0a };

/* Of whom listens on a port, at the address or at any: the socket's inode, 0: nobody.  table: "tcp" or "tcp6". */
static unsigned long inode_of(const char *table, uint16_t port)
{
	char path[40], line[400];
	unsigned long found = 0;
	(void)snprintf(path, sizeof path, "/proc/net/%s", table);
	FILE *f = fopen(path, "re");
	while (f != NULL && found == 0 && fgets(line, sizeof line, f) != NULL) {
		/* sl local:port remote:port state ... inode is the tenth word */
		struct span rest = span_of(line), local;
		(void)span_word(&rest, " ");
		local = span_word(&rest, " ");
		(void)span_word(&rest, " ");
		struct span state = span_word(&rest, " ");
		if (local.n < 5 || strtoul(state.at, NULL, 16) != STATE_LISTEN || strtoul(local.at + local.n - 4, NULL, 16) != port)
			continue;
		for (int i = 0; i < 5; i++)
			(void)span_word(&rest, " ");
		found = strtoul(rest.n > 0 ? rest.at : "0", NULL, 10);
	}
	if (f != NULL)
		(void)fclose(f);
	return found;
}

static bool holds(const char *pid, unsigned long inode)
{
	char path[300], wanted[40], target[40];
	bool found = false;
	(void)snprintf(path, sizeof path, "/proc/%s/fd", pid);
	(void)snprintf(wanted, sizeof wanted, "socket:[%lu]", inode);
	DIR *d = opendir(path);
	for (const struct dirent *e; d != NULL && !found && (e = readdir(d)) != NULL;) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
		target[n > 0 ? n : 0] = '\0';
		found = strcmp(target, wanted) == 0;
	}
	if (d != NULL)
		(void)closedir(d);
	return found;
}

static void say(const char *program, struct span where, uint16_t port)
{
	unsigned long inode = inode_of("tcp", port);
	DIR *d = opendir("/proc");
	if (inode == 0)
		inode = inode_of("tcp6", port);
	for (const struct dirent *e; inode != 0 && d != NULL && (e = readdir(d)) != NULL;) {
		char path[300], name[40] = "?";
		if (e->d_name[0] < '0' || e->d_name[0] > '9' || !holds(e->d_name, inode))
			continue;
		(void)snprintf(path, sizeof path, "/proc/%s/comm", e->d_name);
		FILE *f = fopen(path, "re");
		if (f != NULL && fgets(name, sizeof name, f) != NULL)
			name[strcspn(name, "\n")] = '\0';
		if (f != NULL)
			(void)fclose(f);
		(void)fprintf(stderr, "%s: %.*s is held by process %s, %s\n", program, SPAN_ARG(where), e->d_name, name);
		break;
	}
	if (d != NULL)
		(void)closedir(d);
}

void holder_say(const char *program, struct span text)
{
	static const char words[] = "cannot listen on ";
	const char *at;
	while (text.n > 0 && (at = memmem(text.at, text.n, words, sizeof words - 1)) != NULL) {
		text.n -= (size_t)(at + sizeof words - 1 - text.at);
		text.at = at + sizeof words - 1;
		struct span rest = {text.at, 0};
		while (rest.n < text.n && (text.at[rest.n] != ':' || rest.n + 1 == text.n || text.at[rest.n + 1] != ' '))
			rest.n++;
		struct span where = rest;
		struct endpoint e;
		bool bad;
		if (listen_next(&rest, &e, &bad))
			say(program, where, e.port);
	}
}
