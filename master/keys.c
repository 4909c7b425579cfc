/* Certificates and keys: opened here, read by keyd alone. */
#include "master.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_SIZE = 1200 };

static void path_of(const struct master *m, const struct server *s, struct span file, const char *tail, char path[PATH_SIZE])
{
	if (file.n > 0)
		(void)snprintf(path, PATH_SIZE, "%.*s", SPAN_ARG(file));
	else /* the pair that was made at the first start */
		(void)snprintf(path, PATH_SIZE, "%s/state/%s.%s", m->dir, s->name, tail);
}

static int open_pair(const struct master *m, const struct server *s, const struct pair_files *f, char path[PATH_SIZE], int fds[2], struct complaint *why)
{
	fds[1] = -1;
	path_of(m, s, f->key, "key", path);
	fds[1] = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fds[1] >= 0)
		path_of(m, s, f->certificate, "crt", path);
	fds[0] = fds[1] < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fds[0] >= 0)
		return 0;
	int error = errno;
	complain(why, path, 0, "cannot open: %s", strerror(error));
	if (fds[1] >= 0)
		(void)close(fds[1]);
	return error;
}

static void send_pair(struct channel *c, uint32_t server, const struct pair_files *f, const char *path, const int fds[2])
{
	size_t mark;
	struct msg_key_pair pair = {.server = server, .name = f->name, .file = span_of(path)};
	channel_begin(c, MSG_key_pair, &mark);
	msg_key_pair_put(&c->out, &pair);
	channel_end_fds(c, mark, fds, 2);
	channel_flush(c);
}

struct key_walk {
	struct master *m;
	struct channel *to;    /* NULL: only whether they can be opened */
	struct complaint *why; /* NULL: those that can't are told to the log */
};

static int take_pair(const struct key_walk *w, uint32_t i, const struct server *s, const struct pair_files *f)
{
	char path[PATH_SIZE];
	int fds[2];
	struct complaint why = {0};
	int error = open_pair(w->m, s, f, path, fds, w->why != NULL ? w->why : &why);
	if (error != 0 && w->why != NULL)
		return error;
	if (error != 0) {
		LOG(&w->m->log, key_unreadable, NO_ID, F("server", span_of(s->name)), F("file", span_of(path)), F("reason", span_of(why.reason)));
		return 0;
	}
	if (w->to != NULL) {
		send_pair(w->to, i, f, path, fds);
		return 0;
	}
	(void)close(fds[0]);
	(void)close(fds[1]);
	return 0;
}

static int each_pair(const struct key_walk *walk, const struct config *config)
{
	int error = 0;
	for (uint32_t i = 0; i < config->servers_n; i++) {
		struct pair_files f;
		if (config->servers[i].p.tls == TLS_NONE)
			continue;
		for (struct pair_walk w = {0}; error == 0 && server_pair_next(&config->servers[i], &w, &f);)
			error = take_pair(walk, i, &config->servers[i], &f);
	}
	return error;
}

int master_check_keys(struct master *m, const struct config *config, struct complaint *why)
{
	struct key_walk w = {.m = m, .why = why};
	return each_pair(&w, config);
}

void master_send_keys(struct master *m, struct child *keyd)
{
	struct key_walk w = {.m = m, .to = keyd->channel};
	(void)each_pair(&w, &m->config);
	send_keys_end(keyd->channel, (struct msg_keys_end){.generation = m->generation}, -1);
}
