/* HTTPS by libcurl, in this process's loop.  No name is looked up by it, no file read, no redirect followed. */
#include "sts_agent.h"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What libcurl waits for on a descriptor. */
struct watch {
	struct event *event;
};

static void reap(struct sts_agent *a)
{
	CURLMsg *said;
	int left;
	while ((said = curl_multi_info_read(a->multi, &left)) != NULL) {
		struct transfer *t = NULL;
		if (said->msg != CURLMSG_DONE)
			continue;
		CURLcode code = said->data.result;
		(void)curl_easy_getinfo(said->easy_handle, CURLINFO_PRIVATE, &t);
		t->code = code;
		t->done(t, code == CURLE_OK ? NULL : t->error[0] != '\0' ? t->error : curl_easy_strerror(code));
	}
}

static void act(struct sts_agent *a, curl_socket_t fd, int what)
{
	int running;
	(void)curl_multi_socket_action(a->multi, fd, what, &running);
	reap(a);
}

static void on_socket(int fd, short what, void *context)
{
	act(context, fd, ((what & EV_READ) != 0 ? CURL_CSELECT_IN : 0) | ((what & EV_WRITE) != 0 ? CURL_CSELECT_OUT : 0));
}

static void on_timer(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	act(context, CURL_SOCKET_TIMEOUT, 0);
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *at)
{
	struct sts_agent *a = context;
	struct watch *w = at;
	(void)easy;
	if (w != NULL)
		event_free(w->event);
	if (what == CURL_POLL_REMOVE) {
		free(w);
		(void)curl_multi_assign(a->multi, fd, NULL);
		return 0;
	}
	if (w == NULL)
		w = calloc(1, sizeof *w);
	if (w == NULL)
		return -1;
	short bits = (short)(EV_PERSIST | ((what & CURL_POLL_IN) != 0 ? EV_READ : 0) | ((what & CURL_POLL_OUT) != 0 ? EV_WRITE : 0));
	w->event = event_new(a->proc.base, fd, bits, on_socket, a);
	if (w->event == NULL || event_add(w->event, NULL) != 0 || curl_multi_assign(a->multi, fd, w) != CURLM_OK) {
		if (w->event != NULL)
			event_free(w->event);
		free(w);
		(void)curl_multi_assign(a->multi, fd, NULL);
		return -1;
	}
	return 0;
}

static int want_timer(CURLM *multi, long ms, void *context)
{
	struct sts_agent *a = context;
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
	(void)multi;
	return ms < 0 ? event_del(a->curl_timer) : event_add(a->curl_timer, &tv);
}

int fetch_setup(struct sts_agent *a, struct complaint *why)
{
	a->curl_timer = event_new(a->proc.base, -1, 0, on_timer, a);
	a->multi = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_multi_init() : NULL;
	bool good = a->curl_timer != NULL && a->multi != NULL && curl_multi_setopt(a->multi, CURLMOPT_SOCKETFUNCTION, want_socket) == CURLM_OK &&
		curl_multi_setopt(a->multi, CURLMOPT_SOCKETDATA, a) == CURLM_OK && curl_multi_setopt(a->multi, CURLMOPT_TIMERFUNCTION, want_timer) == CURLM_OK &&
		curl_multi_setopt(a->multi, CURLMOPT_TIMERDATA, a) == CURLM_OK && curl_multi_setopt(a->multi, CURLMOPT_MAXCONNECTS, 0L) == CURLM_OK;
	if (!good)
		complain(why, "sts", 0, "libcurl cannot be set up");
	return good ? 0 : ENOMEM;
}

static size_t take_body(char *at, size_t size, size_t n, void *context)
{
	struct transfer *t = context;
	buffer_put(&t->body, at, size * n);
	return buffer_ok(&t->body) ? size * n : 0;
}

/* RFC 8461 3.3: by a DNS-ID; a name in the subject alone is none. */
static CURLcode take_context(CURL *easy, void *ssl_context, void *context)
{
	const struct transfer *t = context;
	X509_VERIFY_PARAM *p = SSL_CTX_get0_param(ssl_context);
	(void)easy;
	X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return X509_VERIFY_PARAM_set1_host(p, t->host, 0) == 1 ? CURLE_OK : CURLE_OUT_OF_MEMORY;
}

/* Whatever fails makes the handle useless, so the first word decides. */
static bool set_options(struct transfer *t)
{
	CURL *e = t->easy;
	struct curl_blob trusted = {.data = (void *)(uintptr_t)t->authorities.at, .len = t->authorities.n, .flags = CURL_BLOB_NOCOPY};
	bool good = curl_easy_setopt(e, CURLOPT_URL, t->url) == CURLE_OK && curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, t->plain ? "http" : "https") == CURLE_OK &&
		curl_easy_setopt(e, CURLOPT_RESOLVE, t->resolve) == CURLE_OK && curl_easy_setopt(e, CURLOPT_CAINFO, NULL) == CURLE_OK &&
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL) == CURLE_OK && curl_easy_setopt(e, CURLOPT_CAINFO_BLOB, &trusted) == CURLE_OK &&
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK && curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
		curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
		curl_easy_setopt(e, CURLOPT_SSL_CTX_FUNCTION, take_context) == CURLE_OK && curl_easy_setopt(e, CURLOPT_SSL_CTX_DATA, t) == CURLE_OK &&
		curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take_body) == CURLE_OK && curl_easy_setopt(e, CURLOPT_WRITEDATA, t) == CURLE_OK;
	return good && curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->error) == CURLE_OK && curl_easy_setopt(e, CURLOPT_PRIVATE, t) == CURLE_OK &&
		curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK && curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
		curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK && curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
		curl_easy_setopt(e, CURLOPT_TIMEOUT, (long)FETCH_LIMIT_S) == CURLE_OK && curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_LIMIT_S) == CURLE_OK &&
		curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L) == CURLE_OK && curl_easy_setopt(e, CURLOPT_USERAGENT, "posthorn") == CURLE_OK;
}

static bool set_post(struct transfer *t)
{
	if (t->post.n == 0)
		return true;
	t->headers = curl_slist_append(NULL, t->type);
	return t->headers != NULL && curl_easy_setopt(t->easy, CURLOPT_POST, 1L) == CURLE_OK && curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->post.n) == CURLE_OK && curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, t->post.at) == CURLE_OK;
}

int fetch_begin(struct transfer *t)
{
	struct sts_agent *a = t->agent;
	char resolve[900];
	if (a->transfers >= TRANSFERS_MOST)
		return EAGAIN;
	buffer_init(&t->body, STS_TEXT_MOST);
	(void)snprintf(resolve, sizeof resolve, "%s:%u:%.*s", t->host, t->plain ? HTTP_PORT : HTTPS_PORT, SPAN_ARG(t->addresses));
	t->error[0] = '\0';
	t->easy = curl_easy_init();
	t->resolve = curl_slist_append(NULL, resolve);
	bool good = t->easy != NULL && t->resolve != NULL && set_options(t) && set_post(t) && curl_multi_add_handle(a->multi, t->easy) == CURLM_OK;
	if (!good) {
		curl_easy_cleanup(t->easy);
		curl_slist_free_all(t->resolve);
		curl_slist_free_all(t->headers);
		t->easy = NULL;
		return ENOMEM;
	}
	a->transfers++;
	return 0;
}

void fetch_end(struct transfer *t)
{
	(void)curl_multi_remove_handle(t->agent->multi, t->easy);
	curl_easy_cleanup(t->easy);
	curl_slist_free_all(t->resolve);
	curl_slist_free_all(t->headers);
	buffer_free(&t->body);
	t->easy = NULL;
	t->agent->transfers--;
}
