/* message: the header of a mail message as pure functions. */
#ifndef MESSAGE_MESSAGE_H
#define MESSAGE_MESSAGE_H

#include "base/base.h"
#include "smtp/smtp.h"

/* What a walk over a header notices. */
enum header_seen {
	SEEN_DATE = 1, SEEN_MESSAGE_ID = 2, SEEN_FROM = 4, SEEN_SENDER = 8, SEEN_TO = 16, SEEN_CC = 32,
	SEEN_BCC = 64, SEEN_RETURN_PATH = 128, SEEN_RESENT_FROM = 256, SEEN_SUBJECT = 512,
};

/* Streaming: pieces of any size, constant memory. */
struct header_walk {
	unsigned seen;     /* header_seen bits */
	unsigned received; /* how many Received fields: RFC 5321 6.3 */
	bool done;         /* the empty line, or a line that is no field, has come */
	bool eight_bit;    /* a byte beyond ASCII anywhere so far, body included */
	bool tls_optional; /* TLS-Required: No (RFC 8689 5) */
	/* internal: the start of the present line */
	char line[24];
	size_t line_n;
	bool named;        /* the present line's field name has been dealt with */
};
void header_walk_init(struct header_walk *w);
void header_walk(struct header_walk *w, struct span piece);

/* A field of a header that is whole in memory. */
struct header_field {
	struct span name, body, whole; /* body: after the colon, folds included, without the last CRLF */
};
/* False at the end of the header; *rest is then the body (after the empty line, if any). */
bool header_next(struct span *rest, struct header_field *f);
/* Calls take(context, address text without angle brackets and comments) for each mailbox of an
 * address list (RFC 5322 3.4, groups included).  0, or EINVAL when a piece is no address. */
int header_addresses(struct span body, int (*take)(void *context, struct span mailbox), void *context);

/* Does a Delivered-To field name this recipient?  The message has been here before. */
bool header_has_delivered_to(struct span content, struct span recipient);

/* What becomes of addresses in the header of a message's first hop (MISSION D5, E1). */
struct rewrite {
	const char *default_domain; /* for addresses without a domain */
	const char *masquerade;     /* in From, Sender, Reply-To instead of an own domain; "": nothing is masked */
	bool (*is_own)(const void *context, struct span domain);
	const void *context;
	/* Instead of all that: the address as it shall be, empty: as it is.  NULL: not asked. */
	struct span (*replace)(void *context, struct span address);
	void *replace_context;
};
/* Appends the field, rewritten where it holds addresses; what can't be read as an address stays as it is. */
void rewrite_field(struct buffer *out, const struct header_field *f, const struct rewrite *r);
/* Appends all fields of the header that content begins with; returns how many bytes of content they were. */
size_t rewrite_header(struct buffer *out, struct span content, const struct rewrite *r);

/* Appends the message with every body that holds 8-bit or binary bytes in quoted-printable (text) or base64 (all else), so
 * that seven bits and short lines carry it (RFC 6152 3).  0; EBADMSG: it can't be: such bytes in a header, in what is signed
 * (RFC 1847 2.1), or too many levels; ENOMEM. */
MUST_CHECK int convert_to_seven_bits(struct buffer *out, struct span content);

void date_put(struct buffer *b, int64_t wall_s); /* RFC 5322 3.3, local offset */

struct received {
	struct span helo, client_name, client_address; /* empty client_address: no peer, local origin */
	struct span client_remark;                     /* after the address; empty: none */
	struct span by, protocol, tls, id, recipient;  /* recipient: only when there is exactly one */
	struct span local_user;                        /* local origin: who */
	int64_t wall_s;
};
void received_put(struct buffer *b, const struct received *r); /* a whole field with CRLF */

/* Lines to CRLF: LF alone and CR LF both end a line (files of this machine, not the wire).
 * CR elsewhere is kept.  The last line gets an end. */
void crlf_put(struct buffer *b, struct span text);

#endif
