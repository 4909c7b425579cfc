/* passwd: the file of who may log in and how a password is checked.  No password is in it, nor what takes the place of one at
 * this server: a yescrypt hash (crypt(5)), and the keys of SCRAM-SHA-256 (RFC 5802 3), which let a client in only who knows more. */
#ifndef PASSWD_PASSWD_H
#define PASSWD_PASSWD_H

#include "base/base.h"
#include <sys/types.h>

enum {
	PASSWD_FILE_MOST = 64 * 1024 * 1024,
	PASSWD_NAME_MOST = 255,
	PASSWD_WORD_MOST = 255,         /* bytes of a password */
	PASSWD_ITERATIONS = 65536,      /* of SCRAM's key, worked off by the client */
	PASSWD_DECOY = 32,              /* bytes */
};

/* A line "NAME:YESCRYPT:{SCRAM-SHA-256}ITERATIONS,SALT,STOREDKEY,SERVERKEY", salt and keys in base64; for users of old clients
 * with ":{CRAM-MD5}STATES" behind it. */
struct passwd_row {
	struct span name, hash, iterations, salt, stored, server, cram; /* cram: empty: not by CRAM-MD5 */
};
/* Every line but comments.  0, EINVAL with *line the number of the bad one, ENOMEM. */
struct passwd_file {
	struct buffer text;
	struct passwd_row *rows; /* by name */
	size_t n;
	unsigned char decoy[PASSWD_DECOY]; /* for what is told of names that are not there: the same each time */
};
MUST_CHECK int passwd_parse(struct span text, struct passwd_file *out, unsigned *line); /* takes a copy */
void passwd_free(struct passwd_file *f);
const struct passwd_row *passwd_find(const struct passwd_file *f, struct span name); /* NULL: nobody */
/* A new file's first lines. */
MUST_CHECK int passwd_put_head(struct buffer *b);

/* Names are compared without regard to case: they are held in small letters (ASCII). */
void passwd_fold(char *name, size_t n);
bool passwd_name_is_valid(struct span name);
/* Appends the line for a name and a password.  0, EINVAL: the password can't be used (empty, too long, characters that
 * RFC 4013 prohibits), ENOMEM, or errno. */
MUST_CHECK int passwd_put_row(struct buffer *b, struct span name, struct span word, bool cram);
/* Compares in constant time.  row NULL: does the same work, and says no. */
bool passwd_verify(const struct passwd_row *row, struct span word);

/* cram.c: CRAM-MD5 (RFC 2195).  What is kept are the two states of MD5 after the padded key, in hexadecimal, as other servers keep them: no
 * password, but whoever has them can log in by this mechanism. */
enum { CRAM_STATES = 64, CRAM_DIGEST = 32 };
void cram_put_states(struct buffer *b, const char *word);
bool cram_is_states(struct span text);
bool cram_verify(struct span states, struct span challenge, struct span digest); /* states empty: does the same work, and says no */

#endif
