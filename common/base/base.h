/* base: bytes, text, time that every other part stands on. */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

/* Borrowed text, not NUL-terminated, valid as long as the bytes it points into. */
struct span {
	const char *at;
	size_t n;
};

#define SPAN_LIT(s) ((struct span){(s), sizeof(s) - 1})
#define SPAN_ARG(s) (int)(s).n, (s).at

struct span span_of(const char *text); /* NULL gives an empty span */
bool span_eq(struct span a, struct span b);
bool span_is(struct span a, const char *text);
bool span_case_eq(struct span a, struct span b); /* ASCII case only */
bool span_case_is(struct span a, const char *text);
bool span_ends_case(struct span a, struct span tail);
struct span span_from(struct span s, size_t n);          /* without its first n bytes, at most all */
struct span span_trim(struct span s);                 /* without blanks and tabs at both ends */
struct span span_word(struct span *rest, const char *separators); /* next word; empty at the end */
struct span span_until(struct span *rest, char stop); /* up to stop; rest begins after it */
char *span_dup(struct span s);                        /* NUL-terminated, the caller frees; NULL: no memory */

/* Bytes that grow up to a limit set when made.  A failed append marks the buffer and
 * leaves its contents: builders check buffer_ok once at their end. */
struct buffer {
	char *at;
	size_t n, size, limit;
	bool failed;
};

void buffer_init(struct buffer *b, size_t limit);
void buffer_wipe(struct buffer *b); /* as buffer_free, of what was a secret */
void buffer_free(struct buffer *b); /* usable again afterwards, with the same limit */
void buffer_clear(struct buffer *b);
bool buffer_ok(const struct buffer *b);
struct span buffer_span(const struct buffer *b);
int buffer_reserve(struct buffer *b, size_t more); /* 0, ENOMEM, EOVERFLOW */
void buffer_put(struct buffer *b, const void *bytes, size_t n);
void buffer_put_span(struct buffer *b, struct span s);
void buffer_puts(struct buffer *b, const char *text);
void buffer_putc(struct buffer *b, char c);
void buffer_printf(struct buffer *b, const char *format, ...) PRINTF_LIKE(2, 3);
void buffer_put_decimal(struct buffer *b, uint64_t v, unsigned least); /* at least so many digits, at most 20 */
void buffer_drop(struct buffer *b, size_t n); /* takes n bytes off the front */
const char *buffer_cstr(struct buffer *b);    /* NUL-terminated, "" when that failed */
/* Appends s with controls, quotes and backslashes escaped, at most limit bytes of s. */
void buffer_put_escaped(struct buffer *b, struct span s, size_t limit);

/* Appends s as a JSON string, quotes included (RFC 8259 7). */
void buffer_put_json(struct buffer *b, struct span s);

/* Little-endian fields: files and packets are written field by field. */
void buffer_put_u8(struct buffer *b, uint8_t v);
void buffer_put_u32(struct buffer *b, uint32_t v);
void buffer_put_u64(struct buffer *b, uint64_t v);
void buffer_put_lspan(struct buffer *b, struct span s); /* u32 length, bytes */
void store_u32(void *at, uint32_t v);
void store_u64(void *at, uint64_t v);
uint32_t load_u32(const void *at);
uint64_t load_u64(const void *at);
MUST_CHECK bool take_u8(struct span *from, uint8_t *out); /* false: not enough bytes */
MUST_CHECK bool take_u32(struct span *from, uint32_t *out);
MUST_CHECK bool take_u64(struct span *from, uint64_t *out);
MUST_CHECK bool take_lspan(struct span *from, struct span *out);

/* Memory that is freed as a whole.  A failed allocation gives NULL and marks the arena. */
struct arena {
	struct arena_block *blocks;
	bool failed;
};

void *arena_alloc(struct arena *a, size_t n); /* zeroed */
char *arena_dup(struct arena *a, struct span s);
struct span arena_span(struct arena *a, struct span s);
char *arena_printf(struct arena *a, const char *format, ...) PRINTF_LIKE(2, 3);
void arena_free(struct arena *a); /* empties it; usable again */

/* Numbers from text; the whole span must be the number.  0, EINVAL or ERANGE. */
MUST_CHECK int parse_u64(struct span s, uint64_t max, uint64_t *out);
MUST_CHECK int parse_duration(struct span s, int64_t *seconds); /* 1h30m; a bare number is EINVAL */
MUST_CHECK int parse_bytes(struct span s, int64_t *bytes);      /* 10K; K = 1024, B = bytes */
void format_duration(struct buffer *b, int64_t seconds);

int64_t clock_mono_ms(void);
int64_t clock_wall_us(void);
/* RFC 3339 with the local offset, seconds; and with UTC milliseconds for logs. */
void format_rfc3339(struct buffer *b, int64_t wall_s);
int parse_rfc3339(struct span s, int64_t *wall_s);

uint32_t crc32c(uint32_t crc, const void *bytes, size_t n);

/* I/O that deals with EINTR and short counts.  0 or errno. */
MUST_CHECK int write_all(int fd, const void *bytes, size_t n);
MUST_CHECK int pwritev_all(int fd, struct iovec *iov, int n, off_t at); /* iov is used up */
MUST_CHECK int pread_all(int fd, void *bytes, size_t n, off_t at);      /* ENODATA: file too short */
/* All of a file that another process has opened, by calls that every process has. */
MUST_CHECK int read_given_file(int fd, size_t limit, struct buffer *out);
MUST_CHECK int read_file_at(int dir_fd, const char *name, size_t limit, struct buffer *out);
/* As read_file_at, of a file that somebody else may have put there: links are not followed, and it must be a regular file
 * with one name (ELOOP).  *st is the file's own. */
struct stat;
MUST_CHECK int read_plain_file_at(int dir_fd, const char *name, size_t limit, struct buffer *out, struct stat *st);
/* Bytes in a memory file that nobody can change any more, read from its beginning; the caller closes it. */
MUST_CHECK int sealed_file(const char *name, struct span bytes, int *fd);
/* Writes aside, syncs, names, syncs the directory. */
MUST_CHECK int replace_file_at(int dir_fd, const char *name, struct span bytes, mode_t mode);
MUST_CHECK int replace_group_file_at(int dir_fd, const char *name, struct span bytes, mode_t mode, gid_t gid); /* gid -1: as it comes */
/* As replace_file_at, into a directory in which one may write and not read, as maildrop is: it is not synced. */
MUST_CHECK int hand_in_file_at(int dir_fd, const char *name, struct span bytes, mode_t mode);
MUST_CHECK int mkdir_chain(const char *path, mode_t mode);
/* A hash whose buckets nobody can choose who does not know the secret, which is filled by fill_random: multilinear, universal
 * over up to HASH_WORDS words. */
enum { HASH_WORDS = 8 };
struct hash_secret {
	uint64_t factors[HASH_WORDS + 1];
};
uint32_t keyed_hash(const struct hash_secret *secret, const uint32_t *words, size_t n); /* n at most HASH_WORDS */
MUST_CHECK int fill_random(void *at, size_t n);

/* Why text of an administrator was refused. */
struct complaint {
	char file[256];
	unsigned line;
	char reason[400];
};
void complain(struct complaint *c, const char *file, unsigned line, const char *format, ...) PRINTF_LIKE(4, 5);

/* The nearest word of a list, or NULL when none is near: for "did you mean". */
const char *nearest_word(struct span word, const char *const *words, size_t n);

#endif
