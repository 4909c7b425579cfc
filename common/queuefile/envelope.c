#include "queuefile/queuefile.h"

#include <string.h>

/* Tagged fields: u8 tag, u32 length, bytes.  Unknown tags are stepped over: a later version may add some. */
enum tag { TAG_SENDER = 1, TAG_ARRIVED, TAG_FLAGS, TAG_HOPS, TAG_RET, TAG_SIZE, TAG_ENVID, TAG_CLIENT, TAG_HELO, TAG_PROTOCOL,
	TAG_LOGIN, TAG_ORIGIN, TAG_CLOSES, TAG_CLOSES_KIND, TAG_CLOSES_RCPTS, TAG_RCPT, TAG_NOTIFY, TAG_ORCPT };

static void put_text(struct buffer *b, enum tag tag, struct span s)
{
	if (s.n == 0 && tag != TAG_SENDER)
		return;
	buffer_put_u8(b, (uint8_t)tag);
	buffer_put_lspan(b, s);
}

static void put_number(struct buffer *b, enum tag tag, uint64_t v)
{
	if (v == 0)
		return;
	buffer_put_u8(b, (uint8_t)tag);
	buffer_put_u32(b, 8);
	buffer_put_u64(b, v);
}

void envelope_put(struct buffer *b, const struct envelope *e)
{
	put_text(b, TAG_SENDER, e->sender);
	put_number(b, TAG_ARRIVED, (uint64_t)e->arrived_us);
	put_number(b, TAG_FLAGS, e->flags);
	put_number(b, TAG_HOPS, e->hops);
	put_number(b, TAG_RET, e->ret);
	put_number(b, TAG_SIZE, e->size);
	put_text(b, TAG_ENVID, e->envid);
	put_text(b, TAG_CLIENT, e->client);
	put_text(b, TAG_HELO, e->helo);
	put_text(b, TAG_PROTOCOL, e->protocol);
	put_text(b, TAG_LOGIN, e->login);
	put_text(b, TAG_ORIGIN, e->origin);
	if (e->closes.text[0] != '\0') {
		put_text(b, TAG_CLOSES, qid_span(&e->closes));
		put_number(b, TAG_CLOSES_KIND, e->closes_kind);
		put_text(b, TAG_CLOSES_RCPTS, e->closes_rcpts);
	}
	for (size_t i = 0; i < e->rcpts_n; i++) {
		put_text(b, TAG_RCPT, e->rcpts[i].address);
		put_number(b, TAG_NOTIFY, e->rcpts[i].notify);
		put_text(b, TAG_ORCPT, e->rcpts[i].orcpt);
	}
}

static bool number(struct span s, uint64_t *out)
{
	return s.n == 8 && take_u64(&s, out);
}

static int take_rcpt_field(struct envelope *e, enum tag tag, struct span value)
{
	uint64_t n;
	struct envelope_rcpt *r = e->rcpts_n == 0 ? NULL : &e->rcpts[e->rcpts_n - 1];
	if (tag == TAG_RCPT) {
		e->rcpts[e->rcpts_n++] = (struct envelope_rcpt){.address = value};
		return value.n > 0 ? 0 : EBADMSG;
	}
	if (r == NULL)
		return EBADMSG;
	if (tag == TAG_ORCPT) {
		r->orcpt = value;
		return 0;
	}
	if (!number(value, &n) || n >= 2 * RCPT_PLAIN)
		return EBADMSG;
	r->notify = (unsigned)n;
	return 0;
}

static int take_field(struct envelope *e, enum tag tag, struct span value)
{
	uint64_t n = 0;
	bool good = true;
	switch (tag) {
	case TAG_SENDER: e->sender = value; break;
	case TAG_ENVID: e->envid = value; break;
	case TAG_CLIENT: e->client = value; break;
	case TAG_HELO: e->helo = value; break;
	case TAG_PROTOCOL: e->protocol = value; break;
	case TAG_LOGIN: e->login = value; break;
	case TAG_ORIGIN: e->origin = value; break;
	case TAG_CLOSES_RCPTS: e->closes_rcpts = value; break;
	case TAG_CLOSES: return qid_parse(value, &e->closes);
	case TAG_ARRIVED: good = number(value, &n); e->arrived_us = (int64_t)n; break;
	case TAG_FLAGS: good = number(value, &n); e->flags = (uint32_t)n; break;
	case TAG_HOPS: good = number(value, &n); e->hops = (uint32_t)n; break;
	case TAG_RET: good = number(value, &n); e->ret = (uint32_t)n; break;
	case TAG_SIZE: good = number(value, &e->size); break;
	case TAG_CLOSES_KIND: good = number(value, &n); e->closes_kind = (uint32_t)n; break;
	case TAG_RCPT: case TAG_NOTIFY: case TAG_ORCPT: return take_rcpt_field(e, tag, value);
	}
	return good ? 0 : EBADMSG;
}

static size_t count_recipients(struct span text)
{
	size_t n = 0;
	uint8_t tag;
	struct span value;
	while (text.n > 0 && take_u8(&text, &tag) && take_lspan(&text, &value))
		n += tag == TAG_RCPT;
	return n;
}

int envelope_parse(struct span text, struct arena *arena, struct envelope *out)
{
	struct envelope e = {.sender = {"", 0}};
	e.rcpts = arena_alloc(arena, (count_recipients(text) + 1) * sizeof *e.rcpts);
	if (e.rcpts == NULL)
		return ENOMEM;
	while (text.n > 0) {
		uint8_t tag;
		struct span value;
		if (!take_u8(&text, &tag) || !take_lspan(&text, &value))
			return EBADMSG;
		int error = take_field(&e, (enum tag)tag, value);
		if (error != 0)
			return EBADMSG;
	}
	if (e.rcpts_n == 0)
		return EBADMSG;
	*out = e;
	return 0;
}
