/* postfix_record: the records of a queue file of Postfix. */
#ifndef CMD_IMPORT_POSTFIX_RECORD_H
#define CMD_IMPORT_POSTFIX_RECORD_H

#include "base/base.h"

struct pf_envelope {
	struct buffer file; /* for maildrop: the envelope's lines, then the message */
	struct buffer content;
	bool has_sender;
	unsigned recipients;
	const char *fault;
};
/* The first sender counts; fault says what is no address. */
void pf_take_sender(struct pf_envelope *e, struct span text);
void pf_take_recipient(struct pf_envelope *e, struct span text);
/* The whole file; fault says what is wrong with it. */
void pf_read_records(struct pf_envelope *e, struct span whole);

#endif
