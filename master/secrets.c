/* Keys and passwords: their files are opened here, and read by keyd and authd alone. */
#include "master.h"
#include "route/route.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One walk over all files. */
struct secret_walk {
	struct master *m;
	const struct config *config;
	struct child *to;      /* NULL: only whether they can be opened */
	struct complaint *why; /* NULL: those that can't are told to the log */
};

/* parameter: that names the file. */
static int open_secret(const struct secret_walk *w, const struct server *s, const char *path, const char *parameter, int *fd, struct complaint *why)
{
	bool is_secret = strcmp(parameter, "tls_certificate_file") != 0 && strcmp(parameter, "tls_client_ca_file") != 0;
	struct stat st;
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0) {
		int error = errno;
		complain(why, path, 0, "cannot open: %s; server %s needs it: see %s", strerror(error), s->name, parameter);
		return error;
	}
	if (is_secret && w->to != NULL && fstat(*fd, &st) == 0 && (st.st_mode & 07) != 0)
		LOG(&w->m->log, secret_open, NO_ID, F("server", span_of(s->name)), F("file", span_of(path)));
	return 0;
}

/* 0: goes on; else errno, *w->why is filled. */
static int cannot(const struct secret_walk *w, const struct server *s, const char *path, const struct complaint *why, int error)
{
	if (w->why == NULL)
		LOG(&w->m->log, secret_unreadable, NO_ID, F("server", span_of(s->name)), F("file", span_of(path)), F("reason", span_of(why->reason)));
	else
		*w->why = *why;
	return w->why == NULL ? 0 : error;
}

/* Of a certificate and its key. */
static int take_pair(const struct secret_walk *w, uint32_t i, const struct pair_files *f)
{
	const struct server *s = &w->config->servers[i];
	char path[PAIR_PATH];
	int fds[2];
	size_t mark;
	struct complaint why = {0};
	server_pair_path(s, f, w->m->dir, "key", path);
	int error = open_secret(w, s, path, f->name.n > 0 ? "tls_sni" : "tls_key_file", &fds[1], &why);
	if (error != 0)
		return cannot(w, s, path, &why, error);
	server_pair_path(s, f, w->m->dir, "crt", path);
	error = open_secret(w, s, path, "tls_certificate_file", &fds[0], &why);
	if (error != 0 || w->to == NULL) {
		(void)close(fds[1]);
		if (error == 0)
			(void)close(fds[0]);
		return error == 0 ? 0 : cannot(w, s, path, &why, error);
	}
	struct channel *c = w->to->channel;
	struct msg_key_pair pair = {.server = i, .name = f->name, .file = span_of(path)};
	channel_begin(c, MSG_key_pair, &mark);
	msg_key_pair_put(&c->out, &pair);
	channel_end_fds(c, mark, fds, 2);
	channel_flush(c);
	return 0;
}

/* Of a login at other servers; domain "": the server's own. */
static int take_password(const struct secret_walk *w, uint32_t i, const char *domain, const struct outbound_params *p)
{
	const struct server *s = &w->config->servers[i];
	int fd;
	struct complaint why = {0};
	if (p->outbound_auth == AUTH_ANONYMOUS)
		return 0;
	int error = open_secret(w, s, p->outbound_password_file, "outbound_password_file", &fd, &why);
	if (error != 0)
		return cannot(w, s, p->outbound_password_file, &why, error);
	if (w->to == NULL) {
		(void)close(fd);
		return 0;
	}
	send_password_file(w->to->channel, (struct msg_password_file){.server = i, .domain = span_of(domain), .file = span_of(p->outbound_password_file)}, fd);
	channel_flush(w->to->channel);
	return 0;
}

static int each_pair(const struct secret_walk *walk)
{
	int error = 0;
	for (uint32_t i = 0; i < walk->config->servers_n; i++) {
		struct pair_files f;
		if (walk->config->servers[i].p.tls == TLS_NONE)
			continue;
		for (struct pair_walk w = {0}; error == 0 && server_pair_next(&walk->config->servers[i], &w, &f);)
			error = take_pair(walk, i, &f);
	}
	return error;
}

static int each_password(const struct secret_walk *w)
{
	int error = 0;
	for (uint32_t i = 0; i < w->config->servers_n && error == 0; i++) {
		const struct server *s = &w->config->servers[i];
		error = take_password(w, i, "", &s->p.out);
		for (size_t k = 0; k < s->domains_n && error == 0; k++)
			if (domain_sets(&s->domains[k], "outbound_auth"))
				error = take_password(w, i, s->domains[k].name, &s->domains[k].p.out);
	}
	return error;
}

/* Of the authorities whose clients may show a certificate. */
static int each_authority(const struct secret_walk *w)
{
	int error = 0;
	for (uint32_t i = 0; i < w->config->servers_n && error == 0; i++) {
		const struct server *s = &w->config->servers[i];
		const char *path = s->p.tls_client_ca_file;
		struct complaint why = {0};
		int fd;
		if (path[0] == '\0')
			continue;
		error = open_secret(w, s, path, "tls_client_ca_file", &fd, &why);
		if (error != 0)
			error = cannot(w, s, path, &why, error);
		else if (w->to == NULL)
			(void)close(fd);
		else
			send_client_authorities(w->to->channel, (struct msg_client_authorities){.server = i, .file = span_of(path)}, fd);
	}
	if (w->to != NULL)
		channel_flush(w->to->channel);
	return error;
}

int master_check_secrets(struct master *m, const struct config *config, struct complaint *why)
{
	const struct secret_walk w = {.m = m, .config = config, .why = why};
	int error = each_pair(&w);
	if (error == 0)
		error = each_authority(&w);
	return error != 0 ? error : each_password(&w);
}

void master_send_secrets(struct master *m, struct child *c)
{
	const struct secret_walk w = {.m = m, .config = &m->config, .to = c};
	if (c->role == R_KEYD) {
		(void)each_pair(&w);
		send_keys_end(c->channel, (struct msg_keys_end){.generation = m->generation}, -1);
	} else if (c->role == R_SMTPD || c->role == R_GSSD) {
		(void)each_authority(&w);
	} else {
		(void)each_password(&w);
		send_passwords_end(c->channel, (struct msg_passwords_end){.generation = m->generation}, -1);
	}
}
