/* smtp's conversations, played: the script is the peer; qmgr, resolver and the network are played here. */
#include "replay.h"
#include "smtp_names.h"
#include "smtp/smtp_agent.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "smtp/events.def"
#undef EVENT
};

enum { PEERS_MOST = 32, WORDS_MOST = 64 };

/* What the network does at an address, or DNS with a name. */
struct fact {
	char *key, *value;
};

/* A connection that the agent made. */
struct peer {
	char address[80];
	int fd;
	bool ended;
	SSL *ssl;
	struct buffer heard;
};

static struct side {
	struct agent agent;
	struct channel *qmgr, *resolver, *authd, *sts, *qmgr_near; /* all but the last: the far ends */
	uint64_t login;                  /* the last that authd was asked about */
	char login_about[700];
	struct fact network[WORDS_MOST], names[WORDS_MOST];
	size_t network_n, names_n;
	struct peer peers[PEERS_MOST];
	size_t peers_n, peers_taken, present;
	struct buffer verdicts;          /* lines */
	struct buffer content;
	uint64_t deliveries;
	struct buffer envelopes[WORDS_MOST]; /* by delivery */
	bool no_confirm, dns_holds, sts_holds;
	struct qid_maker ids;
	SSL_CTX *tls;
	struct replay *replay;
} side;

static const struct fact *find_fact(const struct fact *list, size_t n, struct span key)
{
	for (size_t i = n; i > 0; i--)
		if (span_is(key, list[i - 1].key))
			return &list[i - 1];
	return NULL;
}

/* ---- the network: connect() is led here by the linker ---- */

int __real_connect(int fd, const struct sockaddr *sa, socklen_t n);
int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t n);

/* A descriptor that never becomes writable. */
static int mute_fd(void)
{
	static const char zeros[65536];
	int ends[2];
	if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0)
		return -1;
	while (write(ends[1], zeros, sizeof zeros) > 0)
		;
	return ends[1];
}

int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t n)
{
	char text[INET6_ADDRSTRLEN] = "", address[80];
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)sa;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)sa;
	bool four = sa->sa_family == AF_INET;
	(void)inet_ntop(sa->sa_family, four ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr, text, sizeof text);
	(void)snprintf(address, sizeof address, "%s:%u", text, ntohs(four ? v4->sin_port : v6->sin6_port));
	const struct fact *f = find_fact(side.network, side.network_n, span_of(text));
	bool mute = f != NULL && strcmp(f->value, "mute") == 0;
	struct peer *p = &side.peers[side.peers_n++];
	*p = (struct peer){.fd = -1};
	buffer_init(&p->heard, 1 << 26);
	(void)snprintf(p->address, sizeof p->address, "%s", address);
	if (f != NULL && strcmp(f->value, "refused") == 0) {
		errno = ECONNREFUSED;
		return -1;
	}
	int end = mute ? mute_fd() : replay_pair(side.replay, &p->fd);
	(void)dup3(end, fd, O_CLOEXEC);
	(void)close(end);
	errno = EINPROGRESS;
	return -1;
}

/* The script speaks on this connection from now on. */
static void select_peer(struct replay *r, size_t i)
{
	struct peer *old = &side.peers[side.present], *p = &side.peers[i];
	if (side.peers_taken > 0)
		*old = (struct peer){.fd = r->fd, .ended = r->ended, .ssl = r->ssl, .heard = r->heard};
	r->fd = p->fd;
	r->ended = p->ended;
	r->ssl = p->ssl;
	r->heard = p->heard;
	side.present = i;
}

static void run_connect(struct replay *r, struct span args)
{
	replay_settle(r);
	if (side.peers_taken == side.peers_n)
		replay_fail(r, "no connection was made");
	if (r->heard.n > 0)
		replay_fail(r, "more was said on the connection before: %.*s", SPAN_ARG(buffer_span(&r->heard)));
	struct peer *p = &side.peers[side.peers_taken];
	if (!replay_matches(args, span_of(p->address)))
		replay_fail(r, "the connection was to %s", p->address);
	select_peer(r, side.peers_taken);
	side.peers_taken++;
}

static void run_peer(struct replay *r, struct span args)
{
	uint64_t i;
	if (parse_u64(args, side.peers_taken, &i) != 0 || i == 0)
		replay_fail(r, "which connection?");
	select_peer(r, i - 1);
}

static void add_fact(const struct replay *r, struct fact *list, size_t *n, struct span key, struct span value)
{
	list[*n] = (struct fact){.key = span_dup(key), .value = span_dup(value)};
	if (list[*n].key == NULL || list[*n].value == NULL)
		replay_fail(r, "not enough memory");
	(*n)++;
}

/* network ADDRESS refused | mute | open */
static void run_network(struct replay *r, struct span args)
{
	struct span address = span_word(&args, " "), value = span_word(&args, " ");
	add_fact(r, side.network, &side.network_n, address, value);
}

/* ---- DNS ---- */

static int on_query(struct channel *c, struct message *m)
{
	HANDLE(c, m, dns_query, q);
	char key[400];
	struct buffer records;
	const char *kind = q.kind == DNS_MX ? "mx" : q.kind == DNS_A ? "a" : q.kind == DNS_TLSA ? "tlsa" : "aaaa";
	if (side.dns_holds)
		return 0;
	(void)snprintf(key, sizeof key, "%s %.*s", kind, SPAN_ARG(q.name));
	const struct fact *f = find_fact(side.names, side.names_n, span_of(key));
	buffer_init(&records, 1 << 16);
	enum dns_status status = f == NULL ? DNS_NODATA : replay_put_records((enum dns_kind)q.kind, span_of(f->value), &records);
	send_dns_answer(c, (struct msg_dns_answer){.serial = q.serial, .status = status, .records = buffer_span(&records)}, -1);
	buffer_free(&records);
	return 0;
}

/* dns KIND NAME records */
static void run_dns(struct replay *r, struct span args)
{
	char key[400];
	struct span kind = span_word(&args, " "), name = span_word(&args, " ");
	(void)snprintf(key, sizeof key, "%.*s %.*s", SPAN_ARG(kind), SPAN_ARG(name));
	add_fact(r, side.names, &side.names_n, span_of(key), span_trim(args));
}

static struct channel *link_to(struct replay *r, enum role role, struct channel **far);

static int on_policy(struct channel *c, struct message *m)
{
	HANDLE(c, m, sts_query, q);
	char key[400];
	struct msg_sts_answer answer = {.serial = q.serial, .mode = STS_NONE};
	struct buffer mx;
	(void)snprintf(key, sizeof key, "sts %.*s", SPAN_ARG(q.domain));
	const struct fact *f = find_fact(side.names, side.names_n, span_of(key));
	struct span rest = span_of(f == NULL ? "none" : f->value), mode = span_word(&rest, " "), host;
	if (side.sts_holds)
		return 0;
	buffer_init(&mx, 1 << 16);
	while (answer.mode < STS_UNKNOWN && !span_is(mode, sts_mode_name((enum sts_mode)answer.mode)))
		answer.mode++;
	while ((host = span_word(&rest, " ")).n > 0)
		buffer_put_lspan(&mx, host);
	answer.mx = buffer_span(&mx);
	send_sts_answer(c, answer, -1);
	buffer_free(&mx);
	return 0;
}

/* sts holds | dies | returns; dns sts DOMAIN MODE HOSTS says what it knows */
static void run_sts(struct replay *r, struct span args)
{
	side.sts_holds = span_is(args, "holds");
	if (span_is(args, "dies")) {
		channel_close(side.sts);
		side.sts = NULL;
	} else if (span_is(args, "returns")) {
		side.agent.sts = link_to(r, R_STS, &side.sts);
	}
	replay_settle(r);
}

/* resolver holds | dies */
static void run_resolver(struct replay *r, struct span args)
{
	side.dns_holds = true;
	if (span_is(args, "dies")) {
		channel_close(side.resolver);
		side.resolver = NULL;
	}
	replay_settle(r);
}

/* ---- qmgr ---- */

static int on_verdict(struct channel *c, struct message *m)
{
	HANDLE(c, m, verdict, v);
	static const char *const words[] = {[OUTCOME_SENT] = "sent", [OUTCOME_FAILED] = "failed", [OUTCOME_DEFERRED] = "deferred",
		[OUTCOME_REMOVED] = "removed", [OUTCOME_PASSED] = "passed"};
	struct arena arena = {0};
	struct envelope e;
	struct result result;
	if (v.delivery > side.deliveries || envelope_parse(buffer_span(&side.envelopes[v.delivery]), &arena, &e) != 0)
		return EBADMSG;
	while (result_take(&v.results, &result))
		buffer_printf(&side.verdicts, "%s<%.*s> %s %u %.*s %.*s\n", v.down ? "down " : "", SPAN_ARG(e.rcpts[result.index].address),
			words[result.outcome], result.code, SPAN_ARG(result.enhanced), SPAN_ARG(result.text));
	arena_free(&arena);
	if (!side.no_confirm)
		send_confirm(c, (struct msg_confirm){.delivery = v.delivery}, -1);
	return 0;
}

static int on_holds(struct channel *c, struct message *m)
{
	HANDLE(c, m, holds, holds);
	buffer_printf(&side.verdicts, "holds %zu bytes\n", holds.deliveries.n);
	return 0;
}

static int on_prove_begin(struct channel *c, struct message *m)
{
	HANDLE(c, m, prove_begin, b);
	side.login = b.serial;
	(void)snprintf(side.login_about, sizeof side.login_about, "begin '%.*s' %u %.*s%s", SPAN_ARG(b.domain), b.mechanisms, SPAN_ARG(b.host), b.exporter.n > 0 ? " bound" : "");
	return 0;
}

static int on_prove_step(struct channel *c, struct message *m)
{
	HANDLE(c, m, prove_step, s);
	(void)snprintf(side.login_about, sizeof side.login_about, "step %.*s", SPAN_ARG(s.challenge));
	return 0;
}

static int on_prove_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, prove_end, e);
	(void)snprintf(side.login_about, sizeof side.login_about, "end");
	return 0;
}

static void far_gone(struct channel *c, int reason)
{
	struct channel **far[] = {&side.qmgr, &side.resolver, &side.authd, &side.sts};
	for (size_t i = 0; i < COUNT_OF(far); i++)
		if (*far[i] == c)
			*far[i] = NULL;
}

static const struct channel_owner far_owner = {
	.handlers = {[MSG_verdict] = on_verdict, [MSG_holds] = on_holds, [MSG_dns_query] = on_query, [MSG_sts_query] = on_policy,
		[MSG_prove_begin] = on_prove_begin, [MSG_prove_step] = on_prove_step, [MSG_prove_end] = on_prove_end}, .gone = far_gone};

static void near_gone(struct channel *c, int reason)
{
	struct agent *a = &side.agent;
	if (c == a->resolver) {
		a->resolver = NULL;
		hop_resolver_gone(a, false);
	}
	if (c == a->sts) {
		a->sts = NULL;
		hop_resolver_gone(a, true);
	}
	if (c == a->authd) {
		auth_gone(a);
		return;
	}
	for (struct job *j = a->jobs; j != NULL; j = j->next_all)
		if (j->qmgr == c)
			j->qmgr = NULL;
}

static const struct channel_owner near_owner = {
	.handlers = {[MSG_deliver] = job_on_deliver, [MSG_content_part] = job_on_part, [MSG_confirm] = job_on_confirm, [MSG_dns_answer] = hop_on_answer,
		[MSG_prove_answer] = auth_on_answer, [MSG_sts_answer] = hop_on_policy},
	.gone = near_gone,
};

static struct channel *link_to(struct replay *r, enum role role, struct channel **far)
{
	struct replay_link l = {.me = R_SMTP, .peer = role, .near_owner = &near_owner, .far_owner = &far_owner, .near_program = &side.agent, .far_program = &side};
	replay_link(r, &l);
	*far = l.far;
	return l.near;
}

/* qmgr dies | returns | keeps its confirmations */
static void run_qmgr(struct replay *r, struct span args)
{
	if (span_is(args, "dies")) {
		channel_close(side.qmgr);
		side.qmgr = NULL;
	} else if (span_is(args, "returns")) {
		side.qmgr_near = link_to(r, R_QMGR, &side.qmgr);
		job_tell_again(&side.agent, side.qmgr_near, 0);
	} else {
		side.no_confirm = true;
	}
	replay_settle(r);
}

/* authd asked WORDS | says first|goes|done MECHANISM "BYTES" | fails WORDS | dies | returns */
static void run_authd(struct replay *r, struct span args)
{
	struct span what = span_word(&args, " ");
	struct msg_prove_answer answer = {.serial = side.login, .status = PROVE_GOES_ON};
	struct buffer b;
	uint64_t bit = 0;
	replay_settle(r);
	buffer_init(&b, 1 << 16);
	if (side.authd == NULL && !span_is(what, "asked") && !span_is(what, "returns"))
		replay_fail(r, "there is no authd");
	if (span_is(what, "asked")) {
		if (!span_eq(span_trim(args), span_of(side.login_about)))
			replay_fail(r, "the last word to it: %s", side.login_about);
		side.login_about[0] = '\0';
	} else if (span_is(what, "dies")) {
		channel_close(side.authd);
		side.authd = NULL;
	} else if (span_is(what, "returns")) {
		side.agent.authd = link_to(r, R_AUTHD, &side.authd);
	} else if (span_is(what, "fails")) {
		answer.status = PROVE_FAILED;
		answer.text = span_trim(args);
		send_prove_answer(side.authd, answer, -1);
	} else {
		struct span how = span_word(&args, " ");
		if (parse_u64(span_word(&args, " "), MECHANISM_NTLM, &bit) != 0)
			replay_fail(r, "which mechanism?");
		replay_quoted(r, span_trim(args), &b);
		answer.mechanism = (uint32_t)bit;
		answer.first = span_is(how, "first") || span_is(how, "all");
		answer.status = span_is(how, "done") || span_is(how, "all") ? PROVE_DONE : PROVE_GOES_ON;
		answer.text = buffer_span(&b);
		send_prove_answer(side.authd, answer, -1);
	}
	buffer_free(&b);
	replay_settle(r);
}

/* ---- jobs ---- */

struct order {
	struct envelope e;
	struct envelope_rcpt rcpts[WORDS_MOST];
	struct span nexthop, domain;
	uint32_t connections, most;
	bool file;
	uint64_t extra; /* bytes that stand behind the content */
};

static struct span inside(struct span s)
{
	return s.n >= 2 && s.at[0] == '<' ? (struct span){s.at + 1, s.n - 2} : s;
}

static void read_flag(struct replay *r, struct order *o, struct span word)
{
	static const struct { const char *word; uint32_t bit; } flags[] = {{"8bit", ENV_8BIT}, {"utf8", ENV_UTF8}, {"binary", ENV_BINARY}};
	if (span_is(word, "file")) {
		o->file = true;
		o->e.flags |= ENV_BODY_FILE;
		return;
	}
	for (size_t i = 0; i < COUNT_OF(flags); i++) {
		if (span_is(word, flags[i].word)) {
			o->e.flags |= flags[i].bit;
			return;
		}
	}
	replay_fail(r, "what is %.*s?", SPAN_ARG(word));
}

/* "<b@dest.test>,NEVER" */
static void read_rcpt(struct order *o, struct span value)
{
	static const struct { unsigned bit; const char *word; } kinds[] = {
		{NOTIFY_NEVER, "NEVER"}, {NOTIFY_SUCCESS, "SUCCESS"}, {NOTIFY_FAILURE, "FAILURE"}, {NOTIFY_DELAY, "DELAY"}};
	struct envelope_rcpt *e = &o->rcpts[o->e.rcpts_n++];
	e->address = inside(span_until(&value, ','));
	while (value.n > 0) {
		struct span word = span_until(&value, ','), orcpt;
		for (size_t i = 0; i < COUNT_OF(kinds); i++)
			if (span_is(word, kinds[i].word))
				e->notify |= kinds[i].bit;
		if (replay_take_key(word, "ORCPT=", &orcpt))
			e->orcpt = orcpt;
	}
}

static void read_order(struct replay *r, struct span args, struct order *o)
{
	for (struct span word, value; (word = span_word(&args, " ")).n > 0;) {
		if (replay_take_key(word, "from=", &value))
			o->e.sender = inside(value);
		else if (replay_take_key(word, "to=", &value))
			read_rcpt(o, value);
		else if (replay_take_key(word, "nexthop=", &value))
			o->nexthop = value;
		else if (replay_take_key(word, "domain=", &value))
			o->domain = value;
		else if (replay_take_key(word, "connections=", &value))
			o->connections = value.n == 1 ? (uint32_t)(value.at[0] - '0') : 0;
		else if (replay_take_key(word, "most=", &value))
			o->most = value.n == 1 ? (uint32_t)(value.at[0] - '0') : 0;
		else if (replay_take_key(word, "envid=", &value))
			o->e.envid = value;
		else if (replay_take_key(word, "ret=", &value))
			o->e.ret = span_is(value, "FULL") ? RET_FULL : RET_HDRS;
		else
			read_flag(r, o, word);
	}
	o->e.rcpts = o->rcpts;
}

static int body_file(void)
{
	int fd = memfd_create("body", MFD_CLOEXEC);
	if (fd >= 0 && write(fd, side.content.at, side.content.n) != (ssize_t)side.content.n) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

/* job from=<a@x> to=<b@y>[,NEVER,...] ... [nexthop=N] [domain=N] [connections=N] [most=N] [ret= envid= 8bit utf8 binary file] */
static void run_job(struct replay *r, struct span args)
{
	struct order o = {.nexthop = SPAN_LIT("[192.0.2.1]:25")};
	struct buffer indexes, *envelope;
	if (side.qmgr == NULL)
		replay_fail(r, "there is no qmgr");
	read_order(r, args, &o);
	struct qid id = qid_make(&side.ids, clock_wall_us());
	envelope = &side.envelopes[++side.deliveries];
	buffer_init(envelope, 1 << 20);
	buffer_init(&indexes, 1 << 16);
	envelope_put(envelope, &o.e);
	for (uint32_t i = 0; i < o.e.rcpts_n; i++)
		buffer_put_u32(&indexes, i);
	send_deliver(side.qmgr, (struct msg_deliver){.delivery = side.deliveries, .id = qid_span(&id), .connections = o.connections, .most = o.most, .nexthop = o.nexthop,
		.domain = o.domain, .envelope = buffer_span(envelope), .indexes = buffer_span(&indexes),
		.content = o.file ? (struct span){"", 0} : buffer_span(&side.content)}, o.file ? body_file() : -1);
	buffer_free(&indexes);
	replay_settle(r);
}

static void run_content(struct replay *r, struct span args)
{
	buffer_clear(&side.content);
	replay_quoted(r, args, &side.content);
}

static void run_verdict(struct replay *r, struct span args)
{
	replay_settle(r);
	struct span rest = buffer_span(&side.verdicts);
	if (rest.n == 0)
		replay_fail(r, "there is no verdict");
	struct span line = span_until(&rest, '\n');
	if (!replay_matches(args, line))
		replay_fail(r, "expected: %.*s\n     was: %.*s", SPAN_ARG(args), SPAN_ARG(line));
	buffer_drop(&side.verdicts, line.n + 1);
}

static void run_no_verdict(struct replay *r, struct span args)
{
	replay_settle(r);
	if (side.verdicts.n > 0)
		replay_fail(r, "there is a verdict: %.*s", SPAN_ARG(buffer_span(&side.verdicts)));
}

/* starttls REPLY: the peer's reply to STARTTLS and its side of the handshake, in one step: the agent speaks first in TLS. */
static void run_starttls(struct replay *r, struct span args)
{
	if (side.tls == NULL)
		side.tls = replay_server_context(r);
	if (write(r->fd, args.at, args.n) != (ssize_t)args.n || write(r->fd, "\r\n", 2) != 2)
		replay_fail(r, "the reply could not be written");
	replay_handshake(r, side.tls, true);
}

static void begin(struct replay *r)
{
	struct agent *a = &side.agent;
	struct complaint why;
	side.replay = r;
	buffer_init(&side.verdicts, 1 << 20);
	if (side.content.limit == 0)
		buffer_init(&side.content, 1 << 26);
	buffer_puts(&side.content, "Subject: x\r\n\r\ntext\r\n");
	qid_suffix(1, 1, 1, side.ids.suffix);
	a->proc.base = r->base;
	a->proc.config = r->config;
	a->shares = calloc(1, sizeof *a->shares);
	const struct tls_levels levels = {0};
	a->tls = calloc(1, sizeof *a->tls);
	if (a->tls != NULL)
		a->tls[0] = tls_client_context(&levels, &why);
	side.qmgr_near = link_to(r, R_QMGR, &side.qmgr);
	a->resolver = link_to(r, R_RESOLVER, &side.resolver);
	a->authd = link_to(r, R_AUTHD, &side.authd);
	a->sts = link_to(r, R_STS, &side.sts);
}

static void after(struct replay *r)
{
	if (side.verdicts.n > 0)
		replay_fail(r, "a verdict is left: %.*s", SPAN_ARG(buffer_span(&side.verdicts)));
	if (side.peers_taken != side.peers_n)
		replay_fail(r, "a connection to %s is left", side.peers[side.peers_taken].address);
}

static const struct replay_verb verbs[] = {
	{"connect", run_connect}, {"peer", run_peer}, {"network", run_network}, {"dns", run_dns}, {"resolver", run_resolver}, {"sts", run_sts},
	{"qmgr", run_qmgr}, {"job", run_job}, {"content", run_content}, {"verdict", run_verdict}, {"noverdict", run_no_verdict},
	{"starttls", run_starttls}, {"authd", run_authd},
};

/* Every row of the fate table decides in a script. */
static const struct { unsigned stages; int low, high; const char *text; } fates[] = {
#define REPLY_FATE(stages, low, high, fate, source) {stages, low, high, #stages " " #low " " #fate},
#include "schedule/fates.def"
};

enum reply_fate __real_fate_of_reply(enum smtp_stage stage, int code);
enum reply_fate __wrap_fate_of_reply(enum smtp_stage stage, int code);

enum reply_fate __wrap_fate_of_reply(enum smtp_stage stage, int code)
{
	size_t i = 0;
	while (i < COUNT_OF(fates) && ((fates[i].stages & (unsigned)stage) == 0 || code < fates[i].low || code > fates[i].high))
		i++;
	replay_cover(i);
	return __real_fate_of_reply(stage, code);
}

/* A recipient is reported as delivered only after a peer said so: no verdict "sent" before a 250 to the dot. */
static bool honest(void)
{
	return side.verdicts.n == 0 || memmem(side.verdicts.at, side.verdicts.n, "> sent", 6) == NULL || side.peers_taken > 0;
}

static const char *fate_name(size_t i)
{
	return i < COUNT_OF(fates) ? fates[i].text : NULL;
}

int main(int argc, char **argv)
{
	static const struct replay_side s = {.verbs = verbs, .verbs_n = COUNT_OF(verbs), .begin = begin, .after = after, .honest = honest, .row_name = fate_name};
	(void)signal(SIGPIPE, SIG_IGN); /* as master leaves it to every process */
	return replay_main(argc, argv, &s);
}
