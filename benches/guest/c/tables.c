/* Data structures: an open hash table, a binary search tree, quicksort. */
#include "bench.h"

#define SLOTS (1UL << 18)
#define KEYS (SLOTS * 3 / 4)
#define HASH_ROUNDS 2UL

static u64 *slots;

static void hash_prepare(void) { slots = bench_alloc(SLOTS * 16); }
static void hash_finish(void) { bench_free(slots, SLOTS * 16); }

static u64 *hash_slot(u64 key)
{
	u64 at = (key * 0x9E3779B97F4A7C15UL) >> 46;
	while (slots[at * 2] != 0 && slots[at * 2] != key)
		at = (at + 1) % SLOTS;
	return &slots[at * 2];
}

static u64 hash_round(u64 seed)
{
	u64 again = seed, sum = 0;
	for (u64 i = 0; i < SLOTS * 2; i++)
		slots[i] = 0;
	for (u64 i = 0; i < KEYS; i++) {
		u64 key = bench_random(&seed) | 1, *slot = hash_slot(key);
		slot[0] = key;
		slot[1] += i;
	}
	seed = again;
	for (u64 i = 0; i < KEYS; i++) {
		u64 key = bench_random(&seed) | 1;
		sum += hash_slot(key)[1];
		sum += hash_slot(key ^ 2)[1];
	}
	return sum;
}

static u64 hash_run(void)
{
	u64 sum = 0;
	for (u64 round = 0; round < HASH_ROUNDS; round++)
		sum = bench_mix(sum, hash_round(11 + round));
	return sum;
}

const struct row row_hash = { "hash", KEYS * 3 * HASH_ROUNDS, hash_prepare, hash_run, hash_finish };

struct leaf {
	struct leaf *child[2];
	u64 key, count;
};

#define LEAVES (1UL << 15)
#define TREE_ROUNDS 4UL

static struct leaf *leaves;

static void tree_prepare(void) { leaves = bench_alloc(LEAVES * sizeof *leaves); }
static void tree_finish(void) { bench_free(leaves, LEAVES * sizeof *leaves); }

static struct leaf *tree_find(struct leaf *root, u64 key, struct leaf *fresh)
{
	struct leaf **place = &root;
	while (*place && (*place)->key != key)
		place = &(*place)->child[key > (*place)->key];
	if (!*place && fresh) {
		*fresh = (struct leaf){ .key = key };
		*place = fresh;
	}
	return *place;
}

static u64 tree_run(void)
{
	u64 sum = 0;
	for (u64 round = 0; round < TREE_ROUNDS; round++) {
		u64 seed = 5 + round, used = 1;
		leaves[0] = (struct leaf){ .key = 1UL << 19 };
		for (u64 i = 0; i < LEAVES - 1; i++) {
			u64 key = bench_random(&seed) >> 44;
			struct leaf *leaf = tree_find(leaves, key, &leaves[used]);
			used += leaf == &leaves[used];
			leaf->count++;
		}
		for (u64 i = 0; i < LEAVES; i++) {
			struct leaf *leaf = tree_find(leaves, bench_random(&seed) >> 44, 0);
			sum = bench_mix(sum, leaf ? leaf->count : used);
		}
	}
	return sum;
}

const struct row row_tree = { "tree", LEAVES * 2 * TREE_ROUNDS, tree_prepare, tree_run, tree_finish };

#define SORTED (16UL << 10)
#define SORTS 32UL

static u64 *numbers;

static void qsort_prepare(void) { numbers = bench_alloc(SORTED * 8); }
static void qsort_finish(void) { bench_free(numbers, SORTED * 8); }

static void quicksort(u64 *low, u64 *high)
{
	while (high - low > 16) {
		u64 pivot = low[(high - low) / 2], *i = low, *j = high - 1;
		for (;; i++, j--) {
			while (*i < pivot)
				i++;
			while (*j > pivot)
				j--;
			if (i >= j)
				break;
			u64 held = *i;
			*i = *j;
			*j = held;
		}
		quicksort(low, i);
		low = i;
	}
	for (u64 *i = low + 1; i < high; i++) {
		u64 held = *i, *j = i;
		for (; j > low && j[-1] > held; j--)
			*j = j[-1];
		*j = held;
	}
}

static u64 qsort_run(void)
{
	u64 seed = 3, sum = 0;
	for (u64 sort = 0; sort < SORTS; sort++) {
		for (u64 i = 0; i < SORTED; i++)
			numbers[i] = bench_random(&seed) >> 8;
		quicksort(numbers, numbers + SORTED);
		for (u64 i = 1; i < SORTED; i++)
			if (numbers[i - 1] > numbers[i])
				bench_fail("not sorted");
		sum = bench_mix(sum, numbers[SORTED / 3]);
	}
	return sum;
}

const struct row row_qsort = { "qsort", SORTED * SORTS, qsort_prepare, qsort_run, qsort_finish };
