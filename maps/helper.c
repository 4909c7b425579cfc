/* A map that asks a server may take its time: a process of its own does, one question after the other. */
#include "maps.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A reply: status, line, file and reason or value. */
static void reply(int fd, enum map_status status, const struct buffer *value, const struct complaint *why)
{
	struct buffer b;
	buffer_init(&b, MAP_VALUE_MOST + 1000);
	buffer_put_u32(&b, status);
	buffer_put_lspan(&b, status == MAP_FAILED ? span_of(why->file) : (struct span){"", 0});
	buffer_put_lspan(&b, status == MAP_FAILED ? span_of(why->reason) : buffer_span(value));
	if (!buffer_ok(&b) || send(fd, b.at, b.n, MSG_NOSIGNAL) < 0)
		_exit(71);
	buffer_free(&b);
}

static _Noreturn void serve(const char *spec, int fd)
{
	char key[MAP_KEY_MOST];
	struct map *map = NULL;
	ssize_t n;
	while ((n = recv(fd, key, sizeof key, 0)) > 0) {
		struct buffer value;
		struct complaint why = {.file = ""};
		buffer_init(&value, MAP_VALUE_MOST);
		(void)alarm(ASK_LIMIT_S); /* a server that is silent ends this process */
		enum map_status s = map == NULL && map_open(span_of(spec), &map, &why) != 0 ? MAP_FAILED : map_query(map, (struct span){key, (size_t)n}, &value, &why);
		(void)alarm(0);
		reply(fd, s, &value, &why);
		buffer_free(&value);
	}
	_exit(0);
}

int helper_start(struct maps *m, struct source *s)
{
	int ends[2];
	uid_t uid;
	gid_t gid;
	bool root = (m->proc.flags & PROC_ROOT) != 0;
	if (root && proc_default_uid(m->proc.config.service.mail_owner, "map", &uid, &gid) != 0)
		return ENOENT;
	int error = channel_pair(ends);
	if (error != 0)
		return error;
	pid_t pid = fork();
	if (pid == 0) {
		map_prepare(span_of(s->spec));
		if (root && (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0))
			_exit(71);
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		(void)prctl(PR_SET_DUMPABLE, 0);
		(void)signal(SIGALRM, SIG_DFL);
		int flags = fcntl(ends[1], F_GETFL);
		if (flags < 0 || fcntl(ends[1], F_SETFL, flags & ~O_NONBLOCK) != 0)
			_exit(71);
		for (int fd = 3; fd < 64; fd++)
			if (fd != ends[1])
				(void)close(fd);
		serve(s->spec, ends[1]);
	}
	(void)close(ends[1]);
	s->helper_fd = ends[0];
	return pid < 0 ? errno : 0;
}

static void send_key(struct source *s)
{
	const struct span key = s->first->steps[s->first->at].key;
	(void)!send(s->helper_fd, key.at, key.n, MSG_NOSIGNAL); /* one that has ended is seen by its end */
}

void helper_ask(struct maps *m, struct source *s, struct query *q)
{
	(void)m;
	q->next = NULL;
	if (s->first == NULL)
		s->first = q;
	else
		s->last->next = q;
	s->last = q;
	if (s->first == q)
		send_key(s);
}

static void all_failed(struct maps *m, struct source *s)
{
	struct complaint why = {.file = "", .reason = "the process that asks it has ended"};
	while (s->first != NULL) {
		struct query *q = s->first;
		s->first = q->next;
		query_take(m, q, MAP_FAILED, &why);
		query_run(m, q);
	}
}

static void on_reply(int fd, short what, void *context)
{
	struct source *s = context;
	struct maps *m = s->maps;
	char *bytes = malloc(MAP_VALUE_MOST + 1000);
	struct complaint why = {.file = ""};
	uint32_t status;
	struct span file, text;
	(void)what;
	ssize_t n = bytes == NULL ? -1 : recv(fd, bytes, MAP_VALUE_MOST + 1000, MSG_DONTWAIT);
	struct span rest = {bytes, n > 0 ? (size_t)n : 0};
	struct query *q = s->first;
	if (n <= 0 || q == NULL || !take_u32(&rest, &status) || !take_lspan(&rest, &file) || !take_lspan(&rest, &text)) {
		LOG(&m->proc.log, backend_ended, NO_ID, F("map", span_of(s->spec)));
		(void)event_del(s->readable);
		all_failed(m, s);
		proc_done(&m->proc); /* a new process starts new ones */
	} else {
		s->first = q->next;
		if (status == MAP_FAILED)
			complain(&why, "", 0, "%.*s", SPAN_ARG(text));
		else if (!q->asking_owner)
			buffer_put_span(&q->value, status == MAP_FOUND ? text : (struct span){"", 0});
		if (s->first != NULL)
			send_key(s);
		query_take(m, q, status > MAP_FAILED ? MAP_FAILED : (enum map_status)status, &why);
		query_run(m, q);
	}
	free(bytes);
}

int helper_watch(struct maps *m, struct source *s)
{
	s->readable = event_new(m->proc.base, s->helper_fd, EV_READ | EV_PERSIST, on_reply, s);
	return s->readable == NULL || event_add(s->readable, NULL) != 0 ? ENOMEM : 0;
}
