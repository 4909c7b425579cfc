/* gssd: logins by Kerberos, NTLM and certificates, for authd, which has the passwords and shall read none of that. */
#ifndef GSSD_GSSD_H
#define GSSD_GSSD_H

#include "gss/gss.h"
#include "ipc/ipc.h"
#include "log/log.h"
#include "proc/proc.h"

#include <gsasl.h>
#include <gssapi/gssapi_ext.h>

#define EVENTS_FILE "gssd/events.def"
#include "log/events.h"

enum { TALKS_MOST = 4000, NAME_MOST = 255, CERTIFICATES_MOST = 64 * 1024 };

/* A conversation. */
struct talk {
	struct gssd *gssd;
	uint64_t serial;
	uint32_t server, mechanism;
	Gsasl_session *sasl;   /* of Kerberos */
	gss_ctx_id_t ntlm;
	char name[NAME_MOST + 1];
	struct buffer certificates; /* of the client */
	struct talk *next;
};

struct gssd {
	struct process proc;
	struct channel *authd;
	struct talk *talks;
	size_t talks_n;
	unsigned ntlm_n;       /* logins by NTLM so far */
	bool leaving;
	Gsasl *gsasl;
	gss_cred_id_t ntlm;    /* GSS_C_NO_CREDENTIAL: not offered */
	uint32_t *offers;      /* by server */
	struct buffer *authorities; /* by server: whose clients' certificates are good, PEM */
	int dir_fd;            /* spool_directory/gss, in which it stands */
	char fault[2][300];    /* of the keytab, of NTLM: for the log */
};

/* keys.c: before the confinement */
MUST_CHECK int keys_read(struct gssd *g); /* 0 or errno: what can't be used is not offered */
void keys_check_ntlm(struct gssd *g); /* after it */
/* external.c: by certificates (RFC 4422 A) */
int external_on_authorities(struct channel *c, struct message *m);
void external_step(struct talk *t, bool first, struct span response);
/* talk.c */
void talk_answer(const struct talk *t, enum gssd_status status, struct span text);
void talk_finish(struct talk *t, enum gssd_status status, const char *text); /* ends t */
bool talk_take_name(struct talk *t, struct span name);
MUST_CHECK int talk_setup(struct gssd *g);
int talk_on_begin(struct channel *c, struct message *m);
int talk_on_step(struct channel *c, struct message *m);
int talk_on_end(struct channel *c, struct message *m);
void talk_end_all(struct gssd *g);

#endif
