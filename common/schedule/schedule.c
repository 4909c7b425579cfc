#include "schedule/schedule.h"

/* The intervals add up, each after the one before (MISSION D1). */
int64_t schedule_offset(const struct outbound_params *p, uint64_t n)
{
	const int64_t first[] = {p->retry_first, p->retry_second, p->retry_third};
	int64_t sum = 0;
	for (uint64_t i = 0; i < n && i < COUNT_OF(first); i++)
		sum += first[i];
	if (n > COUNT_OF(first)) {
		int64_t later;
		if (__builtin_mul_overflow((int64_t)(n - COUNT_OF(first)), p->retry_subsequent, &later) ||
			__builtin_add_overflow(sum, later, &sum))
			return INT64_MAX;
	}
	return sum;
}

uint64_t schedule_next(const struct outbound_params *p, int64_t age, int64_t *offset)
{
	uint64_t n = 1;
	int64_t third = schedule_offset(p, 3);
	if (age >= third)
		n = 4 + (uint64_t)((age - third) / p->retry_subsequent);
	while (schedule_offset(p, n) <= age)
		n++;
	*offset = schedule_offset(p, n);
	return n;
}

int64_t schedule_expiry(const struct server_params *p, const struct outbound_params *out, bool local)
{
	return local ? p->local_expiry : out->expiry;
}

int64_t schedule_delay_notice(const struct server_params *p, const struct outbound_params *out, bool local)
{
	return local ? p->local_delay_notification : out->delay_notification;
}

enum reply_fate fate_of_reply(enum smtp_stage stage, int code)
{
	static const struct { unsigned stages; int low, high; enum reply_fate fate; } rows[] = {
#define REPLY_FATE(stages, low, high, fate, source) {stages, low, high, fate},
#include "schedule/fates.def"
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++)
		if ((rows[i].stages & (unsigned)stage) != 0 && code >= rows[i].low && code <= rows[i].high)
			return rows[i].fate;
	return FATE_WAIT;
}
