/* login: the proof by which a process believes what a worker says of a login: an HMAC that authd makes and nobody else can, of
 * the worker's instance, the server and the name.  The key is master's, new at each start. */
#ifndef LOGIN_LOGIN_H
#define LOGIN_LOGIN_H

#include "base/base.h"

enum { LOGIN_KEY = 32, LOGIN_PROOF = 32, LOGIN_NAME_MOST = 511 };

/* False: a name or server that is too long, or no memory. */
MUST_CHECK bool login_prove(const unsigned char key[LOGIN_KEY], uint32_t worker, const char *server, struct span name, unsigned char out[LOGIN_PROOF]);
/* In constant time. */
bool login_is_proved(const unsigned char key[LOGIN_KEY], uint32_t worker, const char *server, struct span name, struct span proof);
/* Reads the key from the descriptor that master sends as "authkey", closes it, sets libcrypto up before a confinement.  0 or errno. */
MUST_CHECK int login_read_key(int fd, unsigned char key[LOGIN_KEY]);

#endif
