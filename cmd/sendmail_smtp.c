/* -bs: SMTP on standard input and output, for programs that speak it to a pipe. */
#include "cmd/sendmail.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

struct dialog {
	struct sendmail *s;
	enum phase phase;
	struct buffer file; /* X- lines, then the message */
	bool utf8;
};

static void say(enum reply r)
{
	struct buffer b;
	buffer_init(&b, 1000);
	reply_put(&b, r, (struct span){"", 0});
	(void)fwrite(b.at, 1, b.n, stdout);
	(void)fflush(stdout);
	buffer_free(&b);
}

static void reset(struct dialog *d)
{
	buffer_clear(&d->file);
	if (d->phase > PHASE_GREETED)
		d->phase = PHASE_GREETED;
}

static void put_address(struct buffer *b, const char *name, const struct address *a)
{
	buffer_printf(b, "%s: <%.*s%s%.*s>\n", name, SPAN_ARG(a->local), a->domain.n > 0 ? "@" : "", SPAN_ARG(a->domain));
}

static void take_data(struct dialog *d)
{
	struct data_decoder decoder;
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	say(REPLY_DATA_GO);
	data_decoder_init(&decoder, true);
	while (decoder.state != DATA_END && (n = getline(&line, &size, stdin)) > 0)
		(void)data_decode(&decoder, (struct span){line, (size_t)n}, &d->file);
	free(line);
	if (decoder.state != DATA_END)
		return;
	if (!buffer_ok(&d->file))
		say(REPLY_TOO_BIG);
	else
		say(sendmail_store(d->s, buffer_span(&d->file)) == EX_OK ? REPLY_OK : REPLY_LOCAL_ERROR);
	reset(d);
}

static void take_mail(struct dialog *d, struct span args)
{
	struct mail_args m;
	enum reply r = mail_args_parse(args, &m);
	if (r == REPLY_MAIL_OK && m.requiretls) /* there is no TLS here: not offered, and a draft has no place for it */
		r = REPLY_PARAM_UNKNOWN;
	if (r == REPLY_MAIL_OK) {
		put_address(&d->file, "X-Sender", &m.sender);
		d->utf8 = m.smtputf8;
		d->phase = PHASE_MAIL;
	}
	say(r);
}

static void take_rcpt(struct dialog *d, struct span args)
{
	struct rcpt_args a;
	enum reply r = rcpt_args_parse(args, d->utf8, &a);
	if (r == REPLY_RCPT_OK) {
		put_address(&d->file, "X-Receiver", &a.recipient);
		d->phase = PHASE_RCPT;
	}
	say(r);
}

static bool run(struct dialog *d, struct span line)
{
	struct span args;
	enum command c = command_parse(line, &args);
	if (c == CMD_COUNT || c == CMD_STARTTLS || c == CMD_AUTH || c == CMD_BDAT || c == CMD_ETRN || c == CMD_ATRN) {
		say(c == CMD_COUNT ? REPLY_UNKNOWN : REPLY_NOT_IMPLEMENTED);
		return true;
	}
	if ((command_row(c)->phases & (unsigned)d->phase) == 0) {
		say(REPLY_SEQUENCE);
		return true;
	}
	switch (c) {
	case CMD_EHLO: case CMD_HELO:
		reset(d);
		d->phase = PHASE_GREETED;
		(void)printf("250 %s\r\n", d->s->cli.config.servers[0].p.fqdn);
		(void)fflush(stdout);
		break;
	case CMD_MAIL: take_mail(d, args); break;
	case CMD_RCPT: take_rcpt(d, args); break;
	case CMD_DATA: take_data(d); break;
	case CMD_RSET: reset(d); say(REPLY_OK); break;
	case CMD_NOOP: say(REPLY_OK); break;
	case CMD_HELP: say(REPLY_HELP); break;
	case CMD_VRFY: say(REPLY_VRFY); break;
	case CMD_EXPN: say(REPLY_NOT_IMPLEMENTED); break;
	case CMD_QUIT: say(REPLY_BYE); return false;
	case CMD_STARTTLS: case CMD_AUTH: case CMD_BDAT: case CMD_ETRN: case CMD_ATRN: case CMD_XCLIENT: case CMD_COUNT: break;
	}
	return true;
}

int sendmail_smtp(struct sendmail *s)
{
	struct dialog d = {.s = s, .phase = PHASE_START};
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	bool more = true;
	buffer_init(&d.file, 80 * 1024 * 1024);
	(void)printf("220 %s ESMTP Posthorn\r\n", s->cli.config.servers[0].p.fqdn);
	(void)fflush(stdout);
	while (more && (n = getline(&line, &size, stdin)) > 0) {
		while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
			n--;
		more = run(&d, (struct span){line, (size_t)n});
	}
	free(line);
	buffer_free(&d.file);
	return EX_OK;
}
