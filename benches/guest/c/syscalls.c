/* The guest's kernel at work: system calls, faults, signals. */
#define _GNU_SOURCE
#include "bench.h"
#include "system.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CLOCKS 200000UL

/* What the vDSO does without the kernel, if its clock source is the time-stamp counter. */
static u64 clock_run(void)
{
	u64 forward = 0;
	struct timespec last = { 0, 0 }, now;
	for (u64 i = 0; i < CLOCKS; i++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		forward += now.tv_sec > last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec >= last.tv_nsec);
		last = now;
	}
	return forward;
}

const struct row row_clock = { "clock", CLOCKS, 0, clock_run, 0 };

#define GETPPIDS 120000UL

static u64 getppid_run(void)
{
	i64 parent = syscall(SYS_getppid);
	for (u64 i = 1; i < GETPPIDS; i++)
		if (syscall(SYS_getppid) != parent)
			bench_fail("getppid: another parent");
	return GETPPIDS;
}

const struct row row_getppid = { "getppid", GETPPIDS, 0, getppid_run, 0 };

static int zero;
static char *buffer;

#define BUFFER 65536UL

static void read_prepare(void)
{
	zero = open("/dev/zero", O_RDONLY);
	if (zero < 0)
		bench_fail("/dev/zero does not open");
	buffer = bench_alloc(BUFFER);
}

static void read_finish(void)
{
	close(zero);
	bench_free(buffer, BUFFER);
}

static u64 reads(u64 size, u64 count)
{
	u64 bytes = 0;
	buffer[0] = 1;
	for (u64 i = 0; i < count; i++) {
		i64 got = read(zero, buffer, size);
		if (got < 0)
			bench_fail("/dev/zero cannot be read");
		bytes += (u64)got;
	}
	return bytes + (u64)buffer[0];
}

static u64 read1_run(void) { return reads(1, 100000); }
static u64 read4k_run(void) { return reads(4096, 50000); }
static u64 read64k_run(void) { return reads(BUFFER, 16000); }

const struct row row_read1 = { "read0-1", 100000, read_prepare, read1_run, read_finish };
const struct row row_read4k = { "read0-4k", 50000, read_prepare, read4k_run, read_finish };
const struct row row_read64k = { "read0-64k", 16000, read_prepare, read64k_run, read_finish };

#define FILES 20000UL
#define STATUS "/proc/self/status"

static u64 stat_run(void)
{
	struct stat info;
	for (u64 i = 0; i < FILES; i++)
		if (stat(STATUS, &info) != 0 || !S_ISREG(info.st_mode))
			bench_fail("stat of " STATUS);
	return FILES;
}

static u64 openclose_run(void)
{
	for (u64 i = 0; i < FILES; i++) {
		int file = open(STATUS, O_RDONLY);
		if (file < 0 || close(file) != 0)
			bench_fail("open of " STATUS);
	}
	return FILES;
}

const struct row row_stat = { "stat", FILES, 0, stat_run, 0 };
const struct row row_openclose = { "openclose", FILES, 0, openclose_run, 0 };

#define MAPS 1000UL
#define MAPPED 65536UL

static u64 mmap_run(void)
{
	u64 touched = 0;
	for (u64 i = 0; i < MAPS; i++) {
		char *memory = mmap(0, MAPPED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED)
			bench_fail("mmap");
		for (u64 at = 0; at < MAPPED; at += 4096)
			touched += (u64)++memory[at];
		if (munmap(memory, MAPPED) != 0)
			bench_fail("munmap");
	}
	return touched;
}

const struct row row_mmap = { "mmap", MAPS, 0, mmap_run, 0 };

#define SIGNALS 10000UL

static volatile u64 signals;

static void on_signal(int number)
{
	(void)number;
	signals++;
}

static void signal_prepare(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	if (sigaction(SIGUSR1, &action, 0) != 0)
		bench_fail("sigaction");
}

static void signal_finish(void) { signal(SIGUSR1, SIG_DFL); }

static u64 signal_run(void)
{
	pid_t self = getpid();
	signals = 0;
	for (u64 i = 0; i < SIGNALS; i++)
		kill(self, SIGUSR1);
	return signals;
}

const struct row row_signal = { "signal", SIGNALS, signal_prepare, signal_run, signal_finish };

#define COPIED (4UL << 20)
#define COPIES 8UL

static int source, target;

static void filecopy_prepare(void)
{
	source = system_scratch("source");
	target = system_scratch("target");
	buffer = bench_alloc(BUFFER);
	for (u64 i = 0; i < BUFFER; i++)
		buffer[i] = (char)(i * 31 >> 4);
	for (u64 at = 0; at < COPIED; at += BUFFER)
		if (pwrite(source, buffer, BUFFER, (off_t)at) != (ssize_t)BUFFER)
			bench_fail("the scratch directory is full");
}

static void filecopy_finish(void)
{
	close(source);
	close(target);
	bench_free(buffer, BUFFER);
}

static u64 filecopy_run(void)
{
	u64 sum = 0;
	for (u64 i = 0; i < COPIES; i++) {
		if (ftruncate(target, 0) != 0)
			bench_fail("ftruncate");
		for (u64 at = 0; at < COPIED; at += BUFFER) {
			ssize_t got = pread(source, buffer, BUFFER, (off_t)at);
			if (got != (ssize_t)BUFFER || pwrite(target, buffer, BUFFER, (off_t)at) != got)
				bench_fail("the copy is short");
		}
		if (pread(target, buffer, BUFFER, (off_t)(COPIED - BUFFER)) != (ssize_t)BUFFER)
			bench_fail("the copy is short");
		for (u64 at = 0; at < BUFFER; at += 512)
			sum = bench_mix(sum, (u8)buffer[at]);
	}
	return sum;
}

const struct row row_filecopy = { "filecopy", COPIES, filecopy_prepare, filecopy_run, filecopy_finish };
