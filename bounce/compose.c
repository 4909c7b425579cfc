/* The text of a report: for people, for machines, the message it is about. */
#include "bounce.h"

#include <stdio.h>
#include <string.h>

static const struct kind {
	const char *subject, *action, *lead;
} kinds[] = {
	[REPORT_FAILURE] = {"Undelivered mail returned to sender", "failed",
		"Your message could not be delivered to one or more recipients.\r\nIt is attached below, or its header is.\r\n"},
	[REPORT_DELAY] = {"Delayed mail (still being tried)", "delayed",
		"Your message has not been delivered yet. THIS IS A NOTICE ONLY:\r\nyou need not send it again, it is still being tried.\r\n"},
	[REPORT_SUCCESS] = {"Successful mail delivery report", "relayed",
		"Your message was delivered, or handed to a system that will not report about it.\r\n"},
	[REPORT_COPY] = {"Copy of a report: undelivered mail", "failed",
		"A message could not be delivered; its sender was told. It is attached below.\r\n"},
};

static void put_line_safe(struct buffer *b, struct span s)
{
	for (size_t i = 0; i < s.n && i < 900; i++) {
		unsigned char c = (unsigned char)s.at[i];
		buffer_putc(b, (char)(c < 0x20 || c == 0x7f ? ' ' : c));
	}
}

static void put_header(struct buffer *b, const struct report *r, const char *boundary)
{
	struct received rec = {.by = span_of(r->p->fqdn), .id = qid_span(&r->id), .local_user = SPAN_LIT("report"), .wall_s = r->wall_s};
	received_put(b, &rec);
	buffer_printf(b, "From: Mail Delivery System <postmaster@%s>\r\nTo: <%.*s>\r\nSubject: %s\r\nDate: ", r->p->fqdn, SPAN_ARG(r->to),
		kinds[r->kind].subject);
	date_put(b, r->wall_s);
	buffer_printf(b, "\r\nMessage-ID: <%s@%s>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n", r->id.text, r->p->fqdn);
	if ((r->e->flags & ENV_8BIT) != 0)
		buffer_puts(b, "Content-Transfer-Encoding: 8bit\r\n");
	buffer_printf(b, "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"\r\n\r\n"
		"This is a MIME-encapsulated message.\r\n\r\n", boundary);
}

static void put_for_people(struct buffer *b, const struct report *r, const char *boundary)
{
	struct span rest = r->results;
	struct result x;
	buffer_printf(b, "--%s\r\nContent-Description: Notification\r\nContent-Type: text/plain; charset=%s\r\n\r\n"
		"This is the mail system at %s.\r\n\r\n%s\r\n", boundary, (r->e->flags & ENV_8BIT) != 0 ? "utf-8" : "us-ascii", r->p->fqdn, kinds[r->kind].lead);
	while (result_take(&rest, &x)) {
		if (x.index >= r->e->rcpts_n)
			continue;
		buffer_putc(b, '<');
		put_line_safe(b, r->e->rcpts[x.index].address);
		buffer_puts(b, ">: ");
		put_line_safe(b, x.text);
		buffer_puts(b, "\r\n");
	}
	buffer_puts(b, "\r\n");
}

static void put_original_recipient(struct buffer *b, const struct envelope_rcpt *rcpt)
{
	if (rcpt->orcpt.n == 0)
		return;
	struct span rest = rcpt->orcpt;
	struct span type = span_until(&rest, ';');
	buffer_puts(b, "Original-Recipient: ");
	put_line_safe(b, type);
	buffer_putc(b, ';');
	xtext_put_decoded(b, rest);
	buffer_puts(b, "\r\n");
}

static const char *action_of(const struct report *r, const struct result *x)
{
	bool here = span_is(x->peer, "drop") || span_is(x->peer, "local") || (x->peer.n > 5 && memcmp(x->peer.at, "lmtp/", 5) == 0);
	if (x->outcome == OUTCOME_EXPANDED)
		return "expanded";
	if (r->kind == REPORT_SUCCESS && here)
		return "delivered";
	return kinds[r->kind].action;
}

static void put_recipient(struct buffer *b, const struct report *r, const struct result *x)
{
	const struct envelope_rcpt *rcpt = &r->e->rcpts[x->index];
	const char *class = r->kind == REPORT_FAILURE || r->kind == REPORT_COPY ? "5" : r->kind == REPORT_DELAY ? "4" : "2";
	struct span status = x->enhanced.n > 0 ? x->enhanced : SPAN_LIT("0.0.0");
	buffer_puts(b, "\r\n");
	put_original_recipient(b, rcpt);
	buffer_puts(b, "Final-Recipient: rfc822;");
	put_line_safe(b, rcpt->address);
	/* RFC 3464 2.3.4: a failure is 5.x.x or, for an expiry, 4.x.x; ours say what the action says */
	if (status.at[0] == '0')
		buffer_printf(b, "\r\nAction: %s\r\nStatus: %s.0.0\r\n", action_of(r, x), class);
	else
		buffer_printf(b, "\r\nAction: %s\r\nStatus: %.*s\r\n", action_of(r, x), SPAN_ARG(status));
	if (x->code != 0 && memchr(x->peer.at, '[', x->peer.n) != NULL) {
		struct span peer = x->peer;
		buffer_puts(b, "Remote-MTA: dns; ");
		put_line_safe(b, span_until(&peer, '['));
		buffer_puts(b, "\r\nDiagnostic-Code: smtp; ");
	} else {
		buffer_puts(b, "Diagnostic-Code: X-Posthorn; ");
	}
	put_line_safe(b, x->text);
	buffer_puts(b, "\r\n");
	if (r->kind == REPORT_DELAY) {
		buffer_puts(b, "Will-Retry-Until: ");
		date_put(b, r->e->arrived_us / 1000000 + r->p->out.expiry);
		buffer_puts(b, "\r\n");
	}
}

static void put_for_machines(struct buffer *b, const struct report *r, const char *boundary)
{
	struct span rest = r->results;
	struct result x;
	buffer_printf(b, "--%s\r\nContent-Description: Delivery report\r\nContent-Type: message/delivery-status\r\n\r\n", boundary);
	buffer_printf(b, "Reporting-MTA: dns; %s\r\n", r->p->fqdn);
	if (r->e->envid.n > 0) {
		buffer_puts(b, "Original-Envelope-Id: ");
		xtext_put_decoded(b, r->e->envid);
		buffer_puts(b, "\r\n");
	}
	buffer_printf(b, "X-Posthorn-Queue-ID: %s\r\nArrival-Date: ", r->parent.text);
	date_put(b, r->e->arrived_us / 1000000);
	buffer_puts(b, "\r\n");
	while (result_take(&rest, &x))
		if (x.index < r->e->rcpts_n)
			put_recipient(b, r, &x);
	buffer_puts(b, "\r\n");
}

static struct span header_of(struct span content)
{
	struct span rest = content;
	struct header_field f;
	while (header_next(&rest, &f))
		;
	return (struct span){content.at, content.n - rest.n};
}

static void put_head_of_original(struct buffer *b, const struct report *r, const char *boundary)
{
	bool whole = r->original != ORIGINAL_HEADER;
	buffer_printf(b, "--%s\r\nContent-Description: Undelivered Message%s\r\nContent-Type: %s\r\n", boundary, whole ? "" : " Headers",
		whole ? "message/rfc822" : "text/rfc822-headers");
	if ((r->e->flags & ENV_8BIT) != 0)
		buffer_puts(b, "Content-Transfer-Encoding: 8bit\r\n");
	buffer_puts(b, "\r\n");
}

/* The line end before the boundary belongs to the boundary (RFC 2046 5.1.1): the original keeps its own last one, or none. */
void report_compose(struct buffer *head, struct buffer *tail, const struct report *r)
{
	char boundary[64];
	(void)snprintf(boundary, sizeof boundary, "=_%s/%s", r->id.text, "report");
	put_header(head, r, boundary);
	put_for_people(head, r, boundary);
	put_for_machines(head, r, boundary);
	put_head_of_original(head, r, boundary);
	if (r->original != ORIGINAL_FILE)
		buffer_put_span(head, r->original == ORIGINAL_WHOLE ? r->content : header_of(r->content));
	buffer_printf(tail, "\r\n--%s--\r\n", boundary);
}

/* The line that shows a loop is left out where an address is the recipient's own: what comes there is to be delivered. */
void expansion_compose(struct buffer *b, const struct report *r)
{
	struct span rest = r->results;
	struct result x;
	struct received rec = {.by = span_of(r->p->fqdn), .id = qid_span(&r->id), .local_user = SPAN_LIT("alias"), .wall_s = r->wall_s};
	received_put(b, &rec);
	if (!result_take(&rest, &x) || x.index >= r->e->rcpts_n || (x.text.n > 0 && x.text.at[0] == '\\'))
		return;
	buffer_puts(b, "Delivered-To: ");
	put_line_safe(b, r->e->rcpts[x.index].address);
	buffer_puts(b, "\r\n");
}

void damage_compose(struct buffer *b, const struct qid *id, const struct server_params *p, struct span lines, int64_t wall_s)
{
	struct received rec = {.by = span_of(p->fqdn), .id = qid_span(id), .local_user = SPAN_LIT("report"), .wall_s = wall_s};
	received_put(b, &rec);
	buffer_printf(b, "From: Mail Delivery System <postmaster@%s>\r\nTo: <postmaster@%s>\r\nSubject: Damaged mail was set aside\r\nDate: ",
		p->fqdn, p->default_domain);
	date_put(b, wall_s);
	buffer_printf(b, "\r\nMessage-ID: <%s@%s>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
		"Content-Transfer-Encoding: 8bit\r\n\r\nThis is the mail system at %s.\r\n\r\nThe following failed its check and was set aside. It may hold mail that\r\n"
		"was accepted and is not delivered. Look at the disk first; all other mail goes on.\r\n\r\n", id->text, p->fqdn, p->fqdn);
	buffer_put_span(b, lines);
}
