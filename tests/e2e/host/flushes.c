/* Preloaded: fsync and fdatasync fail with EIO while the file $FAILING_FLUSHES is there. There is no io_uring, by which
 * the host's kernel would make them without a call. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static long (*next_syscall)(long, ...);

__attribute__((constructor)) static void find_next(void)
{
	next_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
}

long syscall(long number, ...)
{
	long a[6];
	va_list list;
	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_io_uring_setup) {
		errno = ENOSYS;
		return -1;
	}
	return next_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int flush(long number, int fd)
{
	const char *flag = getenv("FAILING_FLUSHES");
	if (flag && access(flag, F_OK) == 0) {
		errno = EIO;
		return -1;
	}
	return next_syscall(number, fd);
}

int fsync(int fd)
{
	return flush(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	return flush(SYS_fdatasync, fd);
}
