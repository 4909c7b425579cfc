/* maps: looks addresses up in the tables that the configuration names, and in the machine's user table.
 * User: posthorn-map.
 * May: read files in /etc and beside the maps; ask the user table (NSS), by sockets where that is its way; a map behind a
 * database is asked by a process of its own, as the same user.
 * Never: write a file, see the queue or a message. */
#include "maps.h"

#include <fcntl.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct maps maps;
static const struct confinement rights = {.user_suffix = "map", .calls = CALLS_FILES | CALLS_DB | CALLS_SOCKET | CALLS_CONNECT | CALLS_UNIX, .files = 1024};

static void peer_gone(struct channel *ch, int reason)
{
	(void)reason;
	query_forget(ch->program, ch);
}

static const struct channel_owner owner = {.handlers = {[MSG_map_query] = query_on_query}, .gone = peer_gone};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct channel *ch = channel_make(p->base, fd, R_MAPS, role, &owner, p->program);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
}

struct source *source_find(struct maps *m, struct span spec)
{
	for (size_t i = 0; i < m->sources_n; i++)
		if (span_is(spec, m->sources[i].spec))
			return &m->sources[i];
	return NULL;
}

static int add_source(struct maps *m, struct span spec)
{
	if (source_find(m, spec) != NULL)
		return 0;
	struct source *more = realloc(m->sources, (m->sources_n + 1) * sizeof *more);
	if (more == NULL)
		return ENOMEM;
	m->sources = more;
	struct span name = spec, type = span_until(&name, ':');
	struct source *s = &more[m->sources_n++];
	*s = (struct source){.spec = span_dup(spec), .helper_fd = -1, .maps = m, .whole_only = span_is(type, "regexp") || span_is(type, "pcre")};
	return s->spec == NULL ? ENOMEM : 0;
}

static int add_sources(struct maps *m, const char *texts)
{
	struct span rest = span_of(texts), spec;
	bool bad;
	int error = 0;
	while (error == 0 && map_spec_next(&rest, &spec, &bad))
		error = add_source(m, spec);
	return error;
}

static int add_place(void *context, const struct maps_place *place)
{
	return add_sources(context, place->texts);
}

/* /etc for the user table, and where each map lies.  A directory that is not there yet can be read after a reload. */
static size_t open_dirs(const struct maps *m, struct path_rule *rules, size_t most)
{
	size_t n = 0;
	char path[4200];
	int etc = open("/etc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (etc >= 0)
		rules[n++] = (struct path_rule){etc, PATH_READ};
	for (size_t i = 0; i < m->sources_n && n < most; i++) {
		map_spec_path(span_of(m->sources[i].spec), path, sizeof path);
		int fd = path[0] == '\0' ? -1 : open(dirname(path), O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0)
			rules[n++] = (struct path_rule){fd, PATH_READ};
	}
	return n;
}

static int start_helpers(struct maps *m)
{
	int error = 0;
	for (size_t i = 0; i < m->sources_n && error == 0; i++)
		if (map_is_remote(span_of(m->sources[i].spec)))
			error = helper_start(m, &m->sources[i]);
	for (size_t i = 0; i < m->sources_n && error == 0; i++)
		if (m->sources[i].helper_fd >= 0)
			error = helper_watch(m, &m->sources[i]);
	return error;
}

int main(void)
{
	struct complaint why;
	struct maps *m = &maps;
	if (proc_begin(&m->proc, R_MAPS, &why) != 0)
		return proc_fail(&m->proc, EX_CONFIG, &why);
	m->proc.program = m;
	m->proc.linked = linked;
	int error = config_each_maps(&m->proc.config, add_place, m);
	if (error == 0)
		error = start_helpers(m);
	struct path_rule *rules = calloc(m->sources_n + 1, sizeof *rules);
	if (error != 0 || rules == NULL) {
		free(rules);
		complain(&why, "maps", 0, "cannot start: %s", strerror(error != 0 ? error : ENOMEM));
		return proc_fail(&m->proc, EX_OSERR, &why);
	}
	(void)getpwnam("root"); /* what the user table needs is loaded before files can't be executed any more */
	size_t n = open_dirs(m, rules, m->sources_n + 1);
	error = proc_confine(&m->proc, &rights, rules, n, NULL, &why);
	for (size_t i = 0; i < n; i++)
		(void)close(rules[i].dir_fd);
	free(rules);
	if (error != 0)
		return proc_fail(&m->proc, EX_OSERR, &why);
	return proc_run(&m->proc);
}
