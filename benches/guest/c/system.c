#define _GNU_SOURCE
#include "system.h"
#include "bench.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* Before Rust's runtime and all else: what the row forkexec starts is the kernel's work, not ours. */
__attribute__((constructor)) static void exit_at_once(int count, char **arguments)
{
	if (count == 2 && strcmp(arguments[1], SYSTEM_EXIT) == 0)
		_exit(SYSTEM_STATUS);
}

void bench_fail(const char *what)
{
	printf("@bench fail %s\n", what);
	fflush(stdout);
	exit(1);
}

void *bench_alloc(u64 bytes)
{
	void *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		bench_fail("no memory");
	/* Whether a kernel finds huge pages is luck. */
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	return memory;
}

void bench_free(void *memory, u64 bytes) { munmap(memory, bytes); }

int system_scratch(const char *name)
{
	int file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (file < 0)
		bench_fail("the scratch directory cannot be written");
	unlink(name);
	return file;
}

static cpu_set_t allowed;

void system_stay(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();
	if (cpu < 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
}

void system_roam(void)
{
	if (CPU_COUNT(&allowed) > 0)
		sched_setaffinity(0, sizeof allowed, &allowed);
}

static u64 clock_now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (u64)time.tv_sec * 1000000000UL + (u64)time.tv_nsec;
}

u64 system_now(void) { return clock_now(CLOCK_MONOTONIC); }
u64 system_uptime(void) { return clock_now(CLOCK_BOOTTIME); }

int system_has_avx2(void) { return __builtin_cpu_supports("avx2"); }

static void serial_line(void)
{
	struct termios settings;
	int line = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
	if (line < 0)
		return;
	tcgetattr(line, &settings);
	cfmakeraw(&settings);
	settings.c_lflag |= ICANON;
	tcsetattr(line, TCSANOW, &settings);
	for (int standard = 0; standard < 3; standard++)
		dup2(line, standard);
	if (line > 2)
		close(line);
}

void system_init(void)
{
	klogctl(8, 0, 1); /* only panics on the console */
	mount("proc", "/proc", "proc", 0, 0);
	mount("sysfs", "/sys", "sysfs", 0, 0);
	mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
	mount("tmpfs", "/tmp", "tmpfs", 0, 0);
	if (chdir("/tmp") != 0)
		bench_fail("no /tmp");
	serial_line();
}

void system_power_off(void)
{
	/* What was written has to leave the serial line first. */
	tcdrain(1);
	reboot(RB_POWER_OFF);
}
