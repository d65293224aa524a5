/* Litmus tests of x86's memory order (SDM vol. 3, 10.2.3): how often each outcome is seen.
 *
 *     litmus ROUNDS
 *
 * The threads of a test meet before each round, which has variables of its own. A line for each test
 * tells its name, how often the outcome was seen that the name stands for, and the rounds. Outcomes
 * that the memory order forbids are marked; the program's status is 1 if one was seen. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 4
/* Rounds between two looks at the outcomes. */
#define BATCH 1024
/* Each variable has a cache line of its own. */
struct line { volatile unsigned long v; char rest[56]; } __attribute__((aligned(64)));

/* One round. */
static struct round {
	struct line x, y;
	/* A word in it begins before a cache line's end. */
	char span[128];
	unsigned long seen[THREADS][2];
} __attribute__((aligned(64))) batch[BATCH];

static struct line arrived;

static inline unsigned long load(struct line *l)
{
	unsigned long v;
	asm volatile("mov %1, %0" : "=r"(v) : "m"(l->v) : "memory");
	return v;
}
static inline void store(struct line *l, unsigned long v)
{
	asm volatile("mov %1, %0" : "=m"(l->v) : "r"(v) : "memory");
}
static inline void locked_store(struct line *l, unsigned long v)
{
	asm volatile("xchg %1, %0" : "+m"(l->v), "+r"(v) : : "memory");
}
static inline void fence(void) { asm volatile("mfence" ::: "memory"); }
static inline void serialize(void)
{
	unsigned a = 0, b, c = 0, d;
	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}

/* What thread `t` does in one round, for each test. */
#define STORE_BUFFERING(name, put, between) \
	static void name(struct round *r, int t) \
	{ \
		struct line *own = t ? &r->y : &r->x, *other = t ? &r->x : &r->y; \
		put(own, 1); \
		between; \
		r->seen[t][0] = load(other); \
	}
STORE_BUFFERING(sb, store, )
STORE_BUFFERING(sb_fence, store, fence())
STORE_BUFFERING(sb_locked, locked_store, )
STORE_BUFFERING(sb_cpuid, store, serialize())

static void mp(struct round *r, int t)
{
	if (t == 0) {
		store(&r->x, 1);
		store(&r->y, 1);
	} else {
		r->seen[1][0] = load(&r->y);
		r->seen[1][1] = load(&r->x);
	}
}

static void lb(struct round *r, int t)
{
	struct line *own = t ? &r->y : &r->x, *other = t ? &r->x : &r->y;
	r->seen[t][0] = load(own);
	store(other, 1);
}

static void iriw(struct round *r, int t)
{
	if (t == 0) {
		store(&r->x, 1);
	} else if (t == 1) {
		store(&r->y, 1);
	} else {
		r->seen[t][0] = load(t == 2 ? &r->x : &r->y);
		r->seen[t][1] = load(t == 2 ? &r->y : &r->x);
	}
}

static void iriw_locked(struct round *r, int t)
{
	if (t < 2)
		locked_store(t ? &r->y : &r->x, 1);
	else
		iriw(r, t);
}

/* All count one word. */
static void count(struct round *r, int t)
{
	(void)t;
	asm volatile("lock incq %0" : "+m"(r->x.v) : : "memory");
}

/* All count one word across a cache line's end. */
static void count_split(struct round *r, int t)
{
	(void)t;
	asm volatile("lock incq %0" : "+m"(*(volatile unsigned long *)(r->span + 60)) : : "memory");
}

static int both_zero(struct round *r) { return !r->seen[0][0] && !r->seen[1][0]; }
static int flag_without_data(struct round *r) { return r->seen[1][0] && !r->seen[1][1]; }
static int both_one(struct round *r) { return r->seen[0][0] && r->seen[1][0]; }
static int disagree(struct round *r) { return r->seen[2][0] && !r->seen[2][1] && r->seen[3][0] && !r->seen[3][1]; }
static int short_count(struct round *r) { return r->x.v != THREADS; }
static int short_split(struct round *r)
{
	return *(volatile unsigned long *)(r->span + 60) != THREADS;
}

static const struct test {
	const char *name;
	int threads;
	void (*run)(struct round *, int);
	int (*outcome)(struct round *);
	int forbidden;
} tests[] = {
	{ "sb", 2, sb, both_zero, 0 },
	{ "sb+mfence", 2, sb_fence, both_zero, 1 },
	{ "sb+xchg", 2, sb_locked, both_zero, 1 },
	{ "sb+cpuid", 2, sb_cpuid, both_zero, 1 },
	{ "mp", 2, mp, flag_without_data, 1 },
	{ "lb", 2, lb, both_one, 1 },
	{ "iriw", 4, iriw, disagree, 1 },
	{ "iriw+xchg", 4, iriw_locked, disagree, 1 },
	{ "lock", THREADS, count, short_count, 1 },
	{ "lock-unaligned", THREADS, count_split, short_split, 1 },
};
static const struct test *test;

/* Waits until `n` threads have arrived, this one included. */
static void meet(unsigned long n)
{
	asm volatile("lock incq %0" : "+m"(arrived.v) : : "memory");
	for (unsigned turns = 1; load(&arrived) < n; turns++) {
		/* What it waits for may wait for this processor. */
		if (turns % 1024 == 0)
			sched_yield();
	}
}

static void *thread(void *arg)
{
	long t = (long)arg;
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(t % sysconf(_SC_NPROCESSORS_ONLN), &set);
	sched_setaffinity(0, sizeof set, &set);
	for (long n = 0; n < BATCH; n++) {
		meet((n + 1) * test->threads);
		test->run(&batch[n], t);
	}
	return 0;
}

/* How often one batch showed the outcome. */
static long outcomes(void)
{
	pthread_t threads[THREADS];
	long found = 0;
	memset(batch, 0, sizeof batch);
	arrived.v = 0;
	for (long t = 0; t < test->threads; t++)
		if (pthread_create(&threads[t], 0, thread, (void *)t))
			exit(2);
	for (int t = 0; t < test->threads; t++)
		pthread_join(threads[t], 0);
	for (int n = 0; n < BATCH; n++)
		found += test->outcome(&batch[n]);
	return found;
}

int main(int argc, char **argv)
{
	long batches = ((argc > 1 ? atol(argv[1]) : 10000) + BATCH - 1) / BATCH;
	int status = 0;
	for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++) {
		long found = 0;
		test = &tests[i];
		for (long n = 0; n < batches; n++)
			found += outcomes();
		printf("%s: %ld of %ld%s\n", test->name, found, batches * BATCH,
		       !test->forbidden ? ", allowed" : found ? ", FORBIDDEN" : "");
		fflush(stdout);
		status |= test->forbidden && found;
	}
	return status;
}
