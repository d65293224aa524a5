/* Threads that need each other: what is slow, or wrong, where more processors are than the host has.
 *
 *     storm LOAD SECONDS THREADS
 *
 * Prints the load's name, how much was done in a second, and how much of it was wrong; the program's
 * status is 1 if anything was. Loads:
 *   lock     a lock that is taken by spinning with PAUSE, held for some hundred nanoseconds
 *   pipes    senders and receivers of messages through pipes, as many pairs as half the threads
 *   protect  a page is made read-only and writable again while the other threads write to it: once
 *            it is read-only, nobody may change it
 *   replace  a page is replaced by another, likewise
 *   map      each thread maps, fills and unmaps memory of the common address space */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST 64
#define PAGE 4096L

static volatile int over;
static int threads;
static struct count { volatile long done, wrong; char rest[48]; } counts[MOST];

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static volatile int word;
static volatile long guarded;

static void lock(struct count *own, long t)
{
	while (!over) {
		while (__atomic_exchange_n(&word, 1, __ATOMIC_ACQUIRE))
			while (word)
				asm volatile("pause");
		long before = guarded;
		for (int i = 0; i < 100; i++)
			asm volatile("" ::: "memory");
		guarded = before + 1;
		__atomic_store_n(&word, 0, __ATOMIC_RELEASE);
		own->done++;
	}
}

static int ends[MOST / 2][2];

static void pipes(struct count *own, long t)
{
	char message[100];
	int *pair = ends[t / 2];
	if (t % 2) {
		while (read(pair[0], message, sizeof message) == sizeof message) {
			own->wrong += message[0] != (char)own->done || message[99] != message[0];
			own->done++;
		}
		return;
	}
	for (long n = 0; !over; n++) {
		memset(message, (char)n, sizeof message);
		if (write(pair[1], message, sizeof message) != sizeof message)
			own->wrong++;
	}
	close(pair[1]);
}

static volatile long *page;
static __thread sigjmp_buf refused;

static void fault(int number)
{
	siglongjmp(refused, 1);
}

/* Whether the page, which nobody may write to, stays as it is. */
static int stays(void)
{
	long before = page[0];
	for (int i = 0; i < 200; i++)
		if (page[0] != before)
			return 0;
	return 1;
}

static void writes(void)
{
	sigsetjmp(refused, 1);
	while (!over)
		for (int i = 0; i < 1000 && !over; i++)
			__atomic_fetch_add(page, 1, __ATOMIC_RELAXED);
}

static void protect(struct count *own, long t)
{
	if (t)
		return writes();
	while (!over) {
		mprotect((void *)page, PAGE, PROT_READ);
		own->wrong += !stays();
		mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE);
		own->done++;
	}
}

static void replace(struct count *own, long t)
{
	if (t)
		return writes();
	while (!over) {
		int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
		mmap((void *)page, PAGE, PROT_READ, how, -1, 0);
		own->wrong += page[0] != 0 || !stays();
		mmap((void *)page, PAGE, PROT_READ | PROT_WRITE, how, -1, 0);
		own->done++;
	}
}

static void map(struct count *own, long t)
{
	while (!over) {
		int how = MAP_PRIVATE | MAP_ANONYMOUS;
		char *place = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, how, -1, 0);
		if (place == MAP_FAILED) {
			own->wrong++;
			continue;
		}
		for (int i = 0; i < 4; i++) {
			own->wrong += place[i * PAGE] != 0;
			place[i * PAGE] = t + 1;
		}
		munmap(place, 4 * PAGE);
		own->done++;
	}
}

static const struct load { const char *name; void (*run)(struct count *, long); } loads[] = {
	{ "lock", lock }, { "pipes", pipes }, { "protect", protect }, { "replace", replace }, { "map", map },
};
static const struct load *load;

static void *thread(void *number)
{
	load->run(&counts[(long)number], (long)number);
	return NULL;
}

int main(int count, char **words)
{
	for (size_t i = 0; count == 4 && i < sizeof loads / sizeof *loads; i++)
		if (!strcmp(words[1], loads[i].name))
			load = &loads[i];
	threads = load ? atoi(words[3]) & ~1 : 0;
	if (threads < 2 || threads > MOST)
		return 2;
	for (int i = 0; i < threads / 2; i++)
		if (pipe(ends[i]))
			return 2;
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sigaction action = { .sa_handler = fault, .sa_flags = SA_NODEFER };
	sigaction(SIGSEGV, &action, NULL);

	pthread_t all[MOST];
	double began = now();
	for (long i = 0; i < threads; i++)
		if (pthread_create(&all[i], NULL, thread, (void *)i))
			return 2;
	usleep(atof(words[2]) * 1e6);
	over = 1;
	double passed = now() - began;
	long done = 0, wrong = 0;
	for (int i = 0; i < threads; i++) {
		pthread_join(all[i], NULL);
		done += counts[i].done;
		wrong += counts[i].wrong;
	}
	wrong += load->run == lock && guarded != done;
	printf("%s %.0f/s %ld wrong\n", load->name, done / passed, wrong);
	return wrong != 0;
}
