/* gss: what the processes that speak Kerberos and NTLM tell their libraries. */
#ifndef GSS_GSS_H
#define GSS_GSS_H

#include "base/base.h"
#include <gssapi/gssapi.h>

#define KRB5_OWN "krb5.conf" /* in the directory in which the process stands: /proc/self/fd is closed to it */

extern const gss_OID_desc gss_ntlm; /* 1.3.6.1.4.1.311.2.2.10 */
gss_OID gss_ntlm_mechanism(void);   /* the same, for those who want no const */
/* Writes KRB5_OWN: no name is looked up in the DNS by the library.  0 or errno. */
MUST_CHECK int gss_write_own(int dir_fd);
/* The environment has the library read KRB5_OWN, and after it what was said before, /etc/krb5.conf where nothing was.  0 or errno. */
MUST_CHECK int gss_read_both(void);
/* Directories of krb5.conf files: of /etc/krb5.conf, and of list, the environment's KRB5_CONFIG, may be NULL.  How many. */
enum { GSS_DIRS_MOST = 8 };
size_t gss_open_dirs(const char *list, int fds[GSS_DIRS_MOST]);
/* A name and the credentials of its password: DOMAIN\USER, USER@DOMAIN.  False: what GSS says of it is in *minor. */
MUST_CHECK bool gss_ntlm_login(struct span user, struct span password, gss_cred_id_t *cred, OM_uint32 *minor);
/* Is a peer's CHALLENGE_MESSAGE ([MS-NLMP] 2.2.1.2) whole, and of NTLMv2?  To be asked before GSS reads it. */
bool gss_ntlm_challenge_is_sound(struct span message);
/* gss-ntlmssp 1.2.0 loses some 8 KB of each login (OpenSSL's legacy provider, loaded for it anew).  After so many a process ends when nothing is
 * under way, after twice as many in any case, and master makes another. */
enum { GSS_NTLM_LIFE = 5000 };
bool gss_ntlm_is_over(unsigned logins, size_t under_way, bool *leaving); /* true once */
/* Why GSS says no, for people. */
void gss_ntlm_reason(OM_uint32 minor, char *out, size_t size);
/* The service smtp of a host.  False: no memory. */
MUST_CHECK bool gss_smtp_of(const char *host, gss_name_t *out);

#endif
