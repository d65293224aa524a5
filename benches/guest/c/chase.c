/* Latency and bandwidth of memory: pointer chases and copies. */
#include "bench.h"

/* One cache line. */
struct node {
	struct node *next;
	u64 value[7];
};

#define SMALL (256UL << 10)
#define LARGE (64UL << 20)
#define SMALL_ROUNDS 1000UL

static struct node *nodes;
static u32 *order;

/* A cycle through all nodes in random order (Sattolo's shuffle). */
static void list_build(u64 bytes)
{
	u64 count = bytes / sizeof(struct node), seed = 42;
	nodes = bench_alloc(bytes);
	order = bench_alloc(count * sizeof *order);
	for (u64 i = 0; i < count; i++)
		order[i] = (u32)i;
	for (u64 i = count - 1; i > 0; i--) {
		u64 j = (bench_random(&seed) >> 33) % i;
		u32 held = order[i];
		order[i] = order[j];
		order[j] = held;
	}
	for (u64 i = 0; i < count; i++) {
		struct node *node = &nodes[order[i]];
		node->next = &nodes[order[(i + 1) % count]];
		node->value[0] = i;
	}
	bench_free(order, count * sizeof *order);
}

static u64 list_walk(u64 steps)
{
	struct node *node = nodes;
	u64 sum = 0;
	while (steps--) {
		sum += node->value[0];
		node = node->next;
	}
	return sum;
}

static void list256k_prepare(void) { list_build(SMALL); }
static u64 list256k_run(void) { return list_walk(SMALL / sizeof(struct node) * SMALL_ROUNDS); }
static void list256k_finish(void) { bench_free(nodes, SMALL); }
static void list64m_prepare(void) { list_build(LARGE); }
static u64 list64m_run(void) { return list_walk(LARGE / sizeof(struct node)); }
static void list64m_finish(void) { bench_free(nodes, LARGE); }

const struct row row_list256k = { "list256k", SMALL / sizeof(struct node) * SMALL_ROUNDS,
	list256k_prepare, list256k_run, list256k_finish };
const struct row row_list64m = { "list64m", LARGE / sizeof(struct node),
	list64m_prepare, list64m_run, list64m_finish };

#define COPY (64UL << 10)
#define COPY_ROUNDS 8000UL

static u64 *from, *to;

static void copy_prepare(void)
{
	u64 seed = 7;
	from = bench_alloc(COPY);
	/* Not a multiple of a page apart, or loads wait for the stores before them. */
	to = bench_alloc(COPY + 4096);
	to += 64;
	for (u64 i = 0; i < COPY / 8; i++)
		from[i] = bench_random(&seed);
}

static u64 copy_sum(void)
{
	u64 sum = 0;
	for (u64 i = 0; i < COPY / 8; i++)
		sum = bench_mix(sum, to[i]);
	return sum;
}

static void copy_finish(void)
{
	bench_free(from, COPY);
	bench_free(to - 64, COPY + 4096);
}

static u64 copy8_run(void)
{
	for (u64 round = 0; round < COPY_ROUNDS; round++) {
		from[round % 64] += round;
		for (u64 i = 0; i < COPY / 8; i++) {
			/* Neither vectorized nor made a call of memcpy. */
			u64 word = from[i];
			__asm__ volatile("" : "+r"(word));
			to[i] = word;
		}
	}
	for (u64 round = 0; round < COPY_ROUNDS; round++)
		from[round % 64] -= round;
	return copy_sum();
}

typedef u64 vector __attribute__((vector_size(16)));

static u64 copysse_run(void)
{
	for (u64 round = 0; round < COPY_ROUNDS; round++) {
		const vector *source = (const vector *)from;
		vector *target = (vector *)to;
		from[round % 64] += round;
		for (u64 i = 0; i < COPY / 16; i += 4) {
			vector a = source[i], b = source[i + 1], c = source[i + 2], d = source[i + 3];
			__asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d));
			target[i] = a;
			target[i + 1] = b;
			target[i + 2] = c;
			target[i + 3] = d;
		}
	}
	for (u64 round = 0; round < COPY_ROUNDS; round++)
		from[round % 64] -= round;
	return copy_sum();
}

const struct row row_copy8 = { "copy8", COPY_ROUNDS, copy_prepare, copy8_run, copy_finish };
const struct row row_copysse = { "copysse", COPY_ROUNDS, copy_prepare, copysse_run, copy_finish };
