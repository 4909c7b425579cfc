#include "queuefile/queuefile.h"

#include <string.h>

/* eight bytes, no text: there is no NUL behind them */
static const char batch_magic[8] = {'P', 'H', 'B', 'A', 'T', 'C', 'H', '1'}, record_magic[8] = {'P', 'H', 'R', 'E', 'C', 'O', 'R', 'D'};
enum {
	/* batch: magic 8, random 16, number 8, synced_to 8, length 4, records 4, ends_seq 8, ends_at 8, CRC 4, pad 4 */
	BATCH_HEADER = 72, BATCH_CRC_AT = 64,
	/* record: magic 8, random 16, id 16, envelope length 4, content length 4, whole length 4, pad 8, CRC 4 */
	RECORD_CRC_AT = 60,
	BATCH_LIMIT = 64 * 1024 * 1024,
};

void batch_begin(struct batch *b)
{
	if (b->bytes.limit == 0)
		buffer_init(&b->bytes, BATCH_LIMIT);
	buffer_clear(&b->bytes);
	b->records = 0;
	static const char zeros[BATCH_HEADER];
	buffer_put(&b->bytes, zeros, BATCH_HEADER);
}

static size_t padding(size_t n, size_t to)
{
	return (to - n % to) % to;
}

static void put_padding(struct buffer *b, size_t to)
{
	static const char zeros[SEGMENT_BLOCK];
	buffer_put(b, zeros, padding(b->n, to));
}

static void put_record(struct buffer *b, const char *random, const struct qid *id, struct span envelope,
	const struct span *pieces, size_t pieces_n)
{
	char head[RECORD_HEADER] = {0};
	size_t content = 0, at = b->n;
	for (size_t i = 0; i < pieces_n; i++)
		content += pieces[i].n;
	size_t length = RECORD_HEADER + envelope.n + content;
	if (length > UINT32_MAX / 2 || buffer_reserve(b, length + 8) != 0) {
		b->failed = true;
		return;
	}
	memcpy(head, record_magic, 8);
	if (random != NULL)
		memcpy(head + 8, random, SEGMENT_RANDOM);
	memcpy(head + 24, id->text, QID_N);
	store_u32(head + 40, (uint32_t)envelope.n);
	store_u32(head + 44, (uint32_t)content);
	store_u32(head + 48, (uint32_t)length);
	buffer_put(b, head, sizeof head);
	buffer_put_span(b, envelope);
	for (size_t i = 0; i < pieces_n; i++)
		buffer_put_span(b, pieces[i]);
	store_u32(b->at + at + RECORD_CRC_AT, crc32c(0, b->at + at, length));
	put_padding(b, 8);
}

size_t batch_add(struct batch *b, const struct segment_writer *w, const struct qid *id, struct span envelope,
	const struct span *pieces, size_t pieces_n)
{
	size_t at = b->bytes.n;
	put_record(&b->bytes, w->segment.random, id, envelope, pieces, pieces_n);
	b->records++;
	return at;
}

size_t batch_bytes(const struct batch *b)
{
	return b->bytes.n + padding(b->bytes.n, SEGMENT_BLOCK);
}

int batch_commit(struct storage *st, struct segment_writer *w, struct batch *b)
{
	size_t length = b->bytes.n;
	put_padding(&b->bytes, SEGMENT_BLOCK);
	if (!buffer_ok(&b->bytes))
		return ENOMEM;
	if (w->offset + b->bytes.n > w->segment.size)
		return ENOSPC;
	char *h = b->bytes.at;
	memcpy(h, batch_magic, 8);
	memcpy(h + 8, w->segment.random, SEGMENT_RANDOM);
	store_u64(h + 24, ++w->number);
	store_u64(h + 32, w->synced_to);
	store_u32(h + 40, (uint32_t)length);
	store_u32(h + 44, b->records);
	store_u64(h + 48, w->ends_seq);
	store_u64(h + 56, w->ends_at);
	store_u32(h + BATCH_CRC_AT, crc32c(0, h, BATCH_CRC_AT));
	int error = st->write(st, w->segment.fd, w->segment.name, buffer_span(&b->bytes), (off_t)w->offset);
	if (error == 0)
		error = st->sync(st, w->segment.fd, w->segment.name);
	if (error != 0)
		return error;
	w->offset += b->bytes.n;
	w->synced_to = w->offset;
	return 0;
}

int record_parse(struct span bytes, const char *random, struct record *out)
{
	static const char none[SEGMENT_RANDOM];
	if (bytes.n < RECORD_HEADER || memcmp(bytes.at, record_magic, 8) != 0 ||
		memcmp(bytes.at + 8, random == NULL ? none : random, SEGMENT_RANDOM) != 0)
		return EBADMSG;
	uint64_t envelope = load_u32(bytes.at + 40), content = load_u32(bytes.at + 44), length = load_u32(bytes.at + 48);
	if (length != RECORD_HEADER + envelope + content || length > bytes.n)
		return EBADMSG;
	/* the CRC is made with its own field zero */
	static const char zero[4];
	uint32_t crc = crc32c(0, bytes.at, RECORD_CRC_AT);
	crc = crc32c(crc, zero, 4);
	crc = crc32c(crc, bytes.at + RECORD_HEADER, length - RECORD_HEADER);
	struct record r = {.length = (uint32_t)length};
	if (crc != load_u32(bytes.at + RECORD_CRC_AT) || qid_parse((struct span){bytes.at + 24, QID_N}, &r.id) != 0)
		return EBADMSG;
	r.envelope = (struct span){bytes.at + RECORD_HEADER, envelope};
	r.content = (struct span){bytes.at + RECORD_HEADER + envelope, content};
	*out = r;
	return 0;
}

int segment_reader_open(int dir_fd, uint64_t seq, struct segment_reader *out)
{
	struct segment_reader r = {.offset = SEGMENT_BLOCK, .synced_to = SEGMENT_BLOCK};
	int error = segment_open(dir_fd, seq, false, &r.segment);
	if (error != 0)
		return error;
	buffer_init(&r.batch, BATCH_LIMIT + SEGMENT_BLOCK);
	*out = r;
	return 0;
}

void segment_reader_close(struct segment_reader *r)
{
	segment_close(&r->segment);
	buffer_free(&r->batch);
}

static bool batch_head_is_good(const struct segment_reader *r, const char *h)
{
	return memcmp(h, batch_magic, 8) == 0 && memcmp(h + 8, r->segment.random, SEGMENT_RANDOM) == 0 &&
		load_u32(h + BATCH_CRC_AT) == crc32c(0, h, BATCH_CRC_AT) && load_u32(h + 40) >= BATCH_HEADER &&
		r->offset + load_u32(h + 40) <= r->segment.size;
}

/* Finds the next batch at or after r->offset; a damaged head costs that batch, not what follows.
 * A reader that keeps up has one batch before it: head and records come by one read. */
static int load_batch(struct segment_reader *r, uint64_t end)
{
	enum { AT_ONCE = 64 * 1024 };
	r->bad_at = r->offset;
	r->bad_n = 0;
	for (; r->offset + BATCH_HEADER <= end; r->offset += SEGMENT_BLOCK) {
		size_t have = end - r->offset <= AT_ONCE ? (size_t)(end - r->offset) : BATCH_HEADER;
		buffer_clear(&r->batch);
		int error = buffer_reserve(&r->batch, have);
		if (error == 0)
			error = pread_all(r->segment.fd, r->batch.at, have, (off_t)r->offset);
		if (error != 0)
			return error == ENODATA ? ENOENT : error;
		if (!batch_head_is_good(r, r->batch.at)) {
			r->bad_n += SEGMENT_BLOCK;
			continue;
		}
		size_t n = load_u32(r->batch.at + 40);
		r->batch.n = have < n ? have : n;
		error = buffer_reserve(&r->batch, n - r->batch.n);
		if (error == 0 && n > have)
			error = pread_all(r->segment.fd, r->batch.at + have, n - have, (off_t)(r->offset + have));
		if (error != 0)
			return error;
		r->batch.n = n;
		const char *h = r->batch.at;
		if (load_u64(h + 32) > r->synced_to)
			r->synced_to = load_u64(h + 32);
		r->ends_seq = load_u64(h + 48);
		r->ends_at = load_u64(h + 56);
		r->rest = (struct span){h + BATCH_HEADER, n - BATCH_HEADER};
		r->record_at = r->offset + BATCH_HEADER;
		r->offset += n + padding(n, SEGMENT_BLOCK);
		return 0;
	}
	return ENOENT;
}

int segment_reader_next(struct segment_reader *r, uint64_t end, struct record *out)
{
	while (r->rest.n < RECORD_HEADER) {
		int error = load_batch(r, end);
		if (r->bad_n > 0 && (error == 0 || (error == ENOENT && end != UINT64_MAX)))
			return EBADMSG; /* heads that should be there: the batch behind them, if any, is next */
		if (error != 0)
			return error;
	}
	int error = record_parse(r->rest, r->segment.random, out);
	if (error != 0) { /* lengths can't be trusted: the rest of this batch is lost */
		r->bad_at = r->record_at;
		r->bad_n = r->rest.n;
		r->rest.n = 0;
		return EBADMSG;
	}
	out->seq = r->segment.seq;
	out->offset = r->record_at;
	size_t step = out->length + padding(out->length, 8);
	if (step > r->rest.n)
		step = r->rest.n;
	r->rest.at += step;
	r->rest.n -= step;
	r->record_at += step;
	return 0;
}

int segment_scan_end(int dir_fd, uint64_t seq, uint64_t *end, uint64_t *ends_seq, uint64_t *ends_at)
{
	struct segment_reader r;
	int error = segment_reader_open(dir_fd, seq, &r);
	if (error != 0)
		return error;
	*end = SEGMENT_BLOCK;
	*ends_seq = *ends_at = 0;
	while ((error = load_batch(&r, r.segment.size)) == 0) {
		*end = r.offset;
		*ends_seq = r.ends_seq;
		*ends_at = r.ends_at;
	}
	segment_reader_close(&r);
	return error == ENOENT ? 0 : error;
}

void wait_put(struct buffer *b, const struct qid *id, struct span envelope, struct span content, struct span fates)
{
	put_record(b, NULL, id, envelope, &content, 1);
	buffer_put_span(b, fates);
}

int wait_parse(struct span bytes, struct record *out, struct span *fates)
{
	int error = record_parse(bytes, NULL, out);
	if (error != 0)
		return error;
	size_t n = out->length + padding(out->length, 8);
	*fates = n <= bytes.n ? (struct span){bytes.at + n, bytes.n - n} : (struct span){bytes.at, 0};
	return 0;
}
