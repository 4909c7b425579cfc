/* unit: a suite per library; main.c runs them all. */
#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H

#include <check.h>

Suite *suite_base(void), *suite_smtp(void), *suite_message(void), *suite_params(void), *suite_route(void), *suite_schedule(void),
	*suite_ipc(void), *suite_lease(void), *suite_queuefile(void), *suite_powercut(void), *suite_proc(void), *suite_dns(void), *suite_gss(void), *suite_lookup(void), *suite_map(void),
	*suite_passwd(void), *suite_login(void), *suite_tls(void), *suite_sts(void);

#endif
