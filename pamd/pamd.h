/* pamd: asks PAM whether a login is good, for authd, which may not be root. */
#ifndef PAMD_PAMD_H
#define PAMD_PAMD_H

#include "ipc/ipc.h"
#include "log/log.h"
#include "passwd/passwd.h"
#include "proc/proc.h"

#define EVENTS_FILE "pamd/events.def"
#include "log/events.h"

enum { CHECKS_MOST = 20 /* at a time; others wait */, WAITING_MOST = 4000, CHECK_S = 30 };

struct check {
	uint64_t serial;
	uint32_t server;
	pid_t pid;            /* 0: it waits */
	char user[PASSWD_NAME_MOST + 1], password[PASSWD_WORD_MOST + 1], client[64];
	struct check *next;
};

struct pamd {
	struct process proc;
	struct channel *authd;
	struct check *checks; /* in the order in which they came */
	size_t running, n;
	struct event *child_ended;
};

/* ask.c: in a process of its own; its exit status is an enum pam_status.  Does not return. */
_Noreturn void ask_pam(const char *service, const struct check *c);

#endif
