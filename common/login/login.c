#include "login/login.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <string.h>
#include <unistd.h>

bool login_prove(const unsigned char key[LOGIN_KEY], uint32_t worker, const char *server, struct span name, unsigned char out[LOGIN_PROOF])
{
	unsigned char bytes[4 + 100 + LOGIN_NAME_MOST];
	unsigned n = 0;
	size_t server_n = strlen(server) + 1; /* with its NUL: no server and name make the same bytes as others */
	if (server_n > 100 || name.n == 0 || name.n > LOGIN_NAME_MOST)
		return false;
	store_u32(bytes, worker);
	memcpy(bytes + 4, server, server_n);
	memcpy(bytes + 4 + server_n, name.at, name.n);
	return HMAC(EVP_sha256(), key, LOGIN_KEY, bytes, 4 + server_n + name.n, out, &n) != NULL && n == LOGIN_PROOF;
}

bool login_is_proved(const unsigned char key[LOGIN_KEY], uint32_t worker, const char *server, struct span name, struct span proof)
{
	unsigned char right[LOGIN_PROOF];
	return proof.n == sizeof right && login_prove(key, worker, server, name, right) && CRYPTO_memcmp(right, proof.at, sizeof right) == 0;
}

int login_read_key(int fd, unsigned char key[LOGIN_KEY])
{
	unsigned char proof[LOGIN_PROOF];
	int error = fd < 0 ? ENOENT : pread_all(fd, key, LOGIN_KEY, 0);
	if (fd >= 0)
		(void)close(fd);
	return error != 0 ? error : login_prove(key, 0, "", SPAN_LIT("warm"), proof) ? 0 : ENOMEM;
}
