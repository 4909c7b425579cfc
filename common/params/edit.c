/* Edits of configuration files that keep comments and order. */
#include "params/params.h"

#include <string.h>

/* The section a header line begins: "domain example.org"; empty when the line is none. */
static struct span section_of(struct span line)
{
	line = span_trim(line);
	if (line.n < 2 || line.at[0] != '[' || line.at[line.n - 1] != ']')
		return (struct span){"", 0};
	return span_trim((struct span){line.at + 1, line.n - 2});
}

static bool section_is(struct span found, const char *wanted)
{
	struct span a = found, b = span_of(wanted);
	for (;;) {
		struct span x = span_word(&a, " \t"), y = span_word(&b, " \t");
		if (!span_case_eq(x, y))
			return false;
		if (x.n == 0)
			return true;
	}
}

static bool sets(struct span line, struct span name)
{
	struct span rest = line;
	struct span key = span_until(&rest, '=');
	return key.n < line.n && line.n > 0 && line.at[0] != ' ' && line.at[0] != '\t' && span_eq(span_trim(key), name);
}

static void put_setting(struct buffer *out, struct span name, const char *value)
{
	buffer_printf(out, "%.*s = %s\n", SPAN_ARG(name), value);
}

int config_edit(struct span text, const char *section, struct span name, const char *value, struct buffer *out)
{
	bool inside = section == NULL, found = false, done = false, dropping = false;
	size_t end = 0; /* in out: after the last line of the section that is not blank */
	while (text.n > 0) {
		struct span line = span_until(&text, '\n'), head = section_of(line);
		bool fold = line.n > 0 && (line.at[0] == ' ' || line.at[0] == '\t');
		if (dropping && fold)
			continue;
		dropping = false;
		if (head.n > 0) {
			inside = section != NULL && section_is(head, section);
			found = found || inside;
		} else if (inside && sets(line, name)) {
			if (value != NULL && !done)
				put_setting(out, name, value);
			done = dropping = true;
			end = out->n;
			continue;
		}
		buffer_put_span(out, line);
		buffer_putc(out, '\n');
		if (inside && span_trim(line).n > 0)
			end = out->n;
	}
	if (section != NULL && !found)
		return ENOENT;
	if (!done && value != NULL) {
		struct buffer rest;
		buffer_init(&rest, out->limit);
		buffer_put(&rest, out->n > end ? out->at + end : "", out->n - end);
		out->n = end;
		put_setting(out, name, value);
		buffer_put_span(out, buffer_span(&rest));
		bool ok = buffer_ok(&rest);
		buffer_free(&rest);
		if (!ok)
			return ENOMEM;
	}
	return buffer_ok(out) ? (done || value != NULL ? 0 : ESRCH) : ENOMEM;
}

int config_add_section(struct span text, const char *section, struct buffer *out)
{
	buffer_put_span(out, text);
	if (text.n > 0 && text.at[text.n - 1] != '\n')
		buffer_putc(out, '\n');
	buffer_printf(out, "\n[%s]\n", section);
	return buffer_ok(out) ? 0 : ENOMEM;
}

int config_remove_section(struct span text, const char *section, struct buffer *out)
{
	bool inside = false, found = false;
	while (text.n > 0) {
		struct span line = span_until(&text, '\n'), head = section_of(line);
		if (head.n > 0) {
			inside = section_is(head, section);
			found = found || inside;
		}
		if (inside)
			continue;
		buffer_put_span(out, line);
		buffer_putc(out, '\n');
	}
	if (!found)
		return ENOENT;
	return buffer_ok(out) ? 0 : ENOMEM;
}
