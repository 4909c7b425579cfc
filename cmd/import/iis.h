/* iis: the SMTP part of an IIS 6.0 metabase, MetaBase.xml. */
#ifndef CMD_IMPORT_IIS_H
#define CMD_IMPORT_IIS_H

#include "cmd/import/import.h"
#include <libxml/tree.h>

struct iis_server {
	unsigned long number;   /* of /LM/SmtpSvc/NUMBER */
	const char *name;       /* Posthorn's: the first one is default */
	const xmlNode *node;    /* IIsSmtpServer */
};
struct iis {
	struct import im;
	xmlDoc *document;
	const xmlNode *service; /* IIsSmtpService, whose properties servers inherit; NULL: none */
	struct iis_server *servers;
	size_t servers_n;
};
/* The value of a property, NULL: neither the server nor the service has it. */
const char *iis_get(struct iis *x, const xmlNode *node, const char *property);
const char *iis_own(struct iis *x, const xmlNode *node, const char *property); /* without what is inherited */
void iis_translate(struct iis *x, const struct iis_server *s);
/* One IIsSmtpDomain. */
void iis_translate_domain(struct iis *x, const struct iis_server *s, const xmlNode *node, const char *domain);

#endif
