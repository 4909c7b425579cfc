/* Who operates which server (MISSION A8): asked anew for each act, so that what is taken away is gone at once. */
#include "maps.h"

#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

enum { GROUPS_MOST = 1024 };

static bool is_in(struct span group, const gid_t *groups, int n)
{
	char name[64], block[65536];
	struct group g, *found = NULL;
	if (group.n >= sizeof name)
		return false;
	memcpy(name, group.at, group.n);
	name[group.n] = '\0';
	if (getgrnam_r(name, &g, block, sizeof block, &found) != 0 || found == NULL)
		return false;
	for (int i = 0; i < n; i++)
		if (groups[i] == g.gr_gid)
			return true;
	return false;
}

static bool operates(const struct server *s, struct span user, const gid_t *groups, int n)
{
	struct span rest = span_of(s->p.operators), word;
	bool found = false;
	while (!found && !s->gone && (word = span_word(&rest, " \t,")).n > 0)
		found = word.at[0] == '@' ? is_in((struct span){word.at + 1, word.n - 1}, groups, n) : word.n == user.n && memcmp(word.at, user.at, user.n) == 0;
	return found;
}

int operator_on_query(struct channel *ch, const struct msg_map_query *asked)
{
	struct maps *m = ch->program;
	struct buffer value;
	struct passwd pw, *found = NULL;
	char block[16384];
	gid_t *groups = calloc(GROUPS_MOST, sizeof *groups);
	int n = GROUPS_MOST;
	uint64_t uid;
	if (ch->peer != R_CONTROL || parse_u64(asked->address, UINT32_MAX, &uid) != 0 || groups == NULL) {
		free(groups);
		return EBADMSG;
	}
	buffer_init(&value, IPC_PACKET_MAX / 2);
	bool known = getpwuid_r((uid_t)uid, &pw, block, sizeof block, &found) == 0 && found != NULL;
	if (known && getgrouplist(pw.pw_name, pw.pw_gid, groups, &n) < 0)
		n = 0;
	if (known)
		buffer_puts(&value, pw.pw_name);
	for (size_t i = 0; known && i < m->proc.config.servers_n; i++)
		if (operates(&m->proc.config.servers[i], span_of(pw.pw_name), groups, n))
			buffer_printf(&value, " %s", m->proc.config.servers[i].name);
	send_map_answer(ch, (struct msg_map_answer){.serial = asked->serial, .status = known ? ANSWER_FOUND : ANSWER_NONE, .value = buffer_span(&value)}, -1);
	buffer_free(&value);
	free(groups);
	return 0;
}
