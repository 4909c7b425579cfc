/* What operators change (MISSION A8), and the record of who did what: DIR/state/operators.log, a JSON object a line. */
#include "master.h"

#include <fcntl.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

/* The server's file gets other text, if the service goes on with it. */
static uint32_t put_file(struct master *m, const char *server, struct span fresh, struct buffer *text, bool *begun)
{
	struct buffer old;
	char name[200];
	uint32_t status = EX_IOERR;
	(void)snprintf(name, sizeof name, "servers/%s.conf", server);
	buffer_init(&old, 16 * 1024 * 1024);
	int error = read_file_at(m->dir_fd, name, 16 * 1024 * 1024, &old);
	if (error == 0)
		error = replace_file_at(m->dir_fd, name, fresh, 0644);
	if (error == 0)
		master_reload(m, text, &status, begun);
	else
		buffer_printf(text, "%s cannot be written: %s; nothing was changed", name, strerror(error));
	if (error == 0 && status != 0 && replace_file_at(m->dir_fd, name, buffer_span(&old), 0644) != 0)
		buffer_puts(text, "; and the old text could not be put back");
	buffer_free(&old);
	return status;
}

/* "SERVER DOMAIN name=value\tname=value...", "-" for no domain.  config alone looks at it. */
void master_edit(struct master *m, struct span args, struct buffer *text, uint32_t *status, bool begun[SERVERS_MOST])
{
	char server[80], domain[300], settings[4200];
	char *const words[3] = {server, domain, settings};
	struct buffer out;
	struct complaint why = {0};
	struct span word = span_word(&args, " ");
	uint32_t number = master_server_named(m, word);
	(void)snprintf(server, sizeof server, "%.*s", SPAN_ARG(word));
	word = span_word(&args, " ");
	if (span_is(word, "-"))
		word.n = 0;
	(void)snprintf(domain, sizeof domain, "%.*s", SPAN_ARG(word));
	(void)snprintf(settings, sizeof settings, "%.*s", SPAN_ARG(span_trim(args)));
	*status = EX_USAGE;
	if (number == NO_SERVER || settings[0] == '\0') {
		buffer_puts(text, "which server, which settings?");
		return;
	}
	buffer_init(&out, 32 * 1024 * 1024);
	int error = master_run_config(m, words, &out);
	struct span rest = buffer_span(&out), changes = {"", 0};
	if (error == 0)
		error = master_config_said(&rest, &why);
	if (error != 0) {
		bool not_theirs = strcmp(why.file, "operators") == 0;
		buffer_printf(text, "%s%s%s; nothing was changed", not_theirs ? "" : why.file, not_theirs || why.file[0] == '\0' ? "" : ": ", why.reason[0] == '\0' ? strerror(error) : why.reason);
		*status = not_theirs ? EX_NOPERM : EX_USAGE;
	} else {
		changes = span_until(&rest, '\n');
		struct buffer said;
		buffer_init(&said, 65536);
		*status = put_file(m, m->config.servers[number].name, rest, &said, begun);
		buffer_put_span(text, *status == 0 ? changes : buffer_span(&said));
		buffer_free(&said);
	}
	buffer_free(&out);
}

int master_on_record(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, record, said);
	struct master *m = ((struct child *)ch->peer_state)->master;
	struct buffer b;
	buffer_init(&b, 64 * 1024);
	buffer_puts(&b, "{\"time\":\"");
	format_rfc3339(&b, clock_wall_us() / 1000000);
	buffer_printf(&b, "\",\"uid\":%u,\"user\":", said.uid);
	buffer_put_json(&b, said.user);
	buffer_puts(&b, ",\"act\":");
	buffer_put_json(&b, said.act);
	buffer_puts(&b, ",\"server\":");
	buffer_put_json(&b, said.server);
	buffer_puts(&b, ",\"what\":");
	buffer_put_json(&b, said.what);
	buffer_printf(&b, ",\"status\":%u}\n", said.status);
	int fd = openat(m->dir_fd, "state/operators.log", O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
	int error = fd < 0 ? errno : !buffer_ok(&b) ? ENOMEM : write_all(fd, b.at, b.n);
	if (error != 0)
		LOG(&m->log, unrecorded, NO_ID, F("user", said.user), F("act", said.act), F("reason", span_of(strerror(error))));
	if (fd >= 0)
		(void)close(fd);
	buffer_free(&b);
	return 0;
}

void master_warn_of_operators(struct master *m)
{
	char name[64], text[200];
	const char *server;
	if (!config_unknown_operator(&m->config, name, &server))
		return;
	(void)snprintf(text, sizeof text, "server %s: operators: this machine has no %s %s", server, name[0] == '@' ? "group" : "user", name[0] == '@' ? name + 1 : name);
	LOG(&m->log, config_warning, NO_ID, F("text", span_of(text)));
}
