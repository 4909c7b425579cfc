#include "ipc/ipc.h"

static const struct { const char *name; unsigned version, from, to; size_t fds; } matrix[] = {
#define U32(field)
#define U64(field)
#define SPAN(field)
#define MSG(name, v, from, to, fds, fields) [MSG_##name] = {#name, v, from, to, fds},
#include "ipc/messages.def"
};

#define U32(field) if (!take_u32(&packet, &m.field)) return EBADMSG;
#define U64(field) if (!take_u64(&packet, &m.field)) return EBADMSG;
#define SPAN(field) if (!take_lspan(&packet, &m.field)) return EBADMSG;
#define MSG(name, v, from, to, fds, fields) \
	int msg_##name##_decode(struct span packet, struct msg_##name *out) \
	{ struct msg_##name m; fields if (packet.n != 0) return EBADMSG; *out = m; return 0; }
#include "ipc/messages.def"

#define U32(field) buffer_put_u32(b, m->field);
#define U64(field) buffer_put_u64(b, m->field);
#define SPAN(field) buffer_put_lspan(b, m->field);
#define MSG(name, v, from, to, fds, fields) \
	void msg_##name##_put(struct buffer *b, const struct msg_##name *m) { fields }
#include "ipc/messages.def"

int msg_admit(uint32_t type, uint32_t version, size_t fds, enum role from, enum role to)
{
	if (type >= MSG_COUNT || version != matrix[type].version || fds > matrix[type].fds)
		return EBADMSG;
	return (matrix[type].from & (unsigned)from) != 0 && (matrix[type].to & (unsigned)to) != 0 ? 0 : EPERM;
}

uint32_t msg_version(enum msg_type t)
{
	return matrix[t].version;
}

const char *msg_name(enum msg_type t)
{
	return t < MSG_COUNT ? matrix[t].name : "unknown";
}

const char *role_name(enum role r)
{
	static const char *const names[] = {"master", "front", "smtpd", "cleanup", "qmgr", "mover", "smtp", "drop",
		"bounce", "pickup", "control", "config", "logd", "resolver", "local", "deliver", "maps", "authd", "keyd", "pamd", "sts", "gssd", "gssc", "lease"};
	for (size_t i = 0; i < COUNT_OF(names); i++)
		if ((unsigned)r == 1u << i)
			return names[i];
	return "unknown";
}
