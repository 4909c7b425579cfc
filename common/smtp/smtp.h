/* smtp: the syntax of SMTP as pure functions: addresses, commands, replies, data. */
#ifndef SMTP_SMTP_H
#define SMTP_SMTP_H

#include "base/base.h"
#include <sys/socket.h>

/* A mailbox of RFC 5321 4.1.2, known to be well formed.  Spans point into the parsed text. */
struct address {
	struct span local;  /* as written, quotes included; empty with an empty domain: "<>" */
	struct span domain; /* name or [literal]; empty only for <postmaster> and bare names */
	bool utf8;          /* holds characters beyond ASCII (RFC 6531) */
};

enum address_flags {
	ADDRESS_UTF8 = 1,      /* take UTF-8 (SMTPUTF8 was asked for) */
	ADDRESS_NO_DOMAIN = 2, /* a local part alone is good (<postmaster>, local submission) */
	ADDRESS_NULL = 4,      /* <> is good */
};

/* Parses a whole mailbox.  0 or EINVAL; *out untouched on failure. */
MUST_CHECK int address_parse(struct span text, unsigned flags, struct address *out);
/* Parses "<path>" at the front of *rest, source route dropped (RFC 5321 F.2). */
MUST_CHECK int address_parse_path(struct span *rest, unsigned flags, struct address *out);
bool address_is_null(const struct address *a);
bool text_is_ascii(struct span s);
/* The A-label form of a domain (RFC 5891, IDNA2008).  0, or EINVAL: it has none. */
MUST_CHECK int domain_to_ascii(struct span domain, char out[256]);
/* A host name or address literal as in EHLO (RFC 5321 4.1.1.1); underscores taken. */
bool domain_is_valid(struct span name, bool utf8);
bool literal_is_valid(struct span literal); /* with its brackets */
/* The local part without quotes and backslashes: two spellings of one mailbox compare equal. */
void address_put_unquoted_local(struct buffer *b, const struct address *a);

/* ---- commands ---- */
enum phase { PHASE_START = 1, PHASE_GREETED = 2, PHASE_MAIL = 4, PHASE_RCPT = 8, PHASE_CHUNKS = 16, PHASE_ANY = 31 };
enum command_flag {
	CMD_FLUSH = 1, /* its reply leaves at once: RFC 2920 3.2 */
	CMD_ALONE = 2, /* refused if input is already waiting behind it: RFC 2920 3.1, RFC 3207 4.2 */
	CMD_NOARG = 4, /* takes no argument */
	CMD_JUNK = 8,  /* does no work: counts for junk_command_limit */
	CMD_CLEAR = 32, /* good without TLS where tls = require */
	CMD_SWALLOW = 16, /* bytes follow it whatever the reply: RFC 3030 2 */
};
enum command {
#define COMMAND(verb, phases, flags, source) CMD_##verb,
#include "smtp/commands.def"
	CMD_COUNT
};
struct command_row {
	const char *verb;
	unsigned phases, flags;
	const char *source;
};
const struct command_row *command_row(enum command c);
/* Splits a line (without CRLF) into verb and arguments.  CMD_COUNT: no such command. */
enum command command_parse(struct span line, struct span *args);

/* ---- replies ---- */
enum reply {
#define REPLY(name, code, enhanced, text) REPLY_##name,
#include "smtp/replies.def"
	REPLY_COUNT
};
struct reply_row {
	const char *name;
	int code;
	const char *enhanced, *text;
};
const struct reply_row *reply_row(enum reply r);
/* One reply line with CRLF; detail (may be empty) is appended to the row's text, controls removed. */
void reply_put(struct buffer *out, enum reply r, struct span detail);

/* ---- MAIL and RCPT ---- */
enum body_type { BODY_7BIT, BODY_8BITMIME, BODY_BINARYMIME };
enum dsn_ret { RET_NONE, RET_FULL, RET_HDRS };
enum dsn_notify { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 };

struct mail_args {
	struct address sender;
	uint64_t size; /* RFC 1870; 0: not said */
	enum body_type body;
	bool smtputf8, requiretls;
	enum dsn_ret ret;
	struct span envid; /* xtext as given */
};
struct rcpt_args {
	struct address recipient;
	unsigned notify;   /* dsn_notify bits; 0: not said */
	struct span orcpt; /* "type;xtext" as given */
};
/* REPLY_MAIL_OK / REPLY_RCPT_OK, else the refusal. */
enum reply mail_args_parse(struct span args, struct mail_args *out);
enum reply rcpt_args_parse(struct span args, bool smtputf8, struct rcpt_args *out);
bool xtext_is_valid(struct span s);             /* RFC 3461 4 */
void xtext_put_decoded(struct buffer *b, struct span s); /* controls become '?' */
void xtext_put(struct buffer *b, struct span s);

/* ---- the body of DATA ---- */
enum data_state { DATA_LINE_START, DATA_IN_LINE, DATA_CR, DATA_DOT, DATA_DOT_CR, DATA_END };
struct data_decoder {
	enum data_state state;
	bool normalize; /* bare_newline = normalize: bare CR, LF become CRLF in the content */
	bool bare;      /* a bare CR or LF was seen: RFC 5321 2.3.8 */
};
void data_decoder_init(struct data_decoder *d, bool normalize);
/* Decodes until the end of data or of the input; the end is CRLF "." CRLF and nothing else.
 * Returns how many bytes were used; d->state tells the end.  out NULL: content is thrown away. */
size_t data_decode(struct data_decoder *d, struct span in, struct buffer *out);
/* Dot-stuffs content; *line_start carries the state from piece to piece (true at the start). */
void data_encode(struct buffer *out, struct span content, bool *line_start);

/* ---- the PROXY protocol ---- */
struct proxy_client {
	struct sockaddr_storage addr;
	socklen_t addr_n; /* 0: the proxy says nothing of its client */
};
/* The header at the front of in.  0: *used bytes are it; EAGAIN: more is needed; EBADMSG: it is none. */
MUST_CHECK int proxy_parse(struct span in, struct proxy_client *out, size_t *used);

/* ---- replies of a peer ---- */
struct peer_reply {
	int code;              /* 200..599 */
	struct span enhanced;  /* "5.1.1" or empty */
	struct buffer text;    /* lines joined by a blank, controls escaped */
	unsigned lines;
};
void peer_reply_init(struct peer_reply *r);
void peer_reply_clear(struct peer_reply *r);
void peer_reply_free(struct peer_reply *r);
/* Takes one line without CRLF.  0: complete, EAGAIN: more lines follow, EBADMSG: not SMTP. */
MUST_CHECK int peer_reply_line(struct peer_reply *r, struct span line);
/* "X.Y.Z" at the front of s, class fitting code; empty when there is none (RFC 3463 2). */
struct span enhanced_find(struct span s, int code);

#endif
