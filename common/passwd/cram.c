#define OPENSSL_SUPPRESS_DEPRECATED /* no newer call hands the state of a digest out */
#include "passwd/passwd.h"

#include <openssl/md5.h>
#include <string.h>

enum { STATE_HEX = CRAM_STATES / 2 };

static void put_word(struct buffer *b, MD5_LONG w)
{
	for (int i = 0; i < 4; i++)
		buffer_printf(b, "%02x", (unsigned)(w >> 8 * i) & 255);
}

static void put_state(struct buffer *b, const unsigned char key[MD5_CBLOCK], unsigned char pad)
{
	unsigned char block[MD5_CBLOCK];
	MD5_CTX c;
	for (size_t i = 0; i < sizeof block; i++)
		block[i] = key[i] ^ pad;
	(void)MD5_Init(&c);
	(void)MD5_Update(&c, block, sizeof block);
	put_word(b, c.A);
	put_word(b, c.B);
	put_word(b, c.C);
	put_word(b, c.D);
	explicit_bzero(block, sizeof block);
	explicit_bzero(&c, sizeof c);
}

/* RFC 2104 4: the outer state, then the inner one. */
void cram_put_states(struct buffer *b, const char *word)
{
	unsigned char key[MD5_CBLOCK] = {0};
	size_t n = strlen(word);
	if (n > sizeof key)
		(void)MD5((const unsigned char *)word, n, key);
	else
		memcpy(key, word, n);
	put_state(b, key, 0x5c);
	put_state(b, key, 0x36);
	explicit_bzero(key, sizeof key);
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool cram_is_states(struct span text)
{
	bool good = text.n == CRAM_STATES;
	for (size_t i = 0; i < text.n && good; i++)
		good = digit(text.at[i]) >= 0;
	return good;
}

static MD5_LONG take_word(const char *hex)
{
	MD5_LONG w = 0;
	for (int i = 0; i < 4; i++)
		w |= (MD5_LONG)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1])) << 8 * i;
	return w;
}

/* Goes on after the first block. */
static void go_on(const char *state, const void *text, size_t n, unsigned char out[MD5_DIGEST_LENGTH])
{
	MD5_CTX c;
	(void)MD5_Init(&c);
	c.A = take_word(state);
	c.B = take_word(state + 8);
	c.C = take_word(state + 16);
	c.D = take_word(state + 24);
	c.Nl = MD5_CBLOCK * 8;
	(void)MD5_Update(&c, text, n);
	(void)MD5_Final(out, &c);
}

bool cram_verify(struct span states, struct span challenge, struct span digest)
{
	static const char nobody[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	unsigned char inner[MD5_DIGEST_LENGTH], outer[MD5_DIGEST_LENGTH];
	const char *at = states.n == CRAM_STATES ? states.at : nobody;
	int differs = states.n != CRAM_STATES || digest.n != CRAM_DIGEST;
	go_on(at + STATE_HEX, challenge.at, challenge.n, inner);
	go_on(at, inner, sizeof inner, outer);
	for (size_t i = 0; i < sizeof outer && digest.n == CRAM_DIGEST; i++)
		differs |= (digit(digest.at[2 * i]) << 4 | digit(digest.at[2 * i + 1])) ^ outer[i];
	return differs == 0;
}
