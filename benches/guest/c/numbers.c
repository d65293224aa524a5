/* Arithmetic: doubles, numbers of many words, AVX2. */
#include "bench.h"

#define SIZE 96
#define PRODUCTS 40UL

static double *left, *right, *product;

static void matmul_prepare(void)
{
	u64 bytes = SIZE * SIZE * sizeof(double), seed = 23;
	left = bench_alloc(bytes);
	right = bench_alloc(bytes);
	product = bench_alloc(bytes);
	for (int i = 0; i < SIZE * SIZE; i++) {
		left[i] = (double)(bench_random(&seed) >> 44);
		right[i] = (double)(bench_random(&seed) >> 44);
	}
}

static void matmul_finish(void)
{
	u64 bytes = SIZE * SIZE * sizeof(double);
	bench_free(left, bytes);
	bench_free(right, bytes);
	bench_free(product, bytes);
}

static u64 matmul_run(void)
{
	u64 sum = 0;
	for (u64 round = 0; round < PRODUCTS; round++) {
		left[round] += 1.0;
		for (int i = 0; i < SIZE; i++)
			for (int j = 0; j < SIZE; j++) {
				double total = 0;
				for (int k = 0; k < SIZE; k++)
					total += left[i * SIZE + k] * right[k * SIZE + j];
				product[i * SIZE + j] = total;
			}
		/* Sums of products of integers below 2^20: exact. */
		for (int i = 0; i < SIZE * SIZE; i++)
			sum = bench_mix(sum, (u64)product[i]);
	}
	for (u64 round = 0; round < PRODUCTS; round++)
		left[round] -= 1.0;
	return sum;
}

const struct row row_matmul = { "matmul", PRODUCTS, matmul_prepare, matmul_run, matmul_finish };

#define LIMBS 64
#define MULTIPLICATIONS 6000UL

static u64 bignum_run(void)
{
	u64 a[LIMBS], b[LIMBS], c[2 * LIMBS], seed = 31, sum = 0;
	for (int i = 0; i < LIMBS; i++) {
		a[i] = bench_random(&seed);
		b[i] = bench_random(&seed);
	}
	for (u64 round = 0; round < MULTIPLICATIONS; round++) {
		for (int i = 0; i < 2 * LIMBS; i++)
			c[i] = 0;
		for (int i = 0; i < LIMBS; i++) {
			u64 carry = 0;
			for (int j = 0; j < LIMBS; j++) {
				unsigned __int128 t = (unsigned __int128)a[i] * b[j] + c[i + j] + carry;
				c[i + j] = (u64)t;
				carry = (u64)(t >> 64);
			}
			c[i + LIMBS] = carry;
		}
		a[round % LIMBS] ^= c[LIMBS];
		sum = bench_mix(sum, c[2 * LIMBS - 1]);
	}
	return sum;
}

const struct row row_bignum = { "bignum", MULTIPLICATIONS, 0, bignum_run, 0 };

typedef u32 lanes __attribute__((vector_size(32)));

#define LANES 2048
#define AVX2_ROUNDS 14000UL

static lanes *vectors;

static void avx2_prepare(void)
{
	u64 seed = 37;
	vectors = bench_alloc(LANES * sizeof *vectors / 2);
	for (u64 i = 0; i < LANES * sizeof *vectors / 2 / 4; i++)
		((u32 *)vectors)[i] = (u32)(bench_random(&seed) >> 32);
}

static void avx2_finish(void) { bench_free(vectors, LANES * sizeof *vectors / 2); }

/* Integer multiply, shift, permute and add on 256 bits; what lies in memory is only read. */
__attribute__((target("avx2"))) static u64 avx2_run(void)
{
	static const lanes turned = { 1, 2, 3, 4, 5, 6, 7, 0 };
	lanes sum = { 1, 2, 3, 4, 5, 6, 7, 8 };
	u64 total = 0;
	for (u64 round = 0; round < AVX2_ROUNDS; round++)
		for (u64 i = 0; i < LANES / 2; i++) {
			lanes v = vectors[i] ^ (sum >> 7);
			sum = __builtin_shuffle(sum, turned) + v * 2654435761U;
		}
	for (int i = 0; i < 8; i++)
		total = bench_mix(total, sum[i]);
	return total;
}

const struct row row_avx2 = { "avx2", AVX2_ROUNDS, avx2_prepare, avx2_run, avx2_finish };
