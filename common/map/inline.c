/* inline:{ key = value, key = value }: pairs that stand in the configuration itself. */
#include "map/map.h"

#include <ctype.h>
#include <string.h>

static bool next_pair(struct span *rest, struct span *key, struct span *value)
{
	while (rest->n > 0) {
		*value = span_trim(span_until(rest, ','));
		if (value->n == 0)
			continue;
		*key = span_trim(span_until(value, '='));
		*value = span_trim(*value);
		return true;
	}
	return false;
}

/* What stands between the braces. */
static struct span inside(const struct map *m)
{
	struct span s = span_trim(span_of(m->name));
	return s.n >= 2 && s.at[0] == '{' && s.at[s.n - 1] == '}' ? (struct span){s.at + 1, s.n - 2} : (struct span){"", 0};
}

static int open_inline(struct map *m, struct complaint *why)
{
	struct span rest = inside(m), key, value;
	while (next_pair(&rest, &key, &value)) {
		if (key.n > 0 && value.n > 0)
			continue;
		complain(why, "inline", 0, "write inline:{ key = value, key = value }");
		return EINVAL;
	}
	return 0;
}

static void close_inline(struct map *m)
{
	(void)m;
}

static enum map_status query_inline(struct map *m, struct span wanted, struct buffer *value, struct complaint *why)
{
	struct span rest = inside(m), key, text;
	(void)why;
	while (next_pair(&rest, &key, &text)) {
		if (!span_case_eq(key, wanted))
			continue;
		buffer_put_span(value, text);
		return MAP_FOUND;
	}
	return MAP_NONE;
}

static int each_inline(struct map *m, bool (*take)(void *context, struct span key, struct span value), void *context, struct complaint *why)
{
	struct span rest = inside(m), key, value;
	(void)why;
	while (next_pair(&rest, &key, &value))
		if (!take(context, key, value))
			break;
	return 0;
}

const struct map_kind map_inline = {"inline", true, false, open_inline, close_inline, query_inline, each_inline};
