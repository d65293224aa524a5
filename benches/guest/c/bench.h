/* What the kernels share. No header of the C library, so that any C compiler can take them as its input (row gcc). */
#ifndef BENCH_H
#define BENCH_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

/* One row. A pass is `run` once; its result is the same on every machine. */
struct row {
	const char *name;
	/* Operations in a pass: what the time is divided by. */
	u64 operations;
	/* May be null, as may `finish`. Not timed. */
	void (*prepare)(void);
	u64 (*run)(void);
	void (*finish)(void);
};

/* Zeroed memory in pages of 4 KiB; does not return without. */
void *bench_alloc(u64 bytes);
void bench_free(void *memory, u64 bytes);
/* Ends the program with a message. */
void bench_fail(const char *what);

/* xorshift64*. */
static inline u64 bench_random(u64 *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545F4914F6CDD1DUL;
}

/* One step of a checksum over words. */
static inline u64 bench_mix(u64 sum, u64 value)
{
	return (sum ^ value) * 0x100000001B3UL;
}

#endif
