/* Litmus tests of x86's memory order (SDM vol. 3, 10.2.3): how often each outcome is seen.
 *
 *     litmus ROUNDS
 *
 * A line for each test and place tells its name, how often the outcome was seen that the name stands
 * for, the rounds, and how many of them a thread went through alone. Outcomes that the memory order
 * forbids are marked; the program's status is 1 if one was seen.
 *
 * A round has variables of its own. Threads go through the rounds of a batch side by side: who is
 * ahead waits for the others. It has patience for some milliseconds in each batch, since the others
 * may have no processor of the host's, and goes on alone then. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 4
/* Rounds between two looks at the outcomes. */
#define BATCH 4096
/* How often a thread looks in a batch whether the others have come. */
#define PATIENCE 1000000
/* What is stored. Each part of it can be told from zero. */
#define ALL 0x0101010101010101ul

typedef volatile unsigned long word;

/* Where variables lie: each at `offset` in a piece of memory of its own. */
static const struct place {
	const char *name;
	long stride, offset;
} places[] = {
	{ "", 128, 0 },
	{ " over lines", 128, 60 },
	{ " over pages", 4096, 4092 },
};

static char room[(2 * BATCH + 1) * 4096] __attribute__((aligned(4096)));

static struct round {
	word *x, *y;
	unsigned long seen[THREADS][2];
} batch[BATCH];

/* The round that each thread is in, from one, and those that it began alone. A cache line each. */
static struct { word round; long alone; char rest[48]; } at[THREADS] __attribute__((aligned(64)));

static inline unsigned long load(word *w)
{
	unsigned long v;
	asm volatile("mov %1, %0" : "=r"(v) : "m"(*w) : "memory");
	return v;
}
static inline void store(word *w, unsigned long v)
{
	asm volatile("mov %1, %0" : "=m"(*w) : "r"(v) : "memory");
}
static inline void locked_store(word *w, unsigned long v)
{
	asm volatile("xchg %1, %0" : "+m"(*w), "+r"(v) : : "memory");
}
static inline void streaming_store(word *w, unsigned long v)
{
	asm volatile("movnti %1, %0" : "=m"(*w) : "r"(v) : "memory");
}
static inline void fence(void) { asm volatile("mfence" ::: "memory"); }
static inline void store_fence(void) { asm volatile("sfence" ::: "memory"); }
static inline void serialize(void)
{
	unsigned a = 0, b, c = 0, d;
	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}

/* What thread `t` does in one round, for each test. */
#define STORE_BUFFERING(name, put, between) \
	static void name(struct round *r, int t) \
	{ \
		word *own = t ? r->y : r->x, *other = t ? r->x : r->y; \
		put(own, ALL); \
		between; \
		r->seen[t][0] = load(other); \
	}
STORE_BUFFERING(sb, store, )
STORE_BUFFERING(sb_fence, store, fence())
STORE_BUFFERING(sb_locked, locked_store, )
STORE_BUFFERING(sb_cpuid, store, serialize())

#define MESSAGE_PASSING(name, put, between) \
	static void name(struct round *r, int t) \
	{ \
		if (t == 0) { \
			put(r->x, ALL); \
			between; \
			store(r->y, ALL); \
		} else { \
			r->seen[1][0] = load(r->y); \
			r->seen[1][1] = load(r->x); \
		} \
	}
MESSAGE_PASSING(mp, store, )
MESSAGE_PASSING(mp_streaming, streaming_store, )
MESSAGE_PASSING(mp_streaming_fence, streaming_store, store_fence())

static void lb(struct round *r, int t)
{
	word *own = t ? r->y : r->x, *other = t ? r->x : r->y;
	r->seen[t][0] = load(own);
	store(other, ALL);
}

#define INDEPENDENT_READS(name, put) \
	static void name(struct round *r, int t) \
	{ \
		if (t < 2) { \
			put(t ? r->y : r->x, ALL); \
		} else { \
			r->seen[t][0] = load(t == 2 ? r->x : r->y); \
			r->seen[t][1] = load(t == 2 ? r->y : r->x); \
		} \
	}
INDEPENDENT_READS(iriw, store)
INDEPENDENT_READS(iriw_locked, locked_store)

/* One stores a word, one loads it. */
static void whole(struct round *r, int t)
{
	if (t == 0)
		store(r->x, ALL);
	else
		r->seen[1][0] = load(r->x);
}

/* All count one word. */
static void count(struct round *r, int t)
{
	(void)t;
	asm volatile("lock incq %0" : "+m"(*r->x) : : "memory");
}

/* One counts a word, one stores it. */
static void count_and_store(struct round *r, int t)
{
	if (t == 0)
		count(r, t);
	else
		store(r->x, ALL);
}

/* The outcomes. A word that is split may be seen in part. */
static int both_early(struct round *r) { return r->seen[0][0] != ALL && r->seen[1][0] != ALL; }
static int flag_without_data(struct round *r) { return r->seen[1][0] && r->seen[1][1] != ALL; }
static int both_late(struct round *r) { return r->seen[0][0] && r->seen[1][0]; }
static int only_first(unsigned long *seen) { return seen[0] == ALL && !seen[1]; }
static int disagree(struct round *r) { return only_first(r->seen[2]) && only_first(r->seen[3]); }
static int in_part(struct round *r) { return r->seen[1][0] && r->seen[1][0] != ALL; }
static int short_count(struct round *r) { return *r->x != THREADS; }
static int store_lost(struct round *r) { return *r->x != ALL && *r->x != ALL + 1; }

static const struct test {
	const char *name;
	int threads;
	void (*run)(struct round *, int);
	int (*outcome)(struct round *);
	/* Whether the outcome is forbidden, for each place. */
	int forbidden[3];
} tests[] = {
	{ "sb", 2, sb, both_early, { 0, 0, 0 } },
	{ "sb+mfence", 2, sb_fence, both_early, { 1, 1, 1 } },
	{ "sb+xchg", 2, sb_locked, both_early, { 1, 1, 1 } },
	{ "sb+cpuid", 2, sb_cpuid, both_early, { 1, 1, 1 } },
	{ "mp", 2, mp, flag_without_data, { 1, 1, 1 } },
	{ "mp+movnti", 2, mp_streaming, flag_without_data, { 0, 0, 0 } },
	{ "mp+movnti+sfence", 2, mp_streaming_fence, flag_without_data, { 1, 1, 1 } },
	{ "lb", 2, lb, both_late, { 1, 1, 1 } },
	{ "iriw", 4, iriw, disagree, { 1, 1, 1 } },
	{ "iriw+xchg", 4, iriw_locked, disagree, { 1, 1, 1 } },
	{ "part", 2, whole, in_part, { 1, 0, 0 } },
	{ "lock", THREADS, count, short_count, { 1, 1, 1 } },
	{ "lock+mov", 2, count_and_store, store_lost, { 1, 1, 1 } },
};
static const struct test *test;

static void *thread(void *arg)
{
	long t = (long)arg, patience = PATIENCE;
	for (unsigned long n = 0; n < BATCH; n++) {
		store(&at[t].round, n + 1);
		for (int other = 0; other < test->threads; other++)
			while (load(&at[other].round) <= n && patience-- > 0)
				asm volatile("pause");
		at[t].alone += patience < 0;
		test->run(&batch[n], t);
	}
	return 0;
}

/* Runs thread `t` on a processor of its own. */
static pthread_t start(long t)
{
	pthread_t id;
	pthread_attr_t attr;
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(t % sysconf(_SC_NPROCESSORS_ONLN), &set);
	pthread_attr_init(&attr);
	pthread_attr_setaffinity_np(&attr, sizeof set, &set);
	if (pthread_create(&id, &attr, thread, (void *)t))
		exit(2);
	return id;
}

/* How often one batch showed the outcome. Adds to `alone`. */
static long outcomes(const struct place *place, long *alone)
{
	pthread_t threads[THREADS];
	long found = 0, most = 0;
	char *next = room + place->offset;
	memset(at, 0, sizeof at);
	memset(batch, 0, sizeof batch);
	for (int n = 0; n < BATCH; n++, next += 2 * place->stride) {
		batch[n].x = (word *)next;
		batch[n].y = (word *)(next + place->stride);
		*batch[n].x = *batch[n].y = 0;
	}
	for (int t = 0; t < test->threads; t++)
		threads[t] = start(t);
	for (int t = 0; t < test->threads; t++)
		pthread_join(threads[t], 0);
	for (int t = 0; t < test->threads; t++)
		most = at[t].alone > most ? at[t].alone : most;
	*alone += most;
	for (int n = 0; n < BATCH; n++)
		found += test->outcome(&batch[n]);
	return found;
}

int main(int argc, char **argv)
{
	long batches = ((argc > 1 ? atol(argv[1]) : 10000) + BATCH - 1) / BATCH;
	int status = 0;
	for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++) {
		for (int p = 0; p < 3; p++) {
			long found = 0, alone = 0;
			int forbidden = tests[i].forbidden[p];
			test = &tests[i];
			for (long n = 0; n < batches; n++)
				found += outcomes(&places[p], &alone);
			printf("%s%s: %ld of %ld, %ld alone%s\n", test->name, places[p].name, found,
			       batches * BATCH, alone,
			       !forbidden ? ", allowed" : found ? ", FORBIDDEN" : "");
			fflush(stdout);
			status |= forbidden && found;
		}
	}
	return status;
}
