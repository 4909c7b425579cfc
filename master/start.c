#include "master.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

enum { SNAPSHOT_LIMIT = 64 * 1024 * 1024 };

/* Runs libexec/config on DIR; its output: "ok\n" and the snapshot, or "FILE\nLINE\nREASON\n". */
static void exec_config(const struct master *m, const char *program, char *const edit[3])
{
	char *words[SERVERS_MOST + 6];
	size_t n = 0;
	words[n++] = (char *)(uintptr_t)"posthorn: config";
	words[n++] = (char *)(uintptr_t)(edit == NULL ? "--snapshot" : "--edit");
	for (size_t i = 0; edit != NULL && i < 3; i++)
		words[n++] = edit[i];
	for (size_t i = 0; edit == NULL && i < m->config.servers_n; i++) /* they keep their numbers */
		words[n++] = (char *)(uintptr_t)m->config.servers[i].name;
	words[n] = NULL;
	(void)execv(program, words);
}

int master_run_config(struct master *m, char *const edit[3], struct buffer *out)
{
	int ends[2];
	char program[4200];
	(void)snprintf(program, sizeof program, "%s/config", m->libexec);
	if (pipe2(ends, O_CLOEXEC) != 0)
		return errno;
	pid_t pid = fork();
	if (pid == 0) {
		if (dup2(ends[1], 1) >= 0 && dup2(m->dir_fd, 3) >= 0)
			exec_config(m, program, edit);
		_exit(127);
	}
	(void)close(ends[1]);
	int error = pid < 0 ? errno : 0, status = 0;
	while (error == 0) {
		char block[65536];
		ssize_t n = read(ends[0], block, sizeof block);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		buffer_put(out, block, (size_t)n);
	}
	(void)close(ends[0]);
	if (pid > 0 && waitpid(pid, &status, 0) < 0 && errno != ECHILD)
		error = errno;
	return error == 0 && !buffer_ok(out) ? EFBIG : error;
}

int master_config_said(struct span *rest, struct complaint *why)
{
	struct span first = span_until(rest, '\n');
	if (span_is(first, "ok"))
		return 0;
	struct span line = span_until(rest, '\n'), reason = span_until(rest, '\n');
	uint64_t number = 0;
	(void)!parse_u64(line, UINT32_MAX, &number);
	complain(why, NULL, (unsigned)number, "%.*s", SPAN_ARG(reason.n > 0 ? reason : SPAN_LIT("config ended without an answer")));
	(void)snprintf(why->file, sizeof why->file, "%.*s", SPAN_ARG(first));
	return EINVAL;
}

int master_read_config(struct master *m, struct config *out, int *fd, struct complaint *why)
{
	struct buffer text;
	buffer_init(&text, SNAPSHOT_LIMIT);
	int error = master_run_config(m, NULL, &text);
	struct span rest = buffer_span(&text);
	if (error == 0)
		error = master_config_said(&rest, why);
	if (error == 0)
		error = config_parse_snapshot(rest, out, why);
	if (error == 0)
		error = sealed_file("posthorn-config", rest, fd);
	if (error != 0 && why->reason[0] == '\0')
		complain(why, "posthorn.conf", 0, "%s", strerror(error));
	buffer_free(&text);
	return error;
}

static int take_lock(struct master *m, struct complaint *why)
{
	char path[1200], text[32];
	(void)snprintf(path, sizeof path, "%s/master.pid", m->config.service.run_directory);
	int error = mkdir_chain(m->config.service.run_directory, 0755);
	if (error != 0) {
		complain(why, "run_directory", 0, "cannot make %s: %s", m->config.service.run_directory, strerror(error));
		return EX_CANTCREAT;
	}
	m->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (m->lock_fd < 0) {
		complain(why, path, 0, "cannot open: %s", strerror(errno));
		return EX_CANTCREAT;
	}
	if (flock(m->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		complain(why, path, 0, "the service is running already on this configuration; posthorn status shows it");
		return EX_TEMPFAIL;
	}
	int n = snprintf(text, sizeof text, "%d\n", (int)getpid());
	if (ftruncate(m->lock_fd, 0) != 0 || pwrite(m->lock_fd, text, (size_t)n, 0) != n) {
		complain(why, path, 0, "cannot write: %s", strerror(errno));
		return EX_IOERR;
	}
	return 0;
}

/* state/epoch: "NODE EPOCH": the node's number is drawn once, the epoch counts starts. */
static int next_epoch(struct master *m, struct complaint *why)
{
	struct buffer text;
	uint64_t node = 0, epoch = 0;
	buffer_init(&text, 100);
	if (mkdirat(m->dir_fd, "state", 0755) != 0 && errno != EEXIST) {
		complain(why, "state", 0, "cannot make the directory: %s", strerror(errno));
		buffer_free(&text);
		return EX_CANTCREAT;
	}
	int error = read_file_at(m->dir_fd, "state/epoch", 100, &text);
	struct span rest = buffer_span(&text);
	if (error != 0 || parse_u64(span_word(&rest, " \n"), UINT32_MAX, &node) != 0 || parse_u64(span_word(&rest, " \n"), UINT32_MAX, &epoch) != 0) {
		uint32_t drawn = 0;
		(void)!fill_random(&drawn, sizeof drawn);
		node = drawn % 3844;
		epoch = (uint64_t)(clock_wall_us() / 1000000) & 0xffff;
	}
	buffer_clear(&text);
	m->node = (uint32_t)node;
	m->epoch = (uint32_t)epoch + 1;
	buffer_printf(&text, "%u %u\n", m->node, m->epoch);
	int state_fd = openat(m->dir_fd, "state", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	error = state_fd < 0 ? errno : replace_file_at(state_fd, "epoch", buffer_span(&text), 0644);
	if (state_fd >= 0)
		(void)close(state_fd);
	buffer_free(&text);
	if (error != 0)
		complain(why, "state/epoch", 0, "cannot write: %s", strerror(error));
	return error == 0 ? 0 : EX_CANTCREAT;
}

static int make_auth_key(struct master *m, struct complaint *why)
{
	char key[LOGIN_KEY];
	int error = fill_random(key, sizeof key);
	if (error == 0)
		error = sealed_file("posthorn-auth", (struct span){key, sizeof key}, &m->auth_key_fd);
	explicit_bzero(key, sizeof key);
	if (error != 0)
		complain(why, "posthorn", 0, "cannot make a key: %s", strerror(error));
	return error == 0 ? 0 : EX_OSERR;
}

int master_prepare(struct master *m, struct complaint *why)
{
	m->dir_fd = open(m->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (m->dir_fd < 0) {
		complain(why, m->dir, 0, "cannot open: %s; hornconf init makes a configuration", strerror(errno));
		return EX_NOINPUT;
	}
	int high = fcntl(m->dir_fd, F_DUPFD_CLOEXEC, 20); /* out of the way of what children get as 1 and 3 */
	if (high < 0)
		return EX_OSERR;
	(void)close(m->dir_fd);
	m->dir_fd = high;
	if (master_read_config(m, &m->config, &m->config_fd, why) != 0)
		return EX_CONFIG;
	m->generation = 1;
	m->runs = calloc(SERVERS_MOST, sizeof *m->runs);
	int status = m->runs == NULL ? EX_OSERR : take_lock(m, why);
	if (status == 0)
		status = next_epoch(m, why);
	if (status == 0)
		status = master_read_states(m, 0, why);
	if (status == 0)
		status = make_auth_key(m, why);
	if (status == 0 && master_make_leases(m) != 0)
		status = EX_OSERR;
	if (status == 0 && master_check_secrets(m, &m->config, why) != 0)
		status = EX_NOINPUT;
	if (status == 0)
		status = master_make_dirs(m, why);
	return status;
}
