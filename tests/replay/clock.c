/* Time: the linker leads the program's clocks and timers here (--wrap). */
#include "replay.h"

#include <stdlib.h>

struct timer {
	struct event *event;
	int64_t at_ms, every_ms; /* every_ms 0: once */
	struct timer *next;
};

static struct clock {
	int64_t now_ms;
	struct timer *timers;
} state = {.now_ms = REPLAY_START_MS};

void *__real_calloc(size_t n, size_t size);
int __real_event_add(struct event *ev, const struct timeval *tv);
int __real_event_del(struct event *ev);
void __real_event_free(struct event *ev);
int __wrap_event_add(struct event *ev, const struct timeval *tv);
int __wrap_event_del(struct event *ev);
void __wrap_event_free(struct event *ev);
int64_t __wrap_clock_mono_ms(void);
int64_t __wrap_clock_wall_us(void);

int64_t replay_now_ms(void)
{
	return state.now_ms;
}

int64_t __wrap_clock_mono_ms(void)
{
	return state.now_ms;
}

int64_t __wrap_clock_wall_us(void)
{
	enum { NEW_YEAR_2026 = 1767225600 };
	return (NEW_YEAR_2026 * INT64_C(1000) + state.now_ms) * 1000;
}

static void forget(const struct event *ev)
{
	struct timer **p = &state.timers;
	while (*p != NULL && (*p)->event != ev)
		p = &(*p)->next;
	struct timer *gone = *p;
	if (gone == NULL)
		return;
	*p = gone->next;
	free(gone);
}

int __wrap_event_add(struct event *ev, const struct timeval *tv)
{
	bool watches = event_get_fd(ev) >= 0;
	if (tv != NULL) {
		forget(ev);
		struct timer *t = __real_calloc(1, sizeof *t); /* not the program's memory */
		int64_t ms = (int64_t)tv->tv_sec * 1000 + tv->tv_usec / 1000;
		if (t == NULL)
			return -1;
		*t = (struct timer){.event = ev, .at_ms = state.now_ms + ms, .every_ms = (event_get_events(ev) & EV_PERSIST) != 0 ? ms : 0, .next = state.timers};
		state.timers = t;
	}
	return watches ? __real_event_add(ev, NULL) : 0;
}

int __wrap_event_del(struct event *ev)
{
	forget(ev);
	return __real_event_del(ev);
}

void __wrap_event_free(struct event *ev)
{
	forget(ev);
	__real_event_free(ev);
}

/* ---- memory: the nth allocation of the program fails (0: none) ---- */

void *__real_malloc(size_t n);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static struct { unsigned long countdown, made; } memory;

void replay_fail_allocation(unsigned long nth)
{
	memory.countdown = nth;
	memory.made = 0;
}

unsigned long replay_allocations(void)
{
	return memory.made;
}

static bool fails_now(void)
{
	memory.made++;
	if (memory.countdown == 0 || --memory.countdown > 0)
		return false;
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t n)
{
	return fails_now() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails_now() ? NULL : __real_realloc(p, n);
}

static struct timer *earliest(void)
{
	struct timer *best = NULL;
	for (struct timer *t = state.timers; t != NULL; t = t->next)
		if (best == NULL || t->at_ms < best->at_ms)
			best = t;
	return best;
}

bool replay_fire_due(void)
{
	struct timer *t = earliest();
	if (t == NULL || t->at_ms > state.now_ms)
		return false;
	struct event *ev = t->event;
	if (t->every_ms > 0)
		t->at_ms += t->every_ms;
	else
		forget(ev);
	event_active(ev, EV_TIMEOUT, 1);
	return true;
}

void replay_advance(struct replay *r, int64_t ms)
{
	int64_t end = state.now_ms + ms;
	replay_settle(r);
	for (const struct timer *t; (t = earliest()) != NULL && t->at_ms <= end;) {
		if (t->at_ms > state.now_ms)
			state.now_ms = t->at_ms;
		replay_settle(r);
	}
	state.now_ms = end;
	replay_settle(r);
}
