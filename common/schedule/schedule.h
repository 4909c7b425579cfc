/* schedule: when a message is tried, announced late, returned. */
#ifndef SCHEDULE_SCHEDULE_H
#define SCHEDULE_SCHEDULE_H

#include "base/base.h"
#include "params/params.h"

/* Seconds from arrival to the attempt number n (0 is the first): 0, 15, 45, 105, 345 ... minutes by default. */
int64_t schedule_offset(const struct outbound_params *p, uint64_t n);
/* The first attempt that lies after age (seconds since arrival): its number, *offset its time after arrival. */
uint64_t schedule_next(const struct outbound_params *p, int64_t age, int64_t *offset);
/* out: the parameters of the recipient's domain; local mail has the server's local_ ones. */
int64_t schedule_expiry(const struct server_params *p, const struct outbound_params *out, bool local);
int64_t schedule_delay_notice(const struct server_params *p, const struct outbound_params *out, bool local);

/* What becomes of a recipient after the reply to one command; the table is common/schedule/fates.def. */
enum smtp_stage { STAGE_CONNECT = 1, STAGE_GREETING = 2, STAGE_HELO = 4, STAGE_MAIL = 8, STAGE_RCPT = 16, STAGE_DATA = 32, STAGE_DOT = 64,
	STAGE_AUTH = 128, STAGE_ANY = 255 };
enum reply_fate { FATE_DELIVERED, FATE_GO_ON, FATE_TRY_NEXT, FATE_WAIT, FATE_RETURN };
/* code 0: the connection broke or timed out. */
enum reply_fate fate_of_reply(enum smtp_stage stage, int code);

#endif
