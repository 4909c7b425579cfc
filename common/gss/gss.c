#include "gss/gss.h"

#include <fcntl.h>
#include <gssapi/gssapi_ext.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const gss_OID_desc gss_ntlm = {10, "\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"};

gss_OID gss_ntlm_mechanism(void)
{
	return (gss_OID)(uintptr_t)&gss_ntlm;
}

int gss_write_own(int dir_fd)
{
	return replace_file_at(dir_fd, KRB5_OWN, SPAN_LIT("[libdefaults]\n\tdns_canonicalize_hostname = false\n\trdns = false\n\tdns_lookup_kdc = false\n\tdns_lookup_realm = false\n"), 0644);
}

int gss_read_both(void)
{
	const char *own = getenv("KRB5_CONFIG");
	char list[PATH_MAX];
	(void)snprintf(list, sizeof list, KRB5_OWN ":%s", own == NULL ? "/etc/krb5.conf" : own);
	return setenv("KRB5_CONFIG", list, 1) != 0 ? ENOMEM : 0;
}

size_t gss_open_dirs(const char *list, int fds[GSS_DIRS_MOST])
{
	char files[PATH_MAX], *rest = files, *file;
	size_t n = 0;
	(void)snprintf(files, sizeof files, "/etc/krb5.conf:%s", list == NULL ? "" : list);
	while (n < GSS_DIRS_MOST && (file = strsep(&rest, ":")) != NULL) {
		if (file[0] == '\0')
			continue;
		fds[n] = open(dirname(file), O_PATH | O_DIRECTORY | O_CLOEXEC);
		n += fds[n] >= 0;
	}
	return n;
}

bool gss_ntlm_login(struct span user, struct span password, gss_cred_id_t *cred, OM_uint32 *minor)
{
	gss_OID_set_desc set = {1, gss_ntlm_mechanism()};
	gss_buffer_desc text = {user.n, (void *)(uintptr_t)user.at}, word = {password.n, (void *)(uintptr_t)password.at};
	gss_name_t who = GSS_C_NO_NAME;
	OM_uint32 ignored;
	*cred = GSS_C_NO_CREDENTIAL;
	bool good = gss_import_name(minor, &text, GSS_C_NT_USER_NAME, &who) == GSS_S_COMPLETE &&
		gss_acquire_cred_with_password(minor, who, &word, GSS_C_INDEFINITE, &set, GSS_C_INITIATE, cred, NULL, NULL) == GSS_S_COMPLETE;
	(void)gss_release_name(&ignored, &who);
	return good;
}

bool gss_ntlm_is_over(unsigned logins, size_t under_way, bool *leaving)
{
	bool over = !*leaving && (logins >= 2 * GSS_NTLM_LIFE || (logins >= GSS_NTLM_LIFE && under_way == 0));
	*leaving = *leaving || over;
	return over;
}

void gss_ntlm_reason(OM_uint32 minor, char *out, size_t size)
{
	OM_uint32 ignored, more = 0;
	gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
	(void)snprintf(out, size, "NTLM: GSS says no");
	if (gss_display_status(&ignored, minor, GSS_C_MECH_CODE, gss_ntlm_mechanism(), &more, &text) == GSS_S_COMPLETE && text.length > 0)
		(void)snprintf(out, size, "NTLM: %.*s", (int)text.length, (const char *)text.value);
	(void)gss_release_buffer(&ignored, &text);
}

bool gss_smtp_of(const char *host, gss_name_t *out)
{
	char text[300];
	OM_uint32 minor;
	int n = snprintf(text, sizeof text, "smtp@%s", host);
	gss_buffer_desc name = {(size_t)n, text};
	return n > 0 && (size_t)n < sizeof text && gss_import_name(&minor, &name, GSS_C_NT_HOSTBASED_SERVICE, out) == GSS_S_COMPLETE;
}
