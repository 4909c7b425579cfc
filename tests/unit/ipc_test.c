#include "ipc/ipc.h"
#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct end {
	unsigned got, gone;
	int reason, fd;
	size_t bytes;
};

static int on_submitted(struct channel *c, struct message *m)
{
	HANDLE(c, m, submitted, s);
	struct end *e = c->program;
	e->got++;
	e->bytes += s.id.n;
	return 0;
}

static int on_session(struct channel *c, struct message *m)
{
	HANDLE(c, m, session_open, s);
	struct end *e = c->program;
	ck_assert_uint_eq(m->fds_n, 1);
	e->fd = m->fds[0];
	m->fds[0] = -1;
	e->got++;
	return 0;
}

static void gone(struct channel *c, int reason)
{
	struct end *e = c->program;
	e->gone++;
	e->reason = reason;
}

static const struct channel_owner owner = {.handlers = {[MSG_submitted] = on_submitted, [MSG_session_open] = on_session}, .gone = gone};

static struct event_base *base;
static struct end ours;
static int other;

static struct channel *open_pair(enum role me, enum role peer)
{
	int ends[2];
	base = event_base_new();
	ours = (struct end){.fd = -1};
	ck_assert_int_eq(channel_pair(ends), 0);
	other = ends[1];
	return channel_make(base, ends[0], me, peer, &owner, &ours);
}

static void say(enum msg_type type, unsigned version, struct span payload)
{
	struct buffer b;
	buffer_init(&b, 1 << 20);
	buffer_put_u32(&b, (uint32_t)type | version << 16);
	buffer_put_u32(&b, (uint32_t)payload.n);
	buffer_put_span(&b, payload);
	ck_assert_int_eq(send(other, b.at, b.n, 0), (ssize_t)b.n);
	buffer_free(&b);
	(void)event_base_loop(base, EVLOOP_NONBLOCK);
}

static struct span submitted(struct buffer *b)
{
	buffer_init(b, 100);
	msg_submitted_put(b, &(struct msg_submitted){.id = span_of("x")});
	return buffer_span(b);
}

START_TEST(a_good_message_arrives)
{
	struct buffer b;
	(void)open_pair(R_SMTPD, R_CLEANUP);
	say(MSG_submitted, 1, submitted(&b));
	ck_assert_uint_eq(ours.got, 1);
	ck_assert_uint_eq(ours.gone, 0);
	buffer_free(&b);
}
END_TEST

/* What may not be said, or not so, ends that channel. */
static const struct { enum role me, peer; enum msg_type type; unsigned version; size_t cut; int reason; } faults[] = {
	{R_SMTPD, R_MOVER, MSG_submitted, 1, 0, EPERM},     /* not the sender's to say */
	{R_QMGR, R_CLEANUP, MSG_submitted, 1, 0, EPERM},    /* not for this receiver */
	{R_SMTPD, R_CLEANUP, MSG_submitted, 9, 0, EBADMSG}, /* no such version */
	{R_SMTPD, R_CLEANUP, MSG_COUNT, 1, 0, EBADMSG},     /* no such message */
	{R_SMTPD, R_CLEANUP, MSG_submitted, 1, 1, EBADMSG}, /* too short */
};

START_TEST(what_may_not_be_said_ends_the_channel)
{
	struct buffer b;
	(void)open_pair(faults[_i].me, faults[_i].peer);
	struct span payload = submitted(&b);
	payload.n -= faults[_i].cut;
	say(faults[_i].type, faults[_i].version, payload);
	ck_assert_uint_eq(ours.got, 0);
	ck_assert_uint_eq(ours.gone, 1);
	ck_assert_int_eq(ours.reason, faults[_i].reason);
	buffer_free(&b);
}
END_TEST

START_TEST(bytes_behind_a_message_end_the_channel)
{
	struct buffer b;
	(void)open_pair(R_SMTPD, R_CLEANUP);
	(void)submitted(&b);
	buffer_putc(&b, 'x');
	say(MSG_submitted, 1, buffer_span(&b));
	ck_assert_uint_eq(ours.gone, 1);
	buffer_free(&b);
}
END_TEST

START_TEST(descriptors_travel_and_messages_of_one_turn_share_a_packet)
{
	struct channel *c = open_pair(R_FRONT, R_SMTPD);
	struct end far = {.fd = -1};
	struct channel *d = channel_make(base, other, R_SMTPD, R_FRONT, &owner, &far);
	int fd = open("/dev/null", O_RDONLY);
	ck_assert_ptr_nonnull(d);
	send_session_open(c, (struct msg_session_open){.session = 1, .client = {"", 0}}, fd);
	for (int i = 0; i < 5; i++)
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert_uint_eq(far.got, 1);
	ck_assert_int_ge(far.fd, 0);
	ck_assert_int_ge(fcntl(far.fd, F_GETFD), 0);
}
END_TEST

START_TEST(large_and_many_messages_arrive_whole)
{
	struct channel *c = open_pair(R_CLEANUP, R_SMTPD);
	struct end far = {.fd = -1};
	char *text = calloc(1, 100 * 1024);
	ck_assert_ptr_nonnull(channel_make(base, other, R_SMTPD, R_CLEANUP, &owner, &far));
	for (int i = 0; i < 300; i++)
		send_submitted(c, (struct msg_submitted){.id = {text, (size_t)i * 300}}, -1);
	for (int i = 0; i < 2000 && far.got < 300; i++)
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert_uint_eq(far.got, 300);
	ck_assert_uint_eq(far.bytes, 300ul * 299 / 2 * 300);
	ck_assert_uint_eq(channel_backlog(c), 0);
	free(text);
}
END_TEST

/* The kernel reports first that our words were not read, and would have us miss its last ones: 0: by the loop, 1: drained. */
START_TEST(last_words_of_a_peer_that_left_ours_unread)
{
	struct buffer b;
	struct channel *c = open_pair(R_SMTPD, R_CLEANUP);
	send_submit(c, (struct msg_submit){.id = span_of("y")}, -1);
	channel_flush(c);
	struct buffer packet;
	buffer_init(&packet, 1 << 20);
	buffer_put_u32(&packet, (uint32_t)MSG_submitted | msg_version(MSG_submitted) << 16);
	struct span payload = submitted(&b);
	buffer_put_u32(&packet, (uint32_t)payload.n);
	buffer_put_span(&packet, payload);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(send(other, packet.at, packet.n, 0), (ssize_t)packet.n);
	(void)close(other);
	if (_i == 1)
		channel_drain(c);
	ck_assert_uint_eq(ours.gone, 0);
	for (int i = 0; i < 10; i++)
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert_uint_eq(ours.got, 3);
	ck_assert_uint_eq(ours.gone, 1);
	ck_assert_int_eq(ours.reason, 0);
	buffer_free(&packet);
	buffer_free(&b);
}
END_TEST

START_TEST(lazy_words_wait_and_leave_with_the_next)
{
	struct channel *c = open_pair(R_CLEANUP, R_SMTPD);
	struct end far = {.fd = -1};
	ck_assert_ptr_nonnull(channel_make(base, other, R_SMTPD, R_CLEANUP, &owner, &far));
	channel_lazy(c, true);
	send_submitted(c, (struct msg_submitted){.id = span_of("a")}, -1);
	channel_lazy(c, false);
	(void)event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert_uint_eq(far.got, 0);
	send_submitted(c, (struct msg_submitted){.id = span_of("b")}, -1);
	for (int i = 0; i < 5; i++)
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert_uint_eq(far.got, 2);
}
END_TEST

Suite *suite_ipc(void)
{
	Suite *s = suite_create("ipc");
	TCase *t = tcase_create("ipc");
	tcase_add_test(t, a_good_message_arrives);
	tcase_add_loop_test(t, what_may_not_be_said_ends_the_channel, 0, (int)COUNT_OF(faults));
	tcase_add_test(t, bytes_behind_a_message_end_the_channel);
	tcase_add_test(t, descriptors_travel_and_messages_of_one_turn_share_a_packet);
	tcase_add_test(t, large_and_many_messages_arrive_whole);
	tcase_add_loop_test(t, last_words_of_a_peer_that_left_ours_unread, 0, 2);
	tcase_add_test(t, lazy_words_wait_and_leave_with_the_next);
	suite_add_tcase(s, t);
	return s;
}
