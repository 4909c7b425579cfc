/* What the libraries need at each login, told to them by the environment, which is all that they listen to.  The keytab, which is root's, is
 * read into memory; tickets that were seen are kept in a file of the directory in which this process stands. */
#include "gssd.h"

#include <krb5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_KEYTAB "MEMORY:posthorn"
static const char *const kinds[] = {"auth_keytab_file", "auth_ntlm_file"};
enum { METHOD_INTEGRATED = 4 }; /* of auth_methods */

static void fault(struct gssd *g, size_t i, const char *path, const char *why)
{
	(void)snprintf(g->fault[i], sizeof g->fault[i], "%s = %s: %s", kinds[i], path, why);
}

/* ---- the keytab ---- */

static bool is_ours(krb5_const_principal p, const char *fqdn)
{
	return p->length == 2 && p->data[0].length == 4 && memcmp(p->data[0].data, "smtp", 4) == 0 &&
		span_case_is((struct span){p->data[1].data, p->data[1].length}, fqdn);
}

/* True: it is of a server here. */
static bool take_entry(struct gssd *g, krb5_context k, krb5_keytab memory, krb5_keytab_entry *e)
{
	const struct config *c = &g->proc.config;
	bool ours = false;
	for (size_t i = 0; i < c->servers_n; i++) {
		if (!is_ours(e->principal, c->servers[i].p.fqdn))
			continue;
		ours = true;
		g->offers[i] |= MECHANISM_GSSAPI | MECHANISM_GS2_KRB5;
	}
	if (ours)
		(void)krb5_kt_add_entry(k, memory, e);
	return ours;
}

static void read_keytab(struct gssd *g)
{
	const char *path = g->proc.config.service.auth_keytab_file;
	char name[PATH_MAX];
	krb5_context k;
	krb5_keytab file = NULL, memory = NULL;
	krb5_keytab_entry e;
	krb5_kt_cursor cursor;
	bool any = false;
	(void)snprintf(name, sizeof name, "FILE:%s", path);
	if (path[0] == '\0')
		return;
	if (access(path, R_OK) != 0) {
		fault(g, 0, path, strerror(errno));
		return;
	}
	krb5_error_code error = krb5_init_context(&k);
	if (error != 0) {
		fault(g, 0, path, "the Kerberos library can't be set up: look at krb5.conf");
		return;
	}
	error = krb5_kt_resolve(k, name, &file);
	if (error == 0)
		error = krb5_kt_resolve(k, MEMORY_KEYTAB, &memory); /* stays open, and so its keys */
	if (error == 0)
		error = krb5_kt_start_seq_get(k, file, &cursor);
	while (error == 0 && krb5_kt_next_entry(k, file, &e, &cursor) == 0) {
		any = take_entry(g, k, memory, &e) || any;
		(void)krb5_free_keytab_entry_contents(k, &e);
	}
	if (error == 0)
		(void)krb5_kt_end_seq_get(k, file, &cursor);
	else
		fault(g, 0, path, krb5_get_error_message(k, error));
	if (error == 0 && !any)
		fault(g, 0, path, "it has no key of smtp/FQDN, for the fqdn of any server; ktadd of kadmin puts one there");
	if (file != NULL)
		(void)krb5_kt_close(k, file);
	(void)setenv("KRB5_KTNAME", MEMORY_KEYTAB, 1);
}

/* ---- NTLM ---- */

static void read_ntlm(struct gssd *g)
{
	const char *path = g->proc.config.service.auth_ntlm_file;
	gss_OID_set_desc set = {1, gss_ntlm_mechanism()};
	OM_uint32 minor;
	if (path[0] == '\0')
		return;
	if (setenv("NTLM_USER_FILE", path, 1) != 0) {
		fault(g, 1, path, "not enough memory");
		return;
	}
	if (gss_acquire_cred(&minor, GSS_C_NO_NAME, GSS_C_INDEFINITE, &set, GSS_C_ACCEPT, &g->ntlm, NULL, NULL) != GSS_S_COMPLETE) {
		g->ntlm = GSS_C_NO_CREDENTIAL;
		fault(g, 1, path, "GSS has no NTLM: the package gss-ntlmssp brings it");
		return;
	}
	for (size_t i = 0; i < g->proc.config.servers_n; i++)
		g->offers[i] |= MECHANISM_NTLM;
}

/* It is the one to read it: what is for root alone is of no use. */
void keys_check_ntlm(struct gssd *g)
{
	const char *path = g->proc.config.service.auth_ntlm_file;
	if (g->ntlm == GSS_C_NO_CREDENTIAL || access(path, R_OK) == 0)
		return;
	fault(g, 1, path, errno != EACCES ? strerror(errno) : "it has to be readable by the user posthorn-gss: chgrp posthorn-gss, chmod 640");
	for (size_t i = 0; i < g->proc.config.servers_n; i++)
		g->offers[i] &= ~(uint32_t)MECHANISM_NTLM;
}

int keys_read(struct gssd *g)
{
	g->offers = calloc(SERVERS_MOST, sizeof *g->offers);
	g->authorities = calloc(SERVERS_MOST, sizeof *g->authorities);
	if (g->offers == NULL || g->authorities == NULL || setenv("KRB5RCACHENAME", "file2:replays", 1) != 0)
		return ENOMEM;
	int error = gss_write_own(g->dir_fd);
	if (error == 0)
		error = gss_read_both();
	if (error != 0)
		return error;
	read_keytab(g);
	read_ntlm(g);
	for (size_t i = 0; i < g->proc.config.servers_n; i++)
		if ((g->proc.config.servers[i].p.auth_methods & METHOD_INTEGRATED) == 0)
			g->offers[i] = 0;
	return 0;
}
