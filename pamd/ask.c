#include "pamd.h"

#include <security/pam_appl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Whatever is asked for in secret is the password, what is asked for in the open the name; messages are nobody's. */
static int answer(int n, const struct pam_message **asked, struct pam_response **out, void *context)
{
	const struct check *c = context;
	struct pam_response *r = n <= 0 || n > PAM_MAX_NUM_MSG ? NULL : calloc((size_t)n, sizeof *r);
	if (r == NULL)
		return PAM_CONV_ERR;
	for (int i = 0; i < n; i++) {
		int style = asked[i]->msg_style;
		if (style == PAM_PROMPT_ECHO_OFF || style == PAM_PROMPT_ECHO_ON)
			r[i].resp = strdup(style == PAM_PROMPT_ECHO_OFF ? c->password : c->user);
	}
	*out = r;
	return PAM_SUCCESS;
}

static enum pam_status status_of(int result)
{
	switch (result) {
	case PAM_SUCCESS: return PAM_GOOD;
	case PAM_AUTH_ERR: case PAM_USER_UNKNOWN: case PAM_MAXTRIES: case PAM_ACCT_EXPIRED: case PAM_NEW_AUTHTOK_REQD: case PAM_PERM_DENIED: case PAM_CRED_EXPIRED:
		return PAM_BAD;
	default: return PAM_FAILED; /* it could not be told */
	}
}

void ask_pam(const char *service, const struct check *c)
{
	struct pam_conv talk = {answer, (void *)(uintptr_t)c};
	pam_handle_t *h = NULL;
	(void)close_range(3, ~0u, 0); /* a module gets no channel, and none outlives its process here */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)alarm(CHECK_S);
	int r = pam_start(service, c->user, &talk, &h);
	if (r == PAM_SUCCESS)
		r = pam_set_item(h, PAM_RHOST, c->client);
	if (r == PAM_SUCCESS)
		r = pam_authenticate(h, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	if (r == PAM_SUCCESS)
		r = pam_acct_mgmt(h, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	enum pam_status status = status_of(r);
	(void)pam_end(h, r);
	_exit((int)status);
}
