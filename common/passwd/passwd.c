#include "passwd/passwd.h"

#include <crypt.h>
#include <ctype.h>
#include <gsasl.h>
#include <stdlib.h>
#include <string.h>

enum { KEY = GSASL_HASH_SHA256_SIZE, SALT = 16 };
static const char scheme[] = "{SCRAM-SHA-256}", decoy_word[] = "# decoy ";
static const char cram_scheme[] = "{CRAM-MD5}";

void passwd_fold(char *name, size_t n)
{
	for (size_t i = 0; i < n; i++)
		name[i] = (char)tolower((unsigned char)name[i]);
}

bool passwd_name_is_valid(struct span name)
{
	for (size_t i = 0; i < name.n; i++)
		if ((unsigned char)name.at[i] <= ' ' || name.at[i] == ':' || name.at[i] == 0x7f)
			return false;
	return name.n > 0 && name.n <= PASSWD_NAME_MOST && name.at[0] != '#';
}

/* ---- the file ---- */

static bool is_base64_of(struct span text, size_t least, size_t most)
{
	char *bytes = NULL;
	size_t n = 0;
	bool good = text.n <= 200 && gsasl_base64_from(text.at, text.n, &bytes, &n) == GSASL_OK && n >= least && n <= most;
	gsasl_free(bytes);
	return good;
}

static int parse_line(struct span line, struct passwd_row *out)
{
	struct passwd_row row;
	uint64_t iterations;
	row.name = span_until(&line, ':');
	row.hash = span_until(&line, ':');
	if (!passwd_name_is_valid(row.name) || row.hash.n < 4 || row.hash.n >= CRYPT_OUTPUT_SIZE || row.hash.at[0] != '$')
		return EINVAL;
	if (line.n < sizeof scheme || memcmp(line.at, scheme, sizeof scheme - 1) != 0)
		return EINVAL;
	line = (struct span){line.at + sizeof scheme - 1, line.n - sizeof scheme + 1};
	row.iterations = span_until(&line, ',');
	row.salt = span_until(&line, ',');
	row.stored = span_until(&line, ',');
	row.server = span_until(&line, ':');
	row.cram = line;
	if (row.cram.n > 0) {
		if (row.cram.n != sizeof cram_scheme - 1 + CRAM_STATES || memcmp(row.cram.at, cram_scheme, sizeof cram_scheme - 1) != 0)
			return EINVAL;
		row.cram = span_from(row.cram, sizeof cram_scheme - 1);
		if (!cram_is_states(row.cram))
			return EINVAL;
	}
	if (parse_u64(row.iterations, 100000000, &iterations) != 0 || iterations == 0 || !is_base64_of(row.salt, 1, 128) ||
		!is_base64_of(row.stored, KEY, KEY) || !is_base64_of(row.server, KEY, KEY))
		return EINVAL;
	*out = row;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct passwd_row *x = a, *y = b;
	size_t n = x->name.n < y->name.n ? x->name.n : y->name.n;
	int order = memcmp(x->name.at, y->name.at, n);
	return order != 0 ? order : (x->name.n > y->name.n) - (x->name.n < y->name.n);
}

static void take_decoy(struct span line, unsigned char decoy[PASSWD_DECOY])
{
	char *bytes = NULL;
	size_t n = 0, at = sizeof decoy_word - 1;
	if (line.n <= at || memcmp(line.at, decoy_word, at) != 0)
		return;
	if (gsasl_base64_from(line.at + at, line.n - at, &bytes, &n) == GSASL_OK && n == PASSWD_DECOY)
		memcpy(decoy, bytes, n);
	gsasl_free(bytes);
}

static int parse_lines(struct passwd_file *f, size_t lines, unsigned *line)
{
	struct span rest = buffer_span(&f->text);
	f->rows = calloc(lines + 1, sizeof *f->rows);
	if (f->rows == NULL)
		return ENOMEM;
	for (*line = 1; rest.n > 0; ++*line) {
		struct span text = span_trim(span_until(&rest, '\n'));
		take_decoy(text, f->decoy);
		if (text.n == 0 || text.at[0] == '#')
			continue;
		if (parse_line(text, &f->rows[f->n]) != 0)
			return EINVAL;
		f->n++;
	}
	qsort(f->rows, f->n, sizeof *f->rows, by_name);
	for (size_t i = 1; i < f->n; i++)
		if (by_name(&f->rows[i - 1], &f->rows[i]) == 0)
			return EINVAL;
	return 0;
}

int passwd_parse(struct span text, struct passwd_file *out, unsigned *line)
{
	struct passwd_file f = {.n = 0};
	size_t lines = 1;
	*line = 0;
	for (size_t i = 0; i < text.n; i++)
		lines += text.at[i] == '\n';
	buffer_init(&f.text, PASSWD_FILE_MOST);
	buffer_put_span(&f.text, text);
	int error = buffer_ok(&f.text) ? parse_lines(&f, lines, line) : ENOMEM;
	if (error == 0)
		*out = f;
	else
		passwd_free(&f);
	return error;
}

void passwd_free(struct passwd_file *f)
{
	buffer_wipe(&f->text);
	free(f->rows);
	*f = (struct passwd_file){.text = f->text};
}

const struct passwd_row *passwd_find(const struct passwd_file *f, struct span name)
{
	struct passwd_row key = {.name = name};
	return f->n == 0 ? NULL : bsearch(&key, f->rows, f->n, sizeof *f->rows, by_name);
}

static int put_base64(struct buffer *b, const void *bytes, size_t n)
{
	char *text = NULL;
	size_t length = 0;
	if (gsasl_base64_to(bytes, n, &text, &length) != GSASL_OK)
		return ENOMEM;
	buffer_put(b, text, length);
	gsasl_free(text);
	return 0;
}

int passwd_put_head(struct buffer *b)
{
	unsigned char decoy[PASSWD_DECOY];
	int error = fill_random(decoy, sizeof decoy);
	buffer_puts(b, "# who may log in: hornpasswd edits this\n");
	buffer_puts(b, decoy_word);
	if (error == 0)
		error = put_base64(b, decoy, sizeof decoy);
	buffer_putc(b, '\n');
	return error;
}

/* ---- passwords ---- */

/* RFC 4013; the caller wipes and frees. */
static char *prepared(struct span word)
{
	char *out = NULL, *text = word.n == 0 || word.n > PASSWD_WORD_MOST || memchr(word.at, '\0', word.n) != NULL ? NULL : span_dup(word);
	if (text == NULL || gsasl_saslprep(text, GSASL_ALLOW_UNASSIGNED, &out, NULL) != GSASL_OK)
		out = NULL;
	if (text != NULL)
		explicit_bzero(text, word.n);
	free(text);
	return out;
}

static void forget(char *text)
{
	if (text != NULL)
		explicit_bzero(text, strlen(text));
	gsasl_free(text);
}

static int put_scram(struct buffer *b, const char *word)
{
	char salt[SALT], salted[KEY], client[KEY], server[KEY], stored[KEY];
	int error = fill_random(salt, sizeof salt);
	if (error == 0 && gsasl_scram_secrets_from_password(GSASL_HASH_SHA256, word, PASSWD_ITERATIONS, salt, sizeof salt, salted, client, server, stored) != GSASL_OK)
		error = EINVAL;
	buffer_printf(b, "%s%d,", scheme, PASSWD_ITERATIONS);
	if (error == 0)
		error = put_base64(b, salt, sizeof salt);
	buffer_putc(b, ',');
	if (error == 0)
		error = put_base64(b, stored, sizeof stored);
	buffer_putc(b, ',');
	if (error == 0)
		error = put_base64(b, server, sizeof server);
	explicit_bzero(salted, sizeof salted);
	explicit_bzero(client, sizeof client);
	return error;
}

int passwd_put_row(struct buffer *b, struct span name, struct span word, bool cram)
{
	char setting[CRYPT_GENSALT_OUTPUT_SIZE], *text = prepared(word);
	struct crypt_data *data = calloc(1, sizeof *data);
	int error = text == NULL ? EINVAL : data == NULL ? ENOMEM : 0;
	if (error == 0 && crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof setting) == NULL)
		error = errno;
	const char *hash = error != 0 ? NULL : crypt_rn(text, setting, data, sizeof *data);
	if (error == 0 && hash == NULL)
		error = errno;
	buffer_put_span(b, name);
	buffer_printf(b, ":%s:", hash == NULL ? "" : hash);
	if (error == 0)
		error = put_scram(b, text);
	if (error == 0 && cram) {
		buffer_printf(b, ":%s", cram_scheme);
		cram_put_states(b, text);
	}
	buffer_putc(b, '\n');
	if (data != NULL)
		explicit_bzero(data, sizeof *data);
	free(data);
	forget(text);
	return error != 0 ? error : buffer_ok(b) ? 0 : ENOMEM;
}

static bool same(const char *a, const char *b, size_t n)
{
	unsigned char differs = 0;
	for (size_t i = 0; i < n; i++)
		differs = (unsigned char)(differs | (a[i] ^ b[i]));
	return differs == 0;
}

bool passwd_verify(const struct passwd_row *row, struct span word)
{
	static const char nobody[] = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$tnSYvahCwPBHKZUspmcxMfb0.WiB9W.zEaKlOBL35rC";
	char *text = prepared(word), *setting = row == NULL ? span_dup(span_of(nobody)) : span_dup(row->hash);
	struct crypt_data *data = calloc(1, sizeof *data);
	const char *hash = setting == NULL || data == NULL ? NULL : crypt_rn(text == NULL ? "" : text, setting, data, sizeof *data);
	bool good = hash != NULL && text != NULL && strlen(hash) == strlen(setting) && same(hash, setting, strlen(setting)) && row != NULL;
	if (data != NULL)
		explicit_bzero(data, sizeof *data);
	free(data);
	free(setting);
	forget(text);
	return good;
}
