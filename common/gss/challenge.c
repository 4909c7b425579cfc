/* [MS-NLMP] 2.2.1.2, 2.2.2.1: the message by which a peer could end a process.  gss-ntlmssp 1.2.0 reads beyond a list that is cut, and writes
 * to nowhere where the target has no name. */
#include "gss/gss.h"

#include <string.h>

enum {
	TYPE_AT = 8, NAME_AT = 12, FLAGS_AT = 20, LIST_AT = 40, PAYLOAD_AT = 48, CHALLENGE_TYPE = 2, HAS_LIST = 0x00800000, /* NTLMSSP_NEGOTIATE_TARGET_INFO */
	AV_END = 0, AV_FLAGS = 6, AV_TIME = 7, AV_BINDINGS = 10, AV_HEADER = 4,
};

static uint32_t u16_at(struct span s, size_t at)
{
	return (uint32_t)(unsigned char)s.at[at] | (uint32_t)(unsigned char)s.at[at + 1] << 8;
}

static uint32_t u32_at(struct span s, size_t at)
{
	return u16_at(s, at) | u16_at(s, at + 2) << 16;
}

/* A length, a length again, a place. */
static bool take_field(struct span m, size_t at, struct span *out)
{
	size_t n = u16_at(m, at), place = u32_at(m, at + 4);
	*out = (struct span){m.at, 0};
	if (n == 0)
		return true;
	if (place < PAYLOAD_AT || place > m.n || n > m.n - place)
		return false;
	*out = (struct span){m.at + place, n};
	return true;
}

static bool is_sound_value(uint32_t id, uint32_t n)
{
	if (id == AV_FLAGS)
		return n == 4;
	if (id == AV_TIME)
		return n == 8;
	return id == AV_BINDINGS ? n == 16 : n % 2 == 0; /* names are in UTF-16 */
}

static bool is_sound_list(struct span list)
{
	for (size_t at = 0; at + AV_HEADER <= list.n;) {
		uint32_t id = u16_at(list, at), n = u16_at(list, at + 2);
		at += AV_HEADER;
		if (id == AV_END)
			return n == 0 && at == list.n;
		if (n > list.n - at || !is_sound_value(id, n))
			return false;
		at += n;
	}
	return false;
}

bool gss_ntlm_challenge_is_sound(struct span m)
{
	struct span name, list;
	return m.n >= PAYLOAD_AT && memcmp(m.at, "NTLMSSP", 8) == 0 && u32_at(m, TYPE_AT) == CHALLENGE_TYPE && (u32_at(m, FLAGS_AT) & HAS_LIST) != 0 &&
		take_field(m, NAME_AT, &name) && name.n > 0 && name.n % 2 == 0 && take_field(m, LIST_AT, &list) && is_sound_list(list);
}
