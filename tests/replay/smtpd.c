/* smtpd's sessions, played: the script is the client, cleanup, mover and front are played here. */
#include "smtpd.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "smtpd/worker/events.def"
#undef EVENT
};

/* ---- the script's words ---- */

static void begin(struct replay *r)
{
	struct worker *w = &side.worker;
	struct buffer *buffers[] = {&side.parts, &side.content, &side.envelope, &side.body, &w->envelope};
	for (size_t i = 0; i < COUNT_OF(buffers); i++)
		buffer_init(buffers[i], 1 << 26);
	w->proc.base = r->base;
	w->proc.config = r->config;
	qid_suffix(1, 1, 1, w->ids.suffix);
	w->servers = calloc(1, sizeof *w->servers);
	w->sweep = event_new(r->base, -1, EV_PERSIST, worker_sweep, w);
	if (w->servers == NULL || w->sweep == NULL || client_read_lists(w) != 0)
		replay_fail(r, "no worker");
	w->servers[0].cleanup = link_to(r, R_CLEANUP, &side.cleanup);
	w->servers[0].mover = link_to(r, R_MOVER, &side.mover);
	w->front = link_to(r, R_FRONT, &side.front);
	w->maps = link_to(r, R_MAPS, &side.maps);
	w->servers[0].qmgr = link_to(r, R_QMGR, &side.qmgr);
	w->resolver = link_to(r, R_RESOLVER, &side.resolver);
	w->authd = link_to(r, R_AUTHD, &side.authd);
	w->keyd = link_to(r, R_KEYD, &side.keyd);
	w->keys_known = true;
	if (tls_use_signer(keys_sign) != 0)
		replay_fail(r, "no provider");
}

static void after(struct replay *r)
{
	if (side.submissions != side.taken)
		replay_fail(r, "%u submissions, but the script looked at %u", side.submissions, side.taken);
}

static void run_client(struct replay *r, struct span args)
{
	(void)r;
	(void)snprintf(side.client, sizeof side.client, "%.*s", SPAN_ARG(args));
}

/* port tls|submission: of listen_tls, listen_submission */
static void run_port(struct replay *r, struct span args)
{
	side.port = span_is(args, "tls") ? SESSION_TLS : span_is(args, "submission") ? SESSION_SUBMISSION : 0;
	if (side.port == 0)
		replay_fail(r, "which port?");
}

/* As front says of a client. */
static uint32_t flags_of(struct replay *r, const struct sockaddr *from)
{
	struct client_list trusted;
	struct span bad;
	uint32_t flags = side.port;
	if (client_list_parse(span_of(r->config.servers[0].p.trusted_networks), &trusted, &bad) != 0)
		replay_fail(r, "no list");
	if (client_list_has(&trusted, from))
		flags |= SESSION_TRUSTED;
	if (reverse_listed(&side.worker.servers[0].access, from, NULL) == LISTED_NEEDS_NAMES)
		flags |= SESSION_NAME_DECIDES;
	client_list_free(&trusted);
	return flags;
}

static void open_session(struct replay *r, const char *early)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(1025)};
	struct sockaddr_in6 sa6 = {.sin6_family = AF_INET6, .sin6_port = htons(1025)};
	bool v6 = strchr(side.client, ':') != NULL;
	if (r->fd >= 0)
		(void)close(r->fd);
	r->ended = false;
	if (inet_pton(v6 ? AF_INET6 : AF_INET, side.client, v6 ? (void *)&sa6.sin6_addr : (void *)&sa.sin_addr) != 1)
		replay_fail(r, "client: no address");
	int fd = replay_pair(r, &r->fd);
	if (early[0] != '\0')
		(void)!write(r->fd, early, strlen(early));
	const struct sockaddr *from = v6 ? (struct sockaddr *)&sa6 : (struct sockaddr *)&sa;
	struct msg_session_open open = {.session = 7, .flags = flags_of(r, from), .client = {(const char *)from, v6 ? sizeof sa6 : sizeof sa}, .serial = side.front_serial};
	session_open(&side.worker, &open, fd);
	replay_settle(r);
}

static void run_open(struct replay *r, struct span args)
{
	(void)args;
	open_session(r, "");
}

/* The client reads nothing, and little has room on the way; no argument: until "deaf no". */
static void run_deaf(struct replay *r, struct span args)
{
	int little = 1;
	const struct session *s = side.worker.servers[0].oldest;
	r->deaf = !span_is(args, "no");
	if (s == NULL)
		replay_fail(r, "there is no session");
	if (r->deaf)
		(void)setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
	replay_settle(r);
}

/* No event of the session's can fire: it costs nothing. */
static void run_rests(struct replay *r, struct span args)
{
	const struct session *s = side.worker.servers[0].oldest;
	(void)args;
	replay_settle(r);
	if (s == NULL || s != side.worker.servers[0].oldest)
		replay_fail(r, "there is no session");
	if (event_pending(s->readable, EV_READ, NULL) != 0 || (s->writable != NULL && event_pending(s->writable, EV_WRITE, NULL) != 0))
		replay_fail(r, "the session still waits for its socket");
}

static void run_early(struct replay *r, struct span args)
{
	struct buffer b;
	buffer_init(&b, 4096);
	buffer_put_span(&b, args);
	buffer_puts(&b, "\r\n");
	open_session(r, buffer_cstr(&b));
	buffer_free(&b);
}

/* cleanup answers | fails STATUS | holds | lets go | dies | returns */
static void run_cleanup(struct replay *r, struct span args)
{
	struct span what = span_word(&args, " ");
	uint64_t status = 0;
	if (span_is(what, "fails") && parse_u64(span_word(&args, " "), 200, &status) != 0)
		replay_fail(r, "fails with which errno?");
	if (span_is(what, "answers") || span_is(what, "fails")) {
		side.mood = CLEANUP_ANSWERS;
		side.status = (uint32_t)status;
	} else if (span_is(what, "holds")) {
		side.mood = CLEANUP_HOLDS;
	} else if (span_is(what, "lets")) {
		answer_submission();
	} else if (span_is(what, "dies")) {
		channel_close(side.cleanup);
		side.cleanup = NULL;
	} else if (span_is(what, "returns")) {
		side.worker.servers[0].cleanup = link_to(r, R_CLEANUP, &side.cleanup);
		submit_all_again(&side.worker, 0);
	} else {
		replay_fail(r, "what does cleanup do?");
	}
	replay_settle(r);
}

/* mover fails STATUS | holds | dies */
static void run_mover(struct replay *r, struct span args)
{
	struct span what = span_word(&args, " ");
	uint64_t status = 0;
	if (span_is(what, "fails") && parse_u64(span_word(&args, " "), 200, &status) == 0) {
		side.body_status = (uint32_t)status;
	} else if (span_is(what, "holds")) {
		side.mover_holds = true;
	} else if (span_is(what, "dies")) {
		channel_close(side.mover);
		side.mover = NULL;
	} else {
		replay_fail(r, "what does mover do?");
	}
	replay_settle(r);
}

/* maps is asked QUESTION ADDRESS | says yes|no|failed | answers "ACTION|CHANGED" | dies | is back */
static void run_maps(struct replay *r, struct span args)
{
	static const char *const words[] = {[ANSWER_NONE] = "no", [ANSWER_FOUND] = "yes", [ANSWER_FAILED] = "failed"};
	struct span what = span_word(&args, " ");
	replay_settle(r);
	if (span_is(what, "dies")) {
		channel_close(side.maps);
		side.maps = NULL;
	} else if (span_is(what, "is")) {
		side.answered = side.asked;
		side.worker.maps = link_to(r, R_MAPS, &side.maps);
		screen_ask_again(&side.worker);
	} else if (span_is(what, "answers")) {
		struct buffer b;
		buffer_init(&b, 1 << 16);
		replay_quoted(r, args, &b);
		struct span changed = buffer_span(&b), action = span_until(&changed, '|');
		side.discards += span_is(action, "DISCARD"); /* a 250 for what goes nowhere */
		side.answered = side.asked;
		if (side.maps != NULL) /* else memory ran out on the way, and the next line of the script tells */
			send_map_answer(side.maps, (struct msg_map_answer){.serial = side.question, .value = action, .address = changed}, -1);
		buffer_free(&b);
	} else if (span_is(what, "lists")) {
		side.answered = side.asked;
		if (side.maps != NULL)
			send_map_answer(side.maps, (struct msg_map_answer){.serial = side.question, .status = ANSWER_ADDRESSES, .value = span_trim(args)}, -1);
	} else if (span_is(what, "asked")) {
		if (side.asked != side.answered + 1 || !span_eq(span_trim(args), span_trim(span_of(side.about))))
			replay_fail(r, "%u questions more than answers, the last one: %s", side.asked - side.answered, side.about);
	} else {
		uint32_t status = 0;
		while (status < COUNT_OF(words) && (words[status] == NULL || !span_is(span_trim(args), words[status])))
			status++;
		if (status == COUNT_OF(words))
			replay_fail(r, "what does maps say?");
		side.answered = side.asked;
		if (side.maps != NULL)
			send_map_answer(side.maps, (struct msg_map_answer){.serial = side.question, .status = status}, -1);
	}
	replay_settle(r);
}

static void put_records(struct replay *r, struct span args, struct buffer *records)
{
	for (;;) {
		struct sockaddr_storage sa;
		socklen_t n;
		unsigned char v6[16];
		struct span word = span_word(&args, " ");
		if (word.n == 0)
			return;
		if (side.dns_kind == DNS_PTR) {
			buffer_put_lspan(records, word);
		} else if (literal_to_sockaddr(word, 0, &sa, &n) == 0 && sockaddr_to_v6((struct sockaddr *)&sa, v6) == 0) {
			size_t size = sa.ss_family == AF_INET ? 4 : 16;
			buffer_put_lspan(records, (struct span){(const char *)v6 + 16 - size, size});
		} else {
			replay_fail(r, "no address");
		}
	}
}

/* dns asked KIND NAME | answers NAME-OR-ADDRESS ... | none | fails | bogus | dies | is back */
static void run_dns(struct replay *r, struct span args)
{
	static const struct { const char *word; enum dns_status status; } words[] = {{"answers", DNS_OK}, {"none", DNS_NXDOMAIN}, {"fails", DNS_TEMPFAIL}, {"bogus", DNS_BOGUS}};
	struct span what = span_word(&args, " ");
	struct buffer records;
	replay_settle(r);
	buffer_init(&records, 4096);
	if (span_is(what, "asked")) {
		if (!span_eq(span_trim(args), span_of(side.dns_about)))
			replay_fail(r, "the last question: %s", side.dns_about);
		side.dns_about[0] = '\0';
	} else if (span_is(what, "dies")) {
		channel_close(side.resolver);
		side.resolver = NULL;
	} else if (span_is(what, "is")) {
		side.worker.resolver = link_to(r, R_RESOLVER, &side.resolver);
		client_ask_again(&side.worker);
	} else {
		size_t i = 0;
		while (i < COUNT_OF(words) && !span_is(what, words[i].word))
			i++;
		if (i == COUNT_OF(words))
			replay_fail(r, "what does the DNS say?");
		put_records(r, args, &records);
		if (side.resolver != NULL)
			send_dns_answer(side.resolver, (struct msg_dns_answer){.serial = side.dns, .status = (uint32_t)words[i].status, .records = buffer_span(&records)}, -1);
	}
	buffer_free(&records);
	replay_settle(r);
}

/* front is asked about messages|recipients | says fine|over | dies */
static void run_front(struct replay *r, struct span args)
{
	struct span what = span_word(&args, " ");
	replay_settle(r);
	if (span_is(what, "asked")) {
		if (!span_eq(span_trim(args), span_of(side.rate_about)))
			replay_fail(r, "the last question: %s", side.rate_about);
		side.rate_about[0] = '\0';
	} else if (span_is(what, "dies")) {
		channel_close(side.front);
		side.front = NULL;
	} else if (side.front != NULL) {
		send_rate_answer(side.front, (struct msg_rate_answer){.session = side.rated, .over = span_is(span_trim(args), "over")}, -1);
	}
	replay_settle(r);
}

/* authd offers BITS | asked begin BITS WORDS|step WORDS|end | challenges "BYTES" | says good NAME|bad|limited|failed | dies | is back */
static void run_authd(struct replay *r, struct span args)
{
	static const char *const words[] = {[LOGIN_GOOD] = "good", [LOGIN_BAD] = "bad", [LOGIN_LIMITED] = "limited", [LOGIN_FAILED] = "failed"};
	struct span what = span_word(&args, " ");
	struct msg_auth_answer answer = {.serial = side.login, .status = LOGIN_GOES_ON};
	uint64_t bits = 0;
	struct buffer b;
	buffer_init(&b, 1 << 16);
	replay_settle(r);
	if (span_is(what, "offers")) {
		if (parse_u64(span_trim(args), 15, &bits) != 0)
			replay_fail(r, "which mechanisms?");
		if (side.authd != NULL)
			send_auth_offer(side.authd, (struct msg_auth_offer){.mechanisms = (uint32_t)bits}, -1);
	} else if (span_is(what, "asked")) {
		if (!span_eq(span_trim(args), span_trim(span_of(side.login_about))))
			replay_fail(r, "the last word to it: %s", side.login_about);
		side.login_about[0] = '\0';
	} else if (span_is(what, "dies")) {
		channel_close(side.authd);
		side.authd = NULL;
	} else if (span_is(what, "is")) {
		side.worker.authd = link_to(r, R_AUTHD, &side.authd);
	} else if (side.authd != NULL) {
		struct span word = span_is(what, "challenges") ? SPAN_LIT("") : span_word(&args, " ");
		for (uint32_t i = LOGIN_GOOD; i < COUNT_OF(words); i++)
			answer.status = span_is(word, words[i]) ? i : answer.status;
		if (span_is(what, "challenges"))
			replay_quoted(r, args, &b);
		answer.text = span_is(what, "challenges") ? buffer_span(&b) : span_trim(args);
		answer.proof = answer.status == LOGIN_GOOD ? SPAN_LIT("ppppppppppppppppppppppppppppppp!") : SPAN_LIT("");
		send_auth_answer(side.authd, answer, -1);
	}
	buffer_free(&b);
	replay_settle(r);
}

static void run_qmgr(struct replay *r, struct span args)
{
	if (!span_is(args, "dies"))
		replay_fail(r, "what does qmgr do?");
	channel_close(side.qmgr);
	side.qmgr = NULL;
	replay_settle(r);
}

/* atrn asked NODES|over | answers ERRNO | says "BYTES" | hears "BYTES" | closes: what is at the other end of the pair */
static void run_atrn(struct replay *r, struct span args)
{
	struct span what = span_word(&args, " ");
	char heard[4096];
	uint64_t status = 0;
	struct buffer b;
	buffer_init(&b, 1 << 20);
	replay_settle(r);
	if (span_is(what, "asked")) {
		if (!span_eq(span_trim(args), span_of(side.turn_about)))
			replay_fail(r, "the last word to qmgr: %s", side.turn_about);
		side.turn_about[0] = '\0';
	} else if (span_is(what, "answers")) {
		if (parse_u64(span_trim(args), 200, &status) != 0)
			replay_fail(r, "which errno?");
		if (side.qmgr != NULL)
			send_turn_answer(side.qmgr, (struct msg_turn_answer){.serial = side.turn, .status = (uint32_t)status}, -1);
	} else if (span_is(what, "closes")) {
		(void)close(side.turn_fd);
		side.turn_fd = -1;
	} else {
		replay_quoted(r, args, &b);
		ssize_t n = span_is(what, "says") ? send(side.turn_fd, b.at, b.n, MSG_NOSIGNAL) : recv(side.turn_fd, heard, sizeof heard, MSG_DONTWAIT);
		if (span_is(what, "hears") && ((size_t)(n < 0 ? 0 : n) != b.n || (b.n > 0 && memcmp(heard, b.at, b.n) != 0)))
			replay_fail(r, "smtp hears: %.*s", (int)(n < 0 ? 0 : n), heard);
	}
	buffer_free(&b);
	replay_settle(r);
}

/* The node that qmgr was asked for. */
static void run_etrn(struct replay *r, struct span args)
{
	replay_settle(r);
	if (!span_is(args, side.etrn))
		replay_fail(r, "qmgr was asked for \"%s\"", side.etrn);
	side.etrn[0] = '\0';
}

/* The next submission's envelope. */
static void run_submitted(struct replay *r, struct span args)
{
	replay_settle(r);
	if (side.submissions != side.taken + 1)
		replay_fail(r, "%u submissions that were not looked at", side.submissions - side.taken);
	side.taken++;
	if (!replay_matches(args, buffer_span(&side.envelope)))
		replay_fail(r, "expected: %.*s\n     was: %.*s", SPAN_ARG(args), SPAN_ARG(buffer_span(&side.envelope)));
}

/* The content of the last submission, whole: quoted pieces; Received, which comes first, apart. */
static void run_content(struct replay *r, struct span args)
{
	struct buffer b;
	struct span all = side.body.n > 0 ? buffer_span(&side.body) : buffer_span(&side.content);
	buffer_init(&b, 1 << 26);
	replay_quoted(r, args, &b);
	const char *end = all.n == 0 ? NULL : memmem(all.at, all.n, " +0000\r\n", 8);
	size_t head = end == NULL ? 0 : (size_t)(end - all.at) + 8;
	if (all.n - head != b.n || (b.n > 0 && memcmp(all.at + head, b.at, b.n) != 0))
		replay_fail(r, "the content was: %.*s", (int)(all.n - head > 200 ? 200 : all.n - head), all.at + head);
	buffer_free(&b);
}

static void run_received(struct replay *r, struct span args)
{
	struct span all = side.body.n > 0 ? buffer_span(&side.body) : buffer_span(&side.content);
	const char *end = all.n == 0 ? NULL : memmem(all.at, all.n, " +0000\r\n", 8);
	struct span head = {all.at, end == NULL ? 0 : (size_t)(end - all.at) + 6};
	struct buffer flat;
	buffer_init(&flat, 1 << 16);
	for (size_t i = 0; i < head.n; i++)
		if (head.at[i] != '\r' && head.at[i] != '\n')
			buffer_putc(&flat, head.at[i] == '\t' ? ' ' : head.at[i]);
	if (!replay_matches(args, buffer_span(&flat)))
		replay_fail(r, "expected: %.*s\n     was: %.*s", SPAN_ARG(args), SPAN_ARG(buffer_span(&flat)));
	buffer_free(&flat);
}

/* Greeting and EHLO, whose replies other scripts look at. */
static void run_ready(struct replay *r, struct span args)
{
	(void)args;
	open_session(r, "");
	replay_expect(r, SPAN_LIT("220 *"));
	replay_say(r, SPAN_LIT("EHLO client.example\r\n"));
	replay_expect(r, SPAN_LIT("250-*"));
}

/* A sender and a recipient that are taken. */
static void run_envelope(struct replay *r, struct span args)
{
	(void)args;
	replay_say(r, SPAN_LIT("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.test>\r\n"));
	replay_expect(r, SPAN_LIT("250 2.1.0 *"));
	replay_expect(r, SPAN_LIT("250 2.1.5 *"));
}

static void run_starttls(struct replay *r, struct span args)
{
	struct complaint why;
	const struct tls_levels levels = {0};
	(void)args;
	if (side.tls == NULL)
		side.tls = tls_client_context(&levels, &why);
	if (side.tls == NULL)
		replay_fail(r, "no TLS: %s", why.reason);
	replay_handshake(r, side.tls, false);
}

/* The server has a certificate. */
static void run_certificate(struct replay *r, struct span args)
{
	struct buffer crt, key;
	unsigned char id[TLS_KEY_ID];
	(void)args;
	replay_make_pair(r, &crt, &key);
	side.key = tls_read_key(buffer_span(&key));
	if (side.key == NULL || tls_key_id(side.key, id) != 0)
		replay_fail(r, "no key");
	send_key_offer(side.keyd, (struct msg_key_offer){.key = {(const char *)id, sizeof id}, .chain = buffer_span(&crt)}, -1);
	send_key_offers_end(side.keyd, (struct msg_key_offers_end){.generation = 1}, -1);
	buffer_free(&crt);
	buffer_free(&key);
	replay_settle(r);
	if (side.worker.servers[0].tls == NULL)
		replay_fail(r, "the certificate is not used");
}

/* certificates N: so many are in use */
static void run_certificates(struct replay *r, struct span args)
{
	uint64_t n, is = 0;
	for (const struct key_offer *o = side.worker.servers[0].offers; o != NULL; o = o->next)
		is++;
	if (parse_u64(args, 1000, &n) != 0 || is != n)
		replay_fail(r, "there are %llu certificates", (unsigned long long)is);
}

/* xclient taken|denied|over|nothere: what front will say to XCLIENT */
static void run_xclient(struct replay *r, struct span args)
{
	static const char *const words[] = {[CLIENT_TAKEN] = "taken", [CLIENT_DENIED] = "denied", [CLIENT_OVER] = "over", [CLIENT_NOT_HERE] = "nothere"};
	(void)r;
	for (uint32_t i = 0; i < COUNT_OF(words); i++)
		if (span_is(args, words[i]))
			side.client_status = i;
}

/* keyd unknown (it has not yet said what there is) | holds | signs | refuses | begins (to offer) | dies | is back | offers nothing */
static void run_keyd(struct replay *r, struct span args)
{
	replay_settle(r);
	if (span_is(args, "unknown")) {
		side.worker.keys_known = false;
	} else if (span_is(args, "begins")) {
		static const char id[TLS_KEY_ID] = "one that is gone";
		send_key_offer(side.keyd, (struct msg_key_offer){.key = {id, sizeof id}, .name = SPAN_LIT("old.example"), .chain = SPAN_LIT("x")}, -1);
	} else if (span_is(args, "dies")) {
		channel_close(side.keyd);
		side.keyd = NULL;
	} else if (span_is(args, "is back")) {
		side.worker.keyd = link_to(r, R_KEYD, &side.keyd);
		keys_ask_again(&side.worker);
	} else if (span_is(args, "offers nothing")) {
		send_key_offers_end(side.keyd, (struct msg_key_offers_end){.generation = 1}, -1);
	} else {
		side.keyd_mood = span_is(args, "holds") ? KEYD_HOLDS : span_is(args, "refuses") ? KEYD_REFUSES : KEYD_SIGNS;
	}
	replay_settle(r);
}

/* starttls-begin: the client's side of the handshake begins; starttls-end: it is over; starttls-fails: the server has ended it. */
static void run_starttls_begin(struct replay *r, struct span args)
{
	const struct tls_levels levels = {0};
	struct complaint why;
	(void)args;
	if (side.tls == NULL)
		side.tls = tls_client_context(&levels, &why);
	r->ssl = side.tls == NULL ? NULL : tls_session(side.tls, r->fd, false, r);
	if (r->ssl == NULL || tls_handshake(r->ssl) != TLS_WANT_READ)
		replay_fail(r, "the handshake does not begin");
	for (int k = 0; k < 50; k++)
		(void)event_base_loop(r->base, EVLOOP_NONBLOCK);
}

static void run_starttls_end(struct replay *r, struct span args)
{
	(void)args;
	replay_end_handshake(r);
}

static void run_starttls_fails(struct replay *r, struct span args)
{
	(void)args;
	replay_settle(r);
	enum tls_result result = tls_handshake(r->ssl);
	if (result != TLS_CLOSED && result != TLS_FAILED)
		replay_fail(r, "the handshake goes on");
	SSL_free(r->ssl);
	r->ssl = NULL;
}

static void run_stop(struct replay *r, struct span args)
{
	(void)args;
	side.worker.stopping = false; /* the process itself goes on: there is none here */
	worker_end_sessions(&side.worker, 0);
	replay_settle(r);
}

static void run_sessions(struct replay *r, struct span args)
{
	uint64_t n;
	replay_settle(r);
	if (parse_u64(args, 1000, &n) != 0 || side.worker.sessions_n != n)
		replay_fail(r, "%zu sessions are left", side.worker.sessions_n);
}

static const struct replay_verb verbs[] = {
	{"client", run_client}, {"port", run_port}, {"open", run_open}, {"ready", run_ready}, {"envelope", run_envelope}, {"early", run_early}, {"cleanup", run_cleanup}, {"mover", run_mover}, {"maps", run_maps}, {"qmgr", run_qmgr}, {"etrn", run_etrn},
	{"dns", run_dns}, {"front-serial", replay_front_serial}, {"authd", run_authd}, {"keyd", run_keyd}, {"xclient", run_xclient}, {"starttls-begin", run_starttls_begin}, {"starttls-end", run_starttls_end}, {"starttls-fails", run_starttls_fails}, {"atrn", run_atrn}, {"deaf", run_deaf}, {"rests", run_rests},
	{"submitted", run_submitted}, {"content", run_content}, {"received", run_received}, {"starttls", run_starttls},
	{"certificate", run_certificate}, {"certificates", run_certificates}, {"stop", run_stop}, {"state", replay_state}, {"front", run_front}, {"sessions", run_sessions},
};

/* Every row of the reply table is said by a script; front's three are its own program's (tests/system). */
void __real_reply_put(struct buffer *out, enum reply r, struct span detail);
void __wrap_reply_put(struct buffer *out, enum reply r, struct span detail);

void __wrap_reply_put(struct buffer *out, enum reply r, struct span detail)
{
	replay_cover((size_t)r);
	side.promises += r == REPLY_QUEUED;
	__real_reply_put(out, r, detail);
}

static bool honest(void)
{
	return side.promises <= side.submissions + side.discards;
}

static const char *reply_name(size_t i)
{
	return i == REPLY_COUNT ? NULL : i == REPLY_SERVICE_DOWN || i == REPLY_TOO_MANY || i == REPLY_RATE_CONNECTIONS ? "" : reply_row((enum reply)i)->name;
}

int main(int argc, char **argv)
{
	static const struct replay_side s = {.verbs = verbs, .verbs_n = COUNT_OF(verbs), .begin = begin, .after = after, .honest = honest, .row_name = reply_name, .client = true};
	(void)setenv("TZ", "UTC", 1);
	(void)signal(SIGPIPE, SIG_IGN); /* as master leaves it to every process */
	return replay_main(argc, argv, &s);
}
