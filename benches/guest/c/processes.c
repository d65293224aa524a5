/* The guest's kernel at work: processes, on one processor, as in a guest of one. */
#define _GNU_SOURCE
#include "bench.h"
#include "system.h"

#include <sys/wait.h>
#include <unistd.h>

#define PINGS 4000UL

static int there[2], back[2];
static pid_t partner;

static void echo(void)
{
	char byte;
	close(there[1]);
	close(back[0]);
	while (read(there[0], &byte, 1) == 1) {
		byte++;
		if (write(back[1], &byte, 1) != 1)
			break;
	}
	_exit(0);
}

static void pipe_prepare(void)
{
	system_stay();
	if (pipe(there) != 0 || pipe(back) != 0)
		bench_fail("pipe");
	partner = fork();
	if (partner < 0)
		bench_fail("fork");
	if (partner == 0)
		echo();
	close(there[0]);
	close(back[1]);
}

static u64 pipe_run(void)
{
	u64 sum = 0;
	for (u64 i = 0; i < PINGS; i++) {
		char byte = (char)(i & 63);
		if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
			bench_fail("the other end of the pipe is gone");
		sum += (u64)byte;
	}
	return sum;
}

static void pipe_finish(void)
{
	close(there[1]);
	close(back[0]);
	waitpid(partner, 0, 0);
	system_roam();
}

const struct row row_pipe = { "pipe", PINGS, pipe_prepare, pipe_run, pipe_finish };

static u64 status_of(pid_t child)
{
	int status;
	if (child < 0)
		bench_fail("fork");
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
		bench_fail("a child did not exit");
	return (u64)WEXITSTATUS(status);
}

#define FORKS 300UL

static u64 forkwait_run(void)
{
	u64 sum = 0;
	for (u64 i = 0; i < FORKS; i++) {
		pid_t child = fork();
		if (child == 0)
			_exit((int)(i & 127));
		sum += status_of(child);
	}
	return sum;
}

const struct row row_forkwait = { "forkwait", FORKS, system_stay, forkwait_run, system_roam };

#define EXECS 60UL

static u64 forkexec_run(void)
{
	u64 sum = 0;
	for (u64 i = 0; i < EXECS; i++) {
		pid_t child = fork();
		if (child == 0) {
			char *const arguments[] = { "bench-guest", SYSTEM_EXIT, 0 }, *const none[] = { 0 };
			execve("/proc/self/exe", arguments, none);
			_exit(1);
		}
		sum += status_of(child);
	}
	return sum;
}

const struct row row_forkexec = { "forkexec", EXECS, system_stay, forkexec_run, system_roam };
