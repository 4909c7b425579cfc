#include "unit.h"

#include <stdlib.h>

int main(void)
{
	SRunner *r = srunner_create(suite_base());
	srunner_add_suite(r, suite_smtp());
	srunner_add_suite(r, suite_message());
	srunner_add_suite(r, suite_params());
	srunner_add_suite(r, suite_route());
	srunner_add_suite(r, suite_schedule());
	srunner_add_suite(r, suite_ipc());
	srunner_add_suite(r, suite_dns());
	srunner_add_suite(r, suite_gss());
	srunner_add_suite(r, suite_sts());
	srunner_add_suite(r, suite_lookup());
	srunner_add_suite(r, suite_map());
	srunner_add_suite(r, suite_passwd());
	srunner_add_suite(r, suite_login());
	srunner_add_suite(r, suite_tls());
	srunner_add_suite(r, suite_lease());
	srunner_add_suite(r, suite_queuefile());
	srunner_add_suite(r, suite_powercut());
	srunner_add_suite(r, suite_proc());
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
