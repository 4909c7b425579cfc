/* The scripts' language: what all programs under test have in common. */
#include "replay.h"
#include "tls/tls.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS_MOST = 256 };
static char *covered; /* shared with the scripts' processes */
static const struct replay_side *failing; /* memory fails in this run: the conversation may end anywhere */
static unsigned long nth_allocation, *allocations;

void replay_cover(size_t i)
{
	if (i < ROWS_MOST)
		covered[i] = 1;
}

void replay_fail(const struct replay *r, const char *format, ...)
{
	va_list args;
	if (failing != NULL)
		_exit(failing->honest() ? 0 : 1);
	va_start(args, format);
	printf("%s:%u: ", r->path, r->line);
	(void)vprintf(format, args);
	va_end(args);
	printf("\n");
	(void)fflush(stdout);
	_exit(1);
}

bool replay_matches(struct span p, struct span t)
{
	size_t i = 0, k = 0, star = SIZE_MAX, mark = 0;
	while (k < t.n) {
		if (i < p.n && p.at[i] == '*') {
			star = i++;
			mark = k;
		} else if (i < p.n && p.at[i] == t.at[k]) {
			i++;
			k++;
		} else if (star != SIZE_MAX) {
			i = star + 1;
			k = ++mark;
		} else {
			return false;
		}
	}
	while (i < p.n && p.at[i] == '*')
		i++;
	return i == p.n;
}

static char unescape(const struct replay *r, struct span *s)
{
	static const char hex[] = "0123456789abcdef";
	char c = *s->at++;
	s->n--;
	if (c != '\\')
		return c;
	if (s->n == 0)
		replay_fail(r, "an escape without its letter");
	c = *s->at++;
	s->n--;
	switch (c) {
	case 'r': return '\r';
	case 'n': return '\n';
	case 't': return '\t';
	case '0': return '\0';
	case 'x': {
		const char *high = s->n < 2 ? NULL : strchr(hex, s->at[0]), *low = s->n < 2 ? NULL : strchr(hex, s->at[1]);
		if (high == NULL || low == NULL)
			replay_fail(r, "\\x needs two digits");
		s->at += 2;
		s->n -= 2;
		return (char)((high - hex) * 16 + (low - hex));
	}
	default: return c;
	}
}

void replay_quoted(const struct replay *r, struct span text, struct buffer *out)
{
	while (text.n > 0) {
		struct buffer piece;
		uint64_t times = 1;
		if (*text.at == ' ') {
			text.at++;
			text.n--;
			continue;
		}
		if (*text.at != '"')
			replay_fail(r, "a quoted piece is needed");
		text.at++;
		text.n--;
		buffer_init(&piece, 1 << 24);
		while (text.n > 0 && *text.at != '"')
			buffer_putc(&piece, unescape(r, &text));
		if (text.n == 0)
			replay_fail(r, "a quote that does not end");
		text.at++;
		text.n--;
		if (text.n > 0 && *text.at == '*') {
			text.at++;
			text.n--;
			if (parse_u64(span_word(&text, " "), 1 << 24, &times) != 0)
				replay_fail(r, "how many times?");
		}
		for (uint64_t i = 0; i < times; i++)
			buffer_put_span(out, buffer_span(&piece));
		buffer_free(&piece);
	}
	if (!buffer_ok(out))
		replay_fail(r, "too long");
}

int replay_pair(struct replay *r, int *mine)
{
	int ends[2], size = 4 * 1024 * 1024;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
		replay_fail(r, "socketpair: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		(void)setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	*mine = ends[0];
	return ends[1];
}

/* ---- running ---- */

static bool hear(struct replay *r)
{
	char block[65536];
	size_t n = 0;
	if (r->fd < 0 || r->ended || r->deaf)
		return false;
	if (r->ssl != NULL) {
		enum tls_result result = tls_read(r->ssl, block, sizeof block, &n);
		r->ended = result == TLS_CLOSED || result == TLS_FAILED;
	} else {
		ssize_t got = recv(r->fd, block, sizeof block, MSG_DONTWAIT);
		r->ended = got == 0 || (got < 0 && errno != EAGAIN);
		n = got > 0 ? (size_t)got : 0;
	}
	buffer_put(&r->heard, block, n);
	return n > 0 || r->ended;
}

/* A turn of the loop handles what is ready and does not wait; the longest way of a word through the program's
 * channels is far below this many turns without a sign at the script's end. */
void replay_settle(struct replay *r)
{
	enum { QUIET_TURNS = 16 };
	for (int quiet = 0; quiet < QUIET_TURNS; quiet++) {
		bool fired = false;
		while (replay_fire_due())
			fired = true;
		(void)event_base_loop(r->base, EVLOOP_NONBLOCK);
		if (hear(r) || fired)
			quiet = -1;
	}
}

void replay_say(struct replay *r, struct span bytes)
{
	while (bytes.n > 0) {
		size_t n = 0;
		if (r->fd < 0)
			replay_fail(r, "there is no connection to speak on");
		if (r->ssl != NULL) {
			enum tls_result result = tls_write(r->ssl, bytes.at, bytes.n, &n);
			if (result != TLS_OK && result != TLS_WANT_READ && result != TLS_WANT_WRITE)
				replay_fail(r, "TLS: %s", tls_error_text());
		} else {
			ssize_t done = send(r->fd, bytes.at, bytes.n, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (done < 0 && errno != EAGAIN)
				return; /* the program has closed: what it said before is still to be checked */
			n = done > 0 ? (size_t)done : 0;
		}
		bytes.at += n;
		bytes.n -= n;
		replay_settle(r);
	}
}

void replay_handshake(struct replay *r, SSL_CTX *context, bool as_server)
{
	if (r->heard.n > 0)
		replay_fail(r, "the program still had something to say: %.*s", SPAN_ARG(buffer_span(&r->heard)));
	r->ssl = tls_session(context, r->fd, as_server, r);
	replay_end_handshake(r);
}

void replay_end_handshake(struct replay *r)
{
	enum { TURNS = 50 };
	for (int i = 0; i < TURNS; i++) {
		enum tls_result result = tls_handshake(r->ssl);
		for (int k = 0; k < TURNS; k++)
			(void)event_base_loop(r->base, EVLOOP_NONBLOCK);
		if (result == TLS_OK)
			return;
		if (result == TLS_CLOSED || result == TLS_FAILED)
			replay_fail(r, "the handshake failed: %s", tls_error_text());
	}
	replay_fail(r, "the handshake does not end");
}

void replay_link(const struct replay *r, struct replay_link *l)
{
	int ends[2];
	if (channel_pair(ends) != 0)
		replay_fail(r, "no channel");
	l->far = channel_make(r->base, ends[1], l->peer, l->me, l->far_owner, l->far_program);
	l->near = channel_make(r->base, ends[0], l->me, l->peer, l->near_owner, l->near_program);
	if (l->near == NULL || l->far == NULL)
		replay_fail(r, "no channel");
}

void replay_make_pair(const struct replay *r, struct buffer *certificate, struct buffer *key_text)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	BIO *out[2] = {BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem())};
	struct buffer *texts[2] = {certificate, key_text};
	if (key == NULL || x == NULL || out[0] == NULL || out[1] == NULL || X509_set_pubkey(x, key) != 1 ||
		X509_gmtime_adj(X509_getm_notBefore(x), 0) == NULL || X509_gmtime_adj(X509_getm_notAfter(x), 86400) == NULL ||
		X509_sign(x, key, EVP_sha256()) <= 0 || PEM_write_bio_X509(out[0], x) != 1 ||
		PEM_write_bio_PrivateKey(out[1], key, NULL, NULL, 0, NULL, NULL) != 1)
		replay_fail(r, "no certificate could be made");
	for (size_t i = 0; i < 2; i++) {
		char *at;
		long n = BIO_get_mem_data(out[i], &at);
		buffer_init(texts[i], 1 << 16);
		buffer_put(texts[i], at, (size_t)n);
		BIO_free(out[i]);
	}
	X509_free(x);
	EVP_PKEY_free(key);
}

SSL_CTX *replay_server_context(const struct replay *r)
{
	struct tls_levels levels = {0};
	struct buffer crt, text;
	struct complaint why = {0};
	replay_make_pair(r, &crt, &text);
	SSL_CTX *c = tls_context(TLS_server_method(), &levels, &why);
	BIO *bio = BIO_new_mem_buf(crt.at, (int)crt.n);
	X509 *x = tls_read_certificate(bio);
	EVP_PKEY *key = tls_read_key(buffer_span(&text));
	if (c == NULL || SSL_CTX_use_certificate(c, x) != 1 || SSL_CTX_use_PrivateKey(c, key) != 1)
		replay_fail(r, "no TLS: %s", tls_error_text());
	EVP_PKEY_free(key);
	X509_free(x);
	BIO_free(bio);
	buffer_free(&crt);
	buffer_free(&text);
	return c;
}

/* ---- words ---- */

static void take_heard(struct replay *r, struct span *line)
{
	const char *end = r->heard.n == 0 ? NULL : memmem(r->heard.at, r->heard.n, "\r\n", 2);
	if (end == NULL)
		replay_fail(r, "nothing was said%s%.*s", r->heard.n > 0 ? " but " : r->ended ? ", the connection is closed" : "", SPAN_ARG(buffer_span(&r->heard)));
	*line = (struct span){r->heard.at, (size_t)(end - r->heard.at)};
}

void replay_expect(struct replay *r, struct span pattern)
{
	struct span line;
	replay_settle(r);
	take_heard(r, &line);
	if (!replay_matches(pattern, line))
		replay_fail(r, "expected: %.*s\n    said: %.*s", SPAN_ARG(pattern), SPAN_ARG(line));
	bool whole = pattern.n == 5 && memcmp(pattern.at + 3, "-*", 2) == 0;
	if (whole)
		buffer_clear(&r->last_reply);
	for (bool more = whole; more;) { /* 250-*: the reply to its last line */
		more = line.n > 3 && line.at[3] == '-';
		buffer_put_span(&r->last_reply, line);
		buffer_puts(&r->last_reply, "\n");
		if (!more)
			break;
		buffer_drop(&r->heard, line.n + 2);
		take_heard(r, &line);
	}
	buffer_drop(&r->heard, line.n + 2);
}

static bool last_reply_has(const struct replay *r, struct span word)
{
	struct span rest = buffer_span(&r->last_reply);
	while (rest.n > 0) {
		struct span line = span_until(&rest, '\n');
		if (line.n > 4 && replay_matches(word, (struct span){line.at + 4, line.n - 4}))
			return true;
	}
	return false;
}

static void run_has(struct replay *r, struct span args)
{
	if (!last_reply_has(r, args))
		replay_fail(r, "the last reply does not offer %.*s", SPAN_ARG(args));
}

static void run_has_not(struct replay *r, struct span args)
{
	if (last_reply_has(r, args))
		replay_fail(r, "the last reply offers %.*s", SPAN_ARG(args));
}

static void run_say_raw(struct replay *r, struct span args)
{
	struct buffer bytes;
	buffer_init(&bytes, 1 << 26);
	replay_quoted(r, args, &bytes);
	replay_say(r, buffer_span(&bytes));
	buffer_free(&bytes);
}

/* The next bytes exactly: for what is not lines, or for line ends themselves. */
static void run_expect_raw(struct replay *r, struct span args)
{
	struct buffer bytes;
	buffer_init(&bytes, 1 << 26);
	replay_quoted(r, args, &bytes);
	replay_settle(r);
	if (r->heard.n < bytes.n || memcmp(r->heard.at, bytes.at, bytes.n) != 0)
		replay_fail(r, "other bytes were said: %.*s", SPAN_ARG(buffer_span(&r->heard)));
	buffer_drop(&r->heard, bytes.n);
	buffer_free(&bytes);
}

static void run_advance(struct replay *r, struct span args)
{
	int64_t seconds;
	if (parse_duration(args, &seconds) != 0)
		replay_fail(r, "advance by what?");
	replay_advance(r, seconds * 1000);
}

static void run_closed(struct replay *r, struct span args)
{
	(void)args;
	replay_settle(r);
	if (r->heard.n > 0)
		replay_fail(r, "something was said before the end: %.*s", SPAN_ARG(buffer_span(&r->heard)));
	if (!r->ended)
		replay_fail(r, "the connection is still open");
}

static void run_silence(struct replay *r, struct span args)
{
	(void)args;
	replay_settle(r);
	if (r->heard.n > 0 || r->ended)
		replay_fail(r, "silence was expected: %.*s%s", SPAN_ARG(buffer_span(&r->heard)), r->ended ? "(closed)" : "");
}

static void run_hang_up(struct replay *r, struct span args)
{
	(void)args;
	SSL_free(r->ssl);
	r->ssl = NULL;
	if (r->fd >= 0)
		(void)close(r->fd);
	r->fd = -1;
	replay_settle(r);
}

static void run_param(struct replay *r, struct span args)
{
	buffer_put_span(&r->config_text, args);
	buffer_puts(&r->config_text, "\n");
}

/* domain NAME name=value ... */
static void run_domain(struct replay *r, struct span args)
{
	struct span name = span_word(&args, " ");
	buffer_printf(&r->config_text, "[domain %.*s]\n", SPAN_ARG(name));
	for (struct span word; (word = span_word(&args, " ")).n > 0;)
		run_param(r, word);
}

static const struct replay_verb common_verbs[] = {
	{"param", run_param}, {"domain", run_domain}, {"has", run_has}, {"hasnot", run_has_not}, {"advance", run_advance},
	{"closed", run_closed}, {"silence", run_silence}, {"hangup", run_hang_up},
};

static void run_line(struct replay *r, const struct replay_side *side, struct span line)
{
	struct span args = line, word = span_word(&args, " ");
	args = line.n > word.n ? (struct span){line.at + word.n + 1, line.n - word.n - 1} : (struct span){"", 0};
	bool speaks = word.n == 2 && word.at[1] == ':', raw = word.n == 2 && word.at[1] == '>';
	if ((speaks || raw) && (word.at[0] == 'C' || word.at[0] == 'S')) {
		bool says = (word.at[0] == 'C') == side->client;
		if (raw) {
			(says ? run_say_raw : run_expect_raw)(r, args);
		} else if (says) {
			struct buffer b;
			buffer_init(&b, 1 << 20);
			buffer_put_span(&b, args);
			buffer_puts(&b, "\r\n");
			replay_say(r, buffer_span(&b));
			buffer_free(&b);
		} else {
			replay_expect(r, args);
		}
		return;
	}
	for (size_t i = 0; i < COUNT_OF(common_verbs); i++) {
		if (span_is(word, common_verbs[i].word)) {
			common_verbs[i].run(r, args);
			return;
		}
	}
	for (size_t i = 0; i < side->verbs_n; i++) {
		if (span_is(word, side->verbs[i].word)) {
			side->verbs[i].run(r, args);
			return;
		}
	}
	replay_fail(r, "no such word: %.*s", SPAN_ARG(word));
}

static void write_file(const struct replay *r, int dir_fd, const char *name, struct span text)
{
	if (replace_file_at(dir_fd, name, text, 0600) != 0)
		replay_fail(r, "cannot write %s", name);
}

static void load_config(struct replay *r)
{
	char dir[] = "/tmp/replay.XXXXXX";
	struct complaint why = {0};
	struct buffer text;
	if (mkdtemp(dir) == NULL)
		replay_fail(r, "mkdtemp: %s", strerror(errno));
	int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	buffer_init(&text, 1 << 20);
	buffer_puts(&text, "listen = 127.0.0.1:1\nfqdn = mx.example.test\ndefault_domain = example.test\n");
	buffer_put_span(&text, buffer_span(&r->config_text));
	write_file(r, dir_fd, "posthorn.conf", SPAN_LIT("log_target = stderr\n"));
	int servers_fd = mkdirat(dir_fd, "servers", 0700) == 0 ? openat(dir_fd, "servers", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	write_file(r, servers_fd, "default.conf", buffer_span(&text));
	int error = config_load(dir_fd, &r->config, &why);
	(void)unlinkat(servers_fd, "default.conf", 0);
	(void)unlinkat(dir_fd, "servers", AT_REMOVEDIR);
	(void)unlinkat(dir_fd, "posthorn.conf", 0);
	(void)rmdir(dir);
	(void)close(servers_fd);
	(void)close(dir_fd);
	buffer_free(&text);
	if (error != 0)
		replay_fail(r, "configuration: %s:%u: %s", why.file, why.line, why.reason);
}

static bool is_preamble(struct span line)
{
	struct span args = line, word = span_word(&args, " ");
	return line.n == 0 || line.at[0] == '#' || span_is(word, "param") || span_is(word, "domain");
}

static int play(const char *path, struct span text, const struct replay_side *side)
{
	struct replay r = {.path = path, .base = event_base_new(), .fd = -1};
	bool begun = false;
	buffer_init(&r.config_text, 1 << 20);
	buffer_init(&r.heard, 1 << 26);
	buffer_init(&r.last_reply, 1 << 20);
	while (text.n > 0) {
		struct span line = span_until(&text, '\n');
		r.line++;
		if (!begun && !is_preamble(line)) {
			load_config(&r);
			side->begin(&r);
			begun = true;
			replay_fail_allocation(nth_allocation);
		}
		if (line.n > 0 && line.at[0] != '#')
			run_line(&r, side, line);
	}
	replay_settle(&r);
	*allocations = replay_allocations();
	if (r.heard.n > 0)
		replay_fail(&r, "more was said: %.*s", SPAN_ARG(buffer_span(&r.heard)));
	side->after(&r);
	return 0;
}

static bool passes(const char *path, const struct replay_side *side)
{
	struct buffer text;
	int status = 0;
	buffer_init(&text, 1 << 20);
	if (read_file_at(AT_FDCWD, path, 1 << 20, &text) != 0) {
		printf("%s: cannot be read\n", path);
		return false;
	}
	(void)fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		(void)alarm(60);
		_exit(play(path, buffer_span(&text), side));
	}
	buffer_free(&text);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return false;
	if (WIFSIGNALED(status))
		printf("%s: signal %d\n", path, WTERMSIG(status));
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The script once for each allocation of the program, which fails: no crash, no false promise. */
static unsigned long run_without_memory(const char *path, const struct replay_side *side, int *failed)
{
	*allocations = 0;
	nth_allocation = 0;
	failing = NULL;
	if (!passes(path, side)) {
		*failed += 1;
		return 0;
	}
	unsigned long n = *allocations;
	failing = side;
	for (nth_allocation = 1; nth_allocation <= n; nth_allocation++) {
		if (!passes(path, side)) {
			printf("%s: allocation %lu of %lu fails\n", path, nth_allocation, n);
			*failed += 1;
		}
	}
	return n;
}

static int count_unused_rows(const struct replay_side *side)
{
	int n = 0;
	for (size_t i = 0; i < ROWS_MOST && side->row_name(i) != NULL; i++) {
		if (covered[i] || side->row_name(i)[0] == '\0')
			continue;
		printf("no script uses row %s\n", side->row_name(i));
		n++;
	}
	return n;
}

int replay_main(int argc, char **argv, const struct replay_side *side)
{
	int failed = 0;
	unsigned long runs = 0;
	bool all = argc > 1 && strcmp(argv[1], "--all-rows") == 0, memory = argc > 1 && strcmp(argv[1], "--no-memory") == 0;
	covered = mmap(NULL, ROWS_MOST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	allocations = mmap(NULL, sizeof *allocations, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (covered == MAP_FAILED || allocations == MAP_FAILED)
		return 1;
	if (all || memory) {
		argc--;
		argv++;
	}
	for (int i = 1; i < argc && memory; i++)
		runs += run_without_memory(argv[i], side, &failed);
	for (int i = 1; i < argc && !memory; i++)
		failed += !passes(argv[i], side);
	if (all)
		failed += count_unused_rows(side);
	if (memory)
		printf("%lu allocations failed, one at a time\n", runs);
	printf("%d scripts, %d failed\n", argc - 1, failed);
	return failed > 100 ? 100 : failed;
}
