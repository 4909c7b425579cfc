/* One function per parser of outside bytes; the build makes a program of each (-DTARGET=name). */
#include "map/map.h"
#include "cmd/import/postfix_record.h"
#include "dns/dns.h"
#include "gss/gss.h"
#include "ipc/ipc.h"
#include "lease/lease.h"
#include "message/message.h"
#include "params/params.h"
#include "pickup/pickup.h"
#include "queuefile/queuefile.h"
#include "smtp/smtp.h"
#include "sts/sts.h"
#include "sts/tlsrpt.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A queue file: whatever it holds, each line for maildrop is one address, and the content is no longer than the file may make it. */
static void fuzz_postfix(struct span s)
{
	struct pf_envelope e = {.fault = NULL};
	buffer_init(&e.file, 1 << 20);
	buffer_init(&e.content, 1 << 20);
	pf_read_records(&e, s);
	struct span rest = buffer_span(&e.file);
	while (rest.n > 0) {
		struct address a;
		struct span line = span_until(&rest, '\n'), field = span_until(&line, ':');
		if (!span_is(field, "X-Sender") && !span_is(field, "X-Receiver"))
			abort();
		if (line.n < 3 || line.at[1] != '<' || line.at[line.n - 1] != '>')
			abort();
		struct span text = {line.at + 2, line.n - 3};
		if (text.n > 0 && address_parse(text, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0)
			abort();
	}
	buffer_free(&e.file);
	buffer_free(&e.content);
}

static void fuzz_lease(struct span s)
{
	struct lease_record r, again;
	char text[LEASE_BYTES] = "";
	/* the checksum is put right, so that what is behind it is reached */
	memcpy(text, s.at, s.n < sizeof text ? s.n : sizeof text);
	char crc[16];
	(void)snprintf(crc, sizeof crc, "%08x", crc32c(0, text, LEASE_BYTES - 10));
	memcpy(text + LEASE_BYTES - 9, crc, 8);
	if (lease_parse(s, &r) == 0 || lease_parse((struct span){text, sizeof text}, &r) == 0) {
		lease_put(text, &r);
		if (lease_parse((struct span){text, sizeof text}, &again) != 0 || !lease_same(&r, &again))
			abort();
	}
}

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

/* What stays from input to input: a configuration directory for the files that an administrator writes (it goes with
 * the process), a segment, a server. */
static struct {
	char path[32];
	int dir_fd, servers_fd, segment_fd;
	char segment[16 * SEGMENT_BLOCK];
	struct server server;
} conf = {.path = "/tmp/fuzz-conf.XXXXXX", .dir_fd = -1, .segment_fd = -1};

static void remove_conf(void)
{
	(void)unlinkat(conf.servers_fd, "default.conf", 0);
	(void)unlinkat(conf.dir_fd, "servers", AT_REMOVEDIR);
	(void)unlinkat(conf.dir_fd, "posthorn.conf", 0);
	(void)rmdir(conf.path);
}

static void write_conf(int dir_fd, const char *name, struct span s)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0 && write(fd, s.at, s.n) == (ssize_t)s.n)
		(void)close(fd);
}

static void fuzz_config_files(struct span s)
{
	struct config c;
	struct complaint why;
	if (conf.dir_fd < 0) {
		if (mkdtemp(conf.path) == NULL)
			abort();
		conf.dir_fd = open(conf.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		(void)mkdirat(conf.dir_fd, "servers", 0700);
		conf.servers_fd = openat(conf.dir_fd, "servers", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		write_conf(conf.dir_fd, "posthorn.conf", SPAN_LIT(""));
		(void)atexit(remove_conf);
	}
	write_conf(conf.servers_fd, "default.conf", s);
	if (config_load(conf.dir_fd, &c, &why) == 0)
		config_free(&c);
}

static void fuzz_config(struct span s)
{
	struct config c;
	struct complaint why;
	if (config_parse_snapshot(s, &c, &why) == 0)
		config_free(&c);
	fuzz_config_files(s);
}

static void fuzz_proxy(struct span s)
{
	struct proxy_client c;
	size_t used;
	if (proxy_parse(s, &c, &used) == 0 && (used == 0 || used > s.n))
		abort();
}

static void fuzz_sts(struct span s)
{
	struct sts_policy p;
	struct span id, host = {s.at, s.n < 40 ? s.n : 40};
	const char *why;
	if (sts_parse_policy(s, &p, &why) == 0)
		(void)sts_names_host(buffer_span(&p.mx), host);
	buffer_free(&p.mx);
	(void)sts_parse_record(s, &id);
	enum rua_kind kind;
	if (tlsrpt_parse_record(s, &id))
		while (tlsrpt_next(&id, &kind, &s, &host))
			;
}

static void fuzz_dns(struct span s)
{
	struct buffer b;
	size_t n;
	unsigned rcode;
	buffer_init(&b, 1 << 16);
	(void)!dns_parse_answer(s, DNS_MX, &b, &n, &rcode, NULL);
	buffer_clear(&b);
	(void)!dns_parse_answer(s, DNS_A, &b, &n, &rcode, &b);
	buffer_clear(&b);
	(void)!dns_parse_answer(s, DNS_TLSA, &b, &n, &rcode, NULL);
	buffer_clear(&b);
	(void)!dns_parse_answer(s, DNS_TXT, &b, &n, &rcode, NULL);
	buffer_clear(&b);
	(void)!dns_parse_answer(s, DNS_SRV, &b, &n, &rcode, NULL);
	buffer_free(&b);
}

/* A record's checksum is right, so that what lies behind the check is reached. */
static void seal_record(char *at, size_t n)
{
	static const char zero[4];
	enum { RECORD_CRC_AT = 60 };
	if (n < RECORD_HEADER)
		return;
	uint32_t length = load_u32(at + 48);
	if (length < RECORD_HEADER || length > n)
		return;
	memcpy(at, "PHRECORD", 8);
	memset(at + 8, 0, SEGMENT_RANDOM);
	uint32_t crc = crc32c(0, at, RECORD_CRC_AT);
	crc = crc32c(crc, zero, 4);
	store_u32(at + RECORD_CRC_AT, crc32c(crc, at + RECORD_HEADER, length - RECORD_HEADER));
}

/* A segment whose batches are the input, their heads' checksums right. */
static void fuzz_journal(struct span s)
{
	enum { HEAD = 72, CRC_AT = 64 };
	char *bytes = conf.segment;
	const size_t size = sizeof conf.segment;
	struct segment_reader r = {.offset = SEGMENT_BLOCK, .synced_to = SEGMENT_BLOCK};
	struct record record;
	struct arena arena = {0};
	struct envelope e;
	if (conf.segment_fd < 0)
		conf.segment_fd = memfd_create("segment", MFD_CLOEXEC);
	memset(bytes, 0, size);
	memcpy(bytes, s.at, s.n < size ? s.n : size);
	for (size_t at = 0; at < size; at += SEGMENT_BLOCK) {
		char *h = bytes + at;
		if (h[0] == 0) /* a block that begins no batch */
			continue;
		memcpy(h, "PHBATCH1", 8);
		memset(h + 8, 0, SEGMENT_RANDOM);
		store_u32(h + CRC_AT, crc32c(0, h, CRC_AT));
		seal_record(h + HEAD, size - at - HEAD);
	}
	if (pwrite(conf.segment_fd, bytes, size, SEGMENT_BLOCK) != (ssize_t)size)
		return;
	r.segment = (struct segment){.fd = conf.segment_fd, .seq = 1, .size = SEGMENT_BLOCK + size};
	buffer_init(&r.batch, 1 << 20);
	int error;
	while ((error = segment_reader_next(&r, r.segment.size, &record)) == 0 || error == EBADMSG)
		if (error == 0 && envelope_parse(record.envelope, &arena, &e) == 0)
			arena_free(&arena);
	arena_free(&arena);
	buffer_free(&r.batch);
}

/* A file of Pickup: its X- lines, its header, the message that it becomes. */
static void fuzz_pickup(struct span s)
{
	struct pickup p = {.server = &conf.server};
	struct place place = {.maildrop = false};
	struct qid_maker ids = {.suffix = "000000"};
	struct qid id = qid_make(&ids, 1);
	struct draft d = {.reason = ""};
	conf.server.p.fqdn = "mx.example.test";
	conf.server.p.default_domain = "example.test";
	conf.server.p.masquerade_domain = "masked.test";
	conf.server.p.listen = "*:25";
	buffer_init(&d.content, 1 << 22);
	buffer_init(&d.envelope, 1 << 22);
	struct arena arena = {0};
	struct envelope e;
	if (draft_make(&p, &place, &id, s, 0, &d) == 0 && envelope_parse(buffer_span(&d.envelope), &arena, &e) == 0)
		(void)!draft_screened(&conf.server, &arena, &e, (struct span){"", 0}, &d);
	arena_free(&arena);
	buffer_free(&d.content);
	buffer_free(&d.envelope);
}

/* What was converted holds seven bits, and has nothing left to convert. */
static void fuzz_convert(struct span s)
{
	struct buffer once, twice;
	buffer_init(&once, 1 << 22);
	buffer_init(&twice, 1 << 22);
	if (convert_to_seven_bits(&once, s) == 0) {
		for (size_t i = 0; i < once.n; i++)
			if ((once.at[i] & 0x80) != 0 || once.at[i] == '\0')
				abort();
		if (convert_to_seven_bits(&twice, buffer_span(&once)) != 0 || !span_eq(buffer_span(&once), buffer_span(&twice)))
			abort();
	}
	buffer_free(&once);
	buffer_free(&twice);
}

static bool fuzz_is_own(const void *context, struct span domain)
{
	(void)context;
	return span_case_is(domain, "own.test");
}

/* A header that was rewritten once needs no more, and has as many lines as before. */
static void fuzz_rewrite(struct span s)
{
	struct rewrite r = {.default_domain = "own.test", .masquerade = "masked.test", .is_own = fuzz_is_own};
	struct buffer once, twice;
	buffer_init(&once, 1 << 22);
	buffer_init(&twice, 1 << 22);
	size_t n = rewrite_header(&once, s, &r);
	(void)rewrite_header(&twice, buffer_span(&once), &r);
	if (n > s.n || (buffer_ok(&once) && !span_eq(buffer_span(&once), buffer_span(&twice))))
		abort();
	buffer_free(&once);
	buffer_free(&twice);
}

/* What users write into a .forward, and administrators into tables: items lie inside, nothing is read twice, lines are counted. */
static void fuzz_alias(struct span s)
{
	struct span rest = s;
	struct arena arena = {0};
	struct alias_item item;
	struct buffer key, value;
	struct complaint why = {.file = ""};
	size_t before = rest.n + 1;
	while (rest.n < before) {
		before = rest.n;
		int more = alias_next(&rest, &item, &arena);
		if (more <= 0)
			break;
		if (item.text.n == 0 || item.text.n > s.n || rest.n > before)
			abort();
	}
	arena_free(&arena);
	for (int aliases = 0; aliases <= 1; aliases++) {
		unsigned line = 0, lines = 1;
		for (size_t i = 0; i < s.n; i++)
			lines += s.at[i] == '\n';
		buffer_init(&key, MAP_KEY_MOST);
		buffer_init(&value, MAP_VALUE_MOST);
		rest = s;
		while (map_text_next(&rest, &line, aliases == 1, &key, &value, &why) > 0)
			if (line > lines || key.n == 0 || value.n == 0)
				abort();
		for (size_t nth = 0; map_key(aliases == 1 ? KEYS_ALIAS : KEYS_ADDRESS, s, SPAN_LIT("d.example"), "+", nth, &key); nth++)
			if (nth > 2)
				abort();
		buffer_free(&key);
		buffer_free(&value);
	}
}

static void fuzz_ntlm(struct span s)
{
	(void)gss_ntlm_challenge_is_sound(s);
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
	static void (*const unused[])(struct span) = {fuzz_command, fuzz_address, fuzz_reply, fuzz_data, fuzz_header, fuzz_ipc, fuzz_record, fuzz_config, fuzz_dns, fuzz_journal, fuzz_pickup, fuzz_convert, fuzz_rewrite, fuzz_alias, fuzz_proxy, fuzz_sts, fuzz_ntlm};
	(void)unused;
	return 0;
}
