#include "queuefile/queuefile.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A line: magic u32, length u32 (of the payload), CRC32C u32 of the payload, payload, zeros to 8 bytes. */
enum { FATE_MAGIC = 0x45544146, FATE_HEADER = 12 };

void fates_name(uint64_t seq, char out[32])
{
	(void)snprintf(out, 32, "%016llx.log", (unsigned long long)seq);
}

void result_put(struct buffer *b, const struct result *r)
{
	buffer_put_u32(b, r->index);
	buffer_put_u32(b, r->outcome);
	buffer_put_u32(b, r->code);
	buffer_put_lspan(b, r->enhanced);
	buffer_put_lspan(b, r->text);
	buffer_put_lspan(b, r->peer);
}

bool result_take(struct span *rest, struct result *out)
{
	struct result r;
	if (!take_u32(rest, &r.index) || !take_u32(rest, &r.outcome) || !take_u32(rest, &r.code) ||
		!take_lspan(rest, &r.enhanced) || !take_lspan(rest, &r.text) || !take_lspan(rest, &r.peer))
		return false;
	*out = r;
	return true;
}

void fate_put(struct buffer *b, const struct fate *f)
{
	size_t at = b->n;
	buffer_put_u32(b, FATE_MAGIC);
	buffer_put_u64(b, 0);
	buffer_put_u8(b, (uint8_t)f->kind);
	buffer_put(b, f->id.text, QID_N);
	buffer_put_u32(b, f->report_kind);
	buffer_put_lspan(b, qid_span(&f->report));
	buffer_put_lspan(b, f->results);
	if (!buffer_ok(b))
		return;
	size_t n = b->n - at - FATE_HEADER;
	store_u32(b->at + at + 4, (uint32_t)n);
	store_u32(b->at + at + 8, crc32c(0, b->at + at + FATE_HEADER, n));
	while ((b->n - at) % 8 != 0 && buffer_ok(b))
		buffer_putc(b, '\0');
}

static int parse_payload(struct span p, struct fate *out)
{
	struct fate f = {0};
	uint8_t kind;
	struct span report;
	if (!take_u8(&p, &kind) || p.n < QID_N || qid_parse((struct span){p.at, QID_N}, &f.id) != 0)
		return EBADMSG;
	p.at += QID_N;
	p.n -= QID_N;
	if (!take_u32(&p, &f.report_kind) || !take_lspan(&p, &report) || !take_lspan(&p, &f.results))
		return EBADMSG;
	if (report.n > 0 && qid_parse(report, &f.report) != 0)
		return EBADMSG;
	f.kind = (enum fate_kind)kind;
	*out = f;
	return 0;
}

/* Steps over what is damaged, 8 bytes at a time: a later line is as true as if the earlier were there. */
bool fate_next(struct span *rest, struct fate *out)
{
	while (rest->n >= FATE_HEADER) {
		size_t n = load_u32(rest->at) == FATE_MAGIC ? load_u32(rest->at + 4) : SIZE_MAX;
		if (n <= rest->n - FATE_HEADER) {
			struct span payload = {rest->at + FATE_HEADER, n};
			if (crc32c(0, payload.at, n) == load_u32(rest->at + 8) && parse_payload(payload, out) == 0) {
				size_t step = (FATE_HEADER + n + 7) / 8 * 8;
				step = step > rest->n ? rest->n : step;
				rest->at += step;
				rest->n -= step;
				return true;
			}
		}
		size_t step = rest->n < 8 ? rest->n : 8;
		rest->at += step;
		rest->n -= step;
	}
	return false;
}

int fates_create(struct storage *st, int dir_fd, uint64_t seq, uint64_t size, struct fates_file *out)
{
	struct fates_file f = {.seq = seq, .size = size};
	fates_name(seq, f.name);
	int may = storage_check(st);
	if (may != 0)
		return may;
	f.fd = openat(dir_fd, f.name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (f.fd < 0)
		return errno;
	char *zeros = calloc(1, 1 << 20);
	int error = zeros == NULL ? ENOMEM : 0;
	for (uint64_t at = 0; at < size && error == 0; at += 1 << 20)
		error = st->write(st, f.fd, f.name, (struct span){zeros, size - at < 1 << 20 ? size - at : 1 << 20}, (off_t)at);
	free(zeros);
	if (error == 0)
		error = st->sync(st, f.fd, f.name);
	if (error == 0)
		error = st->sync_dir(st, dir_fd, ".");
	if (error != 0) {
		(void)close(f.fd);
		(void)unlinkat(dir_fd, f.name, 0);
		return error;
	}
	*out = f;
	return 0;
}

int fates_append(struct storage *st, struct fates_file *f, struct span lines)
{
	if (f->offset + lines.n > f->size)
		return ENOSPC;
	int error = st->write(st, f->fd, f->name, lines, (off_t)f->offset);
	if (error != 0)
		return error;
	f->offset += lines.n;
	f->dirty = true;
	return 0;
}

int fates_sync(struct storage *st, struct fates_file *f)
{
	if (!f->dirty)
		return 0;
	int error = st->sync(st, f->fd, f->name);
	if (error == 0)
		f->dirty = false;
	return error;
}
