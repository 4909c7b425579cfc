/* One function per parser of outside bytes; the build makes a program of each (-DTARGET=name). */
#include "dns/dns.h"
#include "ipc/ipc.h"
#include "message/message.h"
#include "params/params.h"
#include "queuefile/queuefile.h"
#include "smtp/smtp.h"

#include <stdlib.h>
#include <string.h>

static void fuzz_command(struct span s)
{
	struct span args;
	struct mail_args m;
	struct rcpt_args r;
	struct buffer b;
	buffer_init(&b, 1 << 16);
	switch (command_parse(s, &args)) {
	case CMD_MAIL:
		if (mail_args_parse(args, &m) == REPLY_MAIL_OK)
			xtext_put_decoded(&b, m.envid);
		break;
	case CMD_RCPT:
		if (rcpt_args_parse(args, true, &r) == REPLY_RCPT_OK)
			address_put_unquoted_local(&b, &r.recipient);
		break;
	default:
		break;
	}
	buffer_free(&b);
}

static void fuzz_address(struct span s)
{
	struct address a;
	struct buffer b;
	buffer_init(&b, 1 << 16);
	if (address_parse(s, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) == 0)
		address_put_unquoted_local(&b, &a);
	struct span rest = s;
	(void)!address_parse_path(&rest, ADDRESS_UTF8 | ADDRESS_NULL, &a);
	buffer_free(&b);
}

static void fuzz_reply(struct span s)
{
	struct peer_reply r;
	peer_reply_init(&r);
	while (s.n > 0) {
		int result = peer_reply_line(&r, span_until(&s, '\n'));
		if (result == EBADMSG)
			break;
		if (result == 0)
			peer_reply_clear(&r);
	}
	peer_reply_free(&r);
}

/* Whatever comes in: what is decoded never holds an end of data when it is sent on. */
static void fuzz_data(struct span s)
{
	struct data_decoder d, again;
	struct buffer out, wire, back;
	bool start = true;
	buffer_init(&out, 1 << 20);
	buffer_init(&wire, 1 << 21);
	buffer_init(&back, 1 << 20);
	data_decoder_init(&d, s.n > 0 && (s.at[0] & 1) != 0);
	(void)data_decode(&d, s, &out);
	if (d.state == DATA_END && !(d.bare && !d.normalize)) {
		data_encode(&wire, buffer_span(&out), &start);
		buffer_puts(&wire, ".\r\n");
		data_decoder_init(&again, false);
		size_t used = data_decode(&again, buffer_span(&wire), &back);
		if (used != wire.n || again.state != DATA_END || !span_eq(buffer_span(&back), buffer_span(&out)))
			abort();
	}
	buffer_free(&out);
	buffer_free(&wire);
	buffer_free(&back);
}

static int ignore(void *context, struct span s)
{
	(void)context;
	(void)s;
	return 0;
}

static void fuzz_header(struct span s)
{
	struct header_walk w;
	struct header_field f;
	struct span rest = s;
	struct buffer b;
	header_walk_init(&w);
	header_walk(&w, (struct span){s.at, s.n / 2});
	header_walk(&w, (struct span){s.at + s.n / 2, s.n - s.n / 2});
	while (header_next(&rest, &f))
		(void)header_addresses(f.body, ignore, NULL);
	buffer_init(&b, 1 << 20);
	crlf_put(&b, s);
	buffer_free(&b);
}

static void fuzz_ipc(struct span s)
{
	uint32_t type;
	if (!take_u32(&s, &type))
		return;
	switch (type % MSG_COUNT) {
#define U32(field)
#define U64(field)
#define SPAN(field)
#define MSG(name, v, from, to, fds, fields) case MSG_##name: { struct msg_##name m; (void)!msg_##name##_decode(s, &m); break; }
#include "ipc/messages.def"
	default:
		break;
	}
	(void)!msg_admit(type & 0xff, 1, 0, R_SMTPD, R_CLEANUP);
}

static void fuzz_record(struct span s)
{
	struct record r;
	struct arena arena = {0};
	struct envelope e;
	struct fate f;
	struct result x;
	struct span fates;
	if (wait_parse(s, &r, &fates) == 0)
		(void)!envelope_parse(r.envelope, &arena, &e);
	(void)!envelope_parse(s, &arena, &e);
	while (fate_next(&s, &f))
		while (result_take(&f.results, &x))
			;
	arena_free(&arena);
}

static void fuzz_config(struct span s)
{
	struct config c;
	struct complaint why;
	if (config_parse_snapshot(s, &c, &why) == 0)
		config_free(&c);
}

static void fuzz_dns(struct span s)
{
	struct buffer b;
	size_t n;
	unsigned rcode;
	buffer_init(&b, 1 << 16);
	(void)!dns_parse_answer(s, DNS_MX, &b, &n, &rcode);
	buffer_clear(&b);
	(void)!dns_parse_answer(s, DNS_A, &b, &n, &rcode);
	buffer_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	/* a copy of exactly this size: a read past its end is seen */
	char *copy = malloc(n == 0 ? 1 : n);
	if (copy == NULL)
		return 0;
	memcpy(copy, bytes, n);
	TARGET((struct span){copy, n});
	free(copy);
	static void (*const unused[])(struct span) = {fuzz_command, fuzz_address, fuzz_reply, fuzz_data, fuzz_header, fuzz_ipc, fuzz_record, fuzz_config, fuzz_dns};
	(void)unused;
	return 0;
}
