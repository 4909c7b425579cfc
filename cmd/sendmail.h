/* sendmail's parts. */
#ifndef CMD_SENDMAIL_H
#define CMD_SENDMAIL_H

#include "cmd/common/cli.h"
#include "message/message.h"
#include "smtp/smtp.h"

enum sendmail_mode { MODE_MESSAGE, MODE_SMTP, MODE_LIST, MODE_ALIASES, MODE_FLUSH };
struct sendmail {
	struct cli cli;
	enum sendmail_mode mode;
	bool from_header, ignore_dots;
	const char *sender, *full_name;
	unsigned serial;
};
int sendmail_store(struct sendmail *s, struct span text); /* into maildrop; a sysexits code */
int sendmail_smtp(struct sendmail *s);

#endif
