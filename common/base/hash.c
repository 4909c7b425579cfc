#include "base/base.h"

uint32_t keyed_hash(const struct hash_secret *secret, const uint32_t *words, size_t n)
{
	uint64_t sum = secret->factors[HASH_WORDS];
	for (size_t i = 0; i < n && i < HASH_WORDS; i++)
		sum += secret->factors[i] * words[i];
	return (uint32_t)(sum >> 32);
}
