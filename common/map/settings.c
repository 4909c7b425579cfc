/* What a map that asks a server is told. */
#include "map/map.h"

#include <fcntl.h>
#include <string.h>

enum { SETTINGS_MOST = 64 * 1024 };

static int refuse(const struct map_setting *known, size_t n, const char *path, unsigned line, struct complaint *why)
{
	struct buffer names;
	buffer_init(&names, 1000);
	for (size_t i = 0; i < n; i++)
		buffer_printf(&names, "%s%s", i == 0 ? "" : i + 1 == n ? " or " : ", ", known[i].name);
	complain(why, path, line, "write name = value, each name once: %s", buffer_cstr(&names));
	buffer_free(&names);
	return EINVAL;
}

static int read_lines(struct span text, const char *path, const struct map_setting *known, size_t n, struct complaint *why)
{
	for (unsigned line = 1; text.n > 0; line++) {
		struct span value = span_trim(span_until(&text, '\n')), name;
		size_t i = 0;
		if (value.n == 0 || value.at[0] == '#')
			continue;
		name = span_trim(span_until(&value, '='));
		value = span_trim(value);
		while (i < n && !span_is(name, known[i].name))
			i++;
		if (i == n || *known[i].value != NULL || value.n == 0)
			return refuse(known, n, path, line, why);
		*known[i].value = span_dup(value);
		if (*known[i].value == NULL)
			return ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		if (!known[i].needed || *known[i].value != NULL)
			continue;
		complain(why, path, 0, "%s is missing", known[i].name);
		return EINVAL;
	}
	return 0;
}

int map_read_settings(const char *path, const struct map_setting *known, size_t n, struct complaint *why)
{
	struct buffer text;
	buffer_init(&text, SETTINGS_MOST);
	int error = read_file_at(AT_FDCWD, path, SETTINGS_MOST - 1, &text);
	if (error != 0)
		complain(why, path, 0, "%s", strerror(error));
	else
		error = read_lines(buffer_span(&text), path, known, n, why);
	buffer_wipe(&text);
	return error;
}
