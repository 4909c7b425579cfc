/* gssc: logins at other servers by Kerberos and NTLM, for authd: the client's half. */
#ifndef GSSC_GSSC_H
#define GSSC_GSSC_H

#include "gss/gss.h"
#include "ipc/ipc.h"
#include "log/log.h"
#include "lookup/lookup.h"
#include "proc/proc.h"

#include <gsasl.h>
#include <krb5.h>
#include <limits.h>

#define EVENTS_FILE "gssc/events.def"
#include "log/events.h"

enum { TALKS_MOST = 4000, ACCOUNTS_MOST = 200, ACCOUNT_KEY = 32, REALM_MOST = 255 };

/* The ticket of tickets of a name with a password, kept from login to login.  Those of services are not: a service that has got another
 * key would refuse, and mail would be returned for it. */
struct account {
	unsigned char key[ACCOUNT_KEY]; /* of both */
	krb5_ccache tickets;
	int64_t until_s;             /* its end; 0: there is none */
	unsigned users;
	struct account *next;        /* the next one was used before */
};

/* One request to a realm's KDCs. */
struct kdc;

/* A login.  It has one owner at a time: a KDC, or the peer. */
struct talk {
	struct gssc *gssc;
	uint64_t serial;
	uint32_t offered, mechanism; /* the peer's; 0: not yet chosen */
	char *user, *password, *host;
	/* Kerberos */
	krb5_principal client;
	krb5_init_creds_context as;  /* at most one of these two */
	krb5_tkt_creds_context tgs;
	struct kdc *kdc;             /* is asked */
	struct account *account;
	bool fresh;                  /* the account's ticket is of this login */
	krb5_ccache ticket;          /* of the service, for GSS */
	Gsasl_session *sasl;
	/* NTLM */
	gss_cred_id_t cred;
	gss_ctx_id_t ntlm;
	gss_name_t target;
	bool said;                   /* a first response */
	struct talk *next;
};

struct gssc {
	struct process proc;
	struct channel *authd, *resolver;
	krb5_context krb5;           /* NULL: no Kerberos */
	Gsasl *gsasl;
	bool has_ntlm, told;         /* told: the log what is not to be had */
	char krb5_config[PATH_MAX];  /* KRB5_CONFIG as it was found; "": none */
	int dir_fd;                  /* spool_directory/gssc, in which it stands */
	unsigned char secret[ACCOUNT_KEY]; /* of the accounts' keys */
	struct account *accounts;    /* the one used last comes first */
	uint64_t serial;
	struct talk *talks;
	size_t talks_n;
	unsigned ntlm_n;       /* logins by NTLM so far */
	bool leaving;
};

/* talk.c */
MUST_CHECK int talk_setup(struct gssc *g); /* before the confinement; 0 or errno */
int talk_on_begin(struct channel *c, struct message *m);
int talk_on_step(struct channel *c, struct message *m);
int talk_on_end(struct channel *c, struct message *m);
void talk_end_all(struct gssc *g);
void talk_by_kerberos(struct talk *t); /* there is a ticket: speaks.  May end t, as the next does */
/* for_good: the password is no good, so NTLM is not tried with it. */
void talk_no_ticket(struct talk *t, const char *why, bool for_good);
/* kerberos.c */
MUST_CHECK int kerberos_setup(struct gssc *g); /* before the confinement; 0 or errno */
bool kerberos_begin(struct talk *t);           /* false: the name is of no realm.  May end t */
void kerberos_take(struct talk *t, struct span reply); /* a KDC's.  May end t */
void kerberos_end(struct talk *t);             /* lets go of all but the tickets */
void kerberos_choose(const struct talk *t);    /* whose ticket GSS takes */
/* kdc.c */
bool kdc_ask(struct talk *t, struct span realm, struct span request); /* false: no memory */
void kdc_end(struct talk *t);
int kdc_on_dns(struct channel *c, struct message *m);
void kdc_resolver_gone(struct gssc *g);
MUST_CHECK int kdc_ports(const struct gssc *g, struct port_list *ports); /* 0 or ENOMEM */

#endif
