/* The files of passwords, read anew whenever they change. */
#include "authd.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { METHOD_BASIC = 2, METHOD_INTEGRATED = 4, EXTRA_EXTERNAL = 1 }; /* of auth_methods, auth_mechanisms_extra */

uint32_t users_offered(const struct authd *a, size_t server)
{
	uint32_t methods = (uint32_t)a->proc.config.servers[server].p.auth_methods;
	uint32_t may = ((methods & METHOD_BASIC) != 0 ? MECHANISMS_BASIC : 0u) | ((methods & METHOD_INTEGRATED) != 0 ? MECHANISMS_INTEGRATED : 0u);
	uint32_t by_certificate = (a->proc.config.servers[server].p.auth_mechanisms_extra & EXTRA_EXTERNAL) != 0 ? a->servers[server].integrated & MECHANISM_EXTERNAL : 0;
	uint32_t basic = a->servers[server].file.n > 0 ? MECHANISMS_BASIC : 0;
	if (a->servers[server].dovecot != NULL)
		return (may & dovecot_offers(a, server)) | by_certificate;
	if (table_is(a, server))
		basic = table_offers(a, server);
	else if (pam_is(a, server))
		basic = pam_offers(a);
	return (may & (basic | a->servers[server].integrated)) | by_certificate | cram_offers(a, server);
}

void users_offer(struct authd *a, struct channel *worker)
{
	for (uint32_t i = 0; i < a->proc.config.servers_n; i++)
		send_auth_offer(worker, (struct msg_auth_offer){.server = i, .mechanisms = users_offered(a, i)}, -1);
}

void users_offer_all(struct authd *a, uint32_t server)
{
	for (struct channel *w = a->workers; w != NULL; w = w->next)
		send_auth_offer(w, (struct msg_auth_offer){.server = server, .mechanisms = users_offered(a, server)}, -1);
}

static void take_file(struct authd *a, size_t i, const struct buffer *text, const struct stat *st)
{
	struct auth_server *s = &a->servers[i];
	struct passwd_file fresh = {.n = 0};
	unsigned line;
	int error = passwd_parse(buffer_span(text), &fresh, &line);
	s->seen = *st;
	if (error != 0) { /* what was read before holds on */
		if (error == EINVAL)
			(void)snprintf(s->fault, sizeof s->fault, "line %u is no good, or its name is there twice", line);
		else
			(void)snprintf(s->fault, sizeof s->fault, "%s", strerror(error));
		return;
	}
	passwd_free(&s->file);
	s->file = fresh;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void read_one(struct authd *a, size_t i)
{
	struct auth_server *s = &a->servers[i];
	struct buffer text;
	struct stat st;
	char name[100];
	(void)snprintf(name, sizeof name, "%s.passwd", a->proc.config.servers[i].name);
	buffer_init(&text, PASSWD_FILE_MOST);
	bool there = fstatat(a->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	if (!there && errno == ENOENT) {
		passwd_free(&s->file);
	} else if (!there || !s->is_there || !is_same(&st, &s->seen)) {
		int error = read_plain_file_at(a->dir_fd, name, PASSWD_FILE_MOST, &text, &st);
		s->fault[0] = '\0';
		s->is_new = true;
		if (error == 0)
			take_file(a, i, &text, &st);
		else
			(void)snprintf(s->fault, sizeof s->fault, "%s", strerror(error));
		there = error == 0;
	}
	s->is_there = there;
	buffer_wipe(&text);
}

void users_tell(struct authd *a)
{
	char count[40];
	for (size_t i = 0; i < a->proc.config.servers_n; i++) {
		struct auth_server *s = &a->servers[i];
		struct span server = span_of(a->proc.config.servers[i].name);
		(void)snprintf(count, sizeof count, "%zu", s->file.n);
		if (s->is_new && s->fault[0] != '\0')
			LOG(&a->proc.log, passwords_bad, NO_ID, F("server", server), F("reason", span_of(s->fault)));
		else if (s->is_new)
			LOG(&a->proc.log, passwords_read, NO_ID, F("server", server), F("users", span_of(count)));
		s->is_new = false;
	}
}

void users_read(struct authd *a)
{
	for (size_t i = 0; i < a->proc.config.servers_n; i++) {
		uint32_t before = users_offered(a, i);
		read_one(a, i);
		if (users_offered(a, i) != before)
			users_offer_all(a, (uint32_t)i);
	}
}

void users_changed(int fd, short what, void *context)
{
	_Alignas(struct inotify_event) char bytes[8192];
	(void)what;
	while (read(fd, bytes, sizeof bytes) > 0) /* whatever it was: only what has changed is read */
		;
	users_read(context);
	users_tell(context);
}

int users_watch(struct authd *a)
{
	char path[40];
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", a->dir_fd);
	a->notify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (a->notify_fd < 0 || inotify_add_watch(a->notify_fd, path, IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_ATTRIB) < 0)
		return errno;
	a->changed = event_new(a->proc.base, a->notify_fd, EV_READ | EV_PERSIST, users_changed, a);
	return a->changed != NULL && event_add(a->changed, NULL) == 0 ? 0 : ENOMEM;
}

int users_read_rates(struct authd *a)
{
	int error = 0;
	for (size_t i = 0; i < a->proc.config.servers_n && error == 0; i++) {
		const struct server_params *p = &a->proc.config.servers[i].p;
		error = rate_parse(span_of(p->auth_client_failure_rate), &a->servers[i].client_rate);
		if (error == 0)
			error = rate_parse(span_of(p->auth_user_failure_rate), &a->servers[i].user_rate);
	}
	return error;
}
