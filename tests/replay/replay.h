/* replay: plays a conversation written as text against a program's session code, in memory, by a clock
 * that only the script moves. */
#ifndef REPLAY_REPLAY_H
#define REPLAY_REPLAY_H

#include "base/base.h"
#include "ipc/ipc.h"
#include "params/params.h"
#include <event2/event.h>
#include <openssl/ssl.h>

enum { REPLAY_START_MS = 1000000 };

/* One script as it runs.  A script runs in a process of its own. */
struct replay {
	const char *path;
	unsigned line;
	struct event_base *base;
	struct config config;      /* made of the script's param and domain lines when the session begins */
	struct buffer config_text;
	int fd;                    /* the script's end of the connection; -1: there is none */
	bool ended;                /* the program closed its end */
	bool deaf;                 /* the script reads nothing for now */
	SSL *ssl;
	struct buffer heard;       /* what the program said and no line took yet */
	struct buffer last_reply;  /* lines of the last whole multi-line reply that was taken */
};

/* A word of the script's language.  args is the rest of its line. */
struct replay_verb {
	const char *word;
	void (*run)(struct replay *r, struct span args);
};

/* What a program under test brings. */
struct replay_side {
	const struct replay_verb *verbs;
	size_t verbs_n;
	void (*begin)(struct replay *r);  /* the configuration is known: make the program's state */
	void (*after)(struct replay *r);  /* at the script's end: nothing unexpected may be left */
	bool (*honest)(void);             /* memory failed on the way: was nothing promised that was not done? */
	/* The table whose rows the scripts together must use: NULL after the last, "": not asked for. */
	const char *(*row_name)(size_t i);
	bool client;                      /* the script speaks as the client: C: says, S: expects */
};
/* Runs each script named on the command line; returns the number of failed ones, at most 100. */
int replay_main(int argc, char **argv, const struct replay_side *side);

/* Ends the script as failed, with its place. */
void replay_fail(const struct replay *r, const char *format, ...) PRINTF_LIKE(2, 3) __attribute__((noreturn));
/* Lets the program run until it waits for something; reads what it says. */
void replay_settle(struct replay *r);
void replay_say(struct replay *r, struct span bytes);
/* The next line that the program says. */
void replay_expect(struct replay *r, struct span pattern);
/* Row i of the program's table was used. */
void replay_cover(size_t i);
/* Text with * for anything. */
bool replay_matches(struct span pattern, struct span text);
/* "a\r\n"*3 "b": quoted pieces with escapes, each perhaps repeated, into out. */
void replay_quoted(const struct replay *r, struct span text, struct buffer *out);
/* A connected pair: *mine is the script's end, the result is the program's. */
int replay_pair(struct replay *r, int *mine);
/* A channel between the program (me) and a neighbour that the script's side plays: near is the program's end. */
struct replay_link {
	enum role me, peer;
	const struct channel_owner *near_owner, *far_owner;
	void *near_program, *far_program;
	struct channel *near, *far;
};
void replay_link(const struct replay *r, struct replay_link *l);
/* A self-signed pair for the server's side; the caller frees both. */
void replay_make_pair(const struct replay *r, struct buffer *certificate, struct buffer *key_text);
/* Shakes hands over the script's end; as_server: the script is the server. */
SSL_CTX *replay_server_context(const struct replay *r); /* with a pair of its own */
void replay_handshake(struct replay *r, SSL_CTX *context, bool as_server);
void replay_end_handshake(struct replay *r);

/* clock.c: virtual time; memory that fails. */
void replay_fail_allocation(unsigned long nth); /* counted from now; 0: none fails */
unsigned long replay_allocations(void);         /* since then */
int64_t replay_now_ms(void);
void replay_advance(struct replay *r, int64_t ms);
bool replay_fire_due(void); /* false: no timer was due */

#endif
