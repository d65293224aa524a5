/* Text: an LZ77 match finder, and a tokenizer that counts words by their CRC. */
#include "bench.h"

#define TEXT (1UL << 20)
#define LZ_ROUNDS 10UL
#define STR_ROUNDS 5UL

static const char *const words[16] = { "processor", "the", "page", "of", "interrupt", "and", "table", "a",
	"register", "to", "memory", "in", "instruction", "is", "exception", "guest" };

static u8 *text;
static u32 *heads;

static void text_prepare(void)
{
	u64 seed = 99, at = 0;
	text = bench_alloc(TEXT + 64);
	heads = bench_alloc(sizeof(u32) << 16);
	while (at < TEXT - 16) {
		u64 random = bench_random(&seed);
		for (const char *c = words[random >> 60]; *c; c++)
			text[at++] = (u8)*c;
		if (!(random & 7)) {
			text[at++] = (u8)('0' + (random >> 8) % 10);
			text[at++] = (u8)('0' + (random >> 16) % 10);
		}
		text[at++] = random & 0x3F00 ? ' ' : '\n';
	}
	while (at < TEXT)
		text[at++] = '\n';
}

static void text_finish(void)
{
	bench_free(text, TEXT + 64);
	bench_free(heads, sizeof(u32) << 16);
}

/* Greedy matches of at least four bytes, found through the last place with the same hash. */
static u64 lz_round(void)
{
	u64 sum = 0, literals = 0, at = 0;
	for (u32 i = 0; i < 1 << 16; i++)
		heads[i] = 0;
	while (at < TEXT - 8) {
		u32 word, other, length = 0;
		__builtin_memcpy(&word, text + at, 4);
		u32 *head = &heads[word * 2654435761U >> 16], candidate = *head;
		*head = (u32)at;
		__builtin_memcpy(&other, text + candidate, 4);
		if (other == word && candidate < at)
			for (length = 4; length < 258 && at + length < TEXT && text[candidate + length] == text[at + length];)
				length++;
		if (length) {
			sum = bench_mix(sum, (at - candidate) << 16 | length);
			at += length;
		} else {
			literals++;
			at++;
		}
	}
	return bench_mix(sum, literals);
}

static u64 lz_run(void)
{
	u64 sum = 0;
	for (u64 round = 0; round < LZ_ROUNDS; round++)
		sum = bench_mix(sum, lz_round());
	return sum;
}

const struct row row_lz = { "lz", TEXT * LZ_ROUNDS, text_prepare, lz_run, text_finish };

static u32 crc_table[256];

static void str_prepare(void)
{
	text_prepare();
	for (u32 i = 0; i < 256; i++) {
		u32 crc = i;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320U : 0);
		crc_table[i] = crc;
	}
}

static int equal(const u8 *word, const char *name, u64 length)
{
	for (u64 i = 0; i < length; i++)
		if (word[i] != (u8)name[i])
			return 0;
	return name[length] == 0;
}

static u64 str_round(void)
{
	u64 sum = 0, at = 0, known[16] = { 0 };
	while (at < TEXT) {
		u64 begin = at;
		u32 crc = ~0U;
		while (at < TEXT && text[at] > ' ') {
			crc = crc >> 8 ^ crc_table[(crc ^ text[at]) & 255];
			at++;
		}
		for (u64 i = 0; i < 16; i++)
			if (at > begin && words[i][0] == (char)text[begin] && equal(text + begin, words[i], at - begin))
				known[i]++;
		sum = bench_mix(sum, crc);
		at++;
	}
	for (int i = 0; i < 16; i++)
		sum = bench_mix(sum, known[i]);
	return sum;
}

static u64 str_run(void)
{
	u64 sum = 0;
	for (u64 round = 0; round < STR_ROUNDS; round++)
		sum = bench_mix(sum, str_round());
	return sum;
}

const struct row row_str = { "str", TEXT * STR_ROUNDS, str_prepare, str_run, text_finish };
