#include "message/message_private.h"

#include <string.h>

/* One list item being gathered: text outside comments, and what stood in angle brackets. */
struct item {
	struct buffer plain, angle;
	bool has_angle;
};

/* Skips a comment (RFC 5322 3.2.2, nested); s begins with '('. */
size_t comment_length(struct span s)
{
	unsigned depth = 0;
	for (size_t i = 0; i < s.n; i++) {
		if (s.at[i] == '\\')
			i++;
		else if (s.at[i] == '(')
			depth++;
		else if (s.at[i] == ')' && --depth == 0)
			return i + 1;
	}
	return s.n;
}

size_t quoted_length(struct span s)
{
	for (size_t i = 1; i < s.n; i++) {
		if (s.at[i] == '\\')
			i++;
		else if (s.at[i] == '"')
			return i + 1;
	}
	return s.n;
}

static int finish(struct item *it, int (*take)(void *, struct span), void *context)
{
	struct span text = span_trim(buffer_span(it->has_angle ? &it->angle : &it->plain));
	int error = 0;
	if (text.n > 0)
		error = take(context, text);
	else if (it->has_angle)
		error = EINVAL;
	buffer_clear(&it->plain);
	buffer_clear(&it->angle);
	it->has_angle = false;
	return error;
}

/* Angle brackets at s: its inner text without a source route. */
static size_t take_angle(struct item *it, struct span s)
{
	size_t i = 1;
	it->has_angle = true;
	while (i < s.n && s.at[i] != '>') {
		size_t n = s.at[i] == '"' ? quoted_length((struct span){s.at + i, s.n - i}) : 1;
		if (s.at[i] != '\r' && s.at[i] != '\n' && s.at[i] != ' ' && s.at[i] != '\t')
			buffer_put(&it->angle, s.at + i, n);
		i += n;
	}
	return i < s.n ? i + 1 : s.n;
}

static size_t take_plain(struct item *it, struct span s)
{
	size_t n = s.at[0] == '"' ? quoted_length(s) : 1;
	if (s.at[0] == '\r' || s.at[0] == '\n')
		return 1;
	/* blanks inside an addr-spec without brackets mean a phrase: kept, refused later */
	buffer_put(&it->plain, s.at, n);
	return n;
}

int header_addresses(struct span body, int (*take)(void *, struct span), void *context)
{
	struct item it = {0};
	int error = 0;
	size_t i = 0;
	buffer_init(&it.plain, 4096);
	buffer_init(&it.angle, 4096);
	while (i < body.n && error == 0) {
		struct span s = {body.at + i, body.n - i};
		switch (s.at[0]) {
		case '(':
			i += comment_length(s);
			break;
		case '<':
			i += take_angle(&it, s);
			break;
		case ',':
		case ';': /* end of a group */
			error = finish(&it, take, context);
			i++;
			break;
		case ':': /* what was gathered is a group's name */
			buffer_clear(&it.plain);
			i++;
			break;
		default:
			i += take_plain(&it, s);
		}
	}
	if (error == 0)
		error = finish(&it, take, context);
	if (error == 0 && (!buffer_ok(&it.plain) || !buffer_ok(&it.angle)))
		error = EINVAL;
	buffer_free(&it.plain);
	buffer_free(&it.angle);
	return error;
}
