// What POSIX says of files, asked of the folder that it is started in: `share UID`, as that user. Prints what is not so.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int wrong, asked;

#define WANT(condition)                                                                      \
	do {                                                                                 \
		asked++;                                                                     \
		if (!(condition)) {                                                          \
			wrong++;                                                             \
			printf("line %d: %s (%s)\n", __LINE__, #condition, strerror(errno)); \
		}                                                                            \
	} while (0)
#define FAILS(call, error) WANT((errno = 0, (call) == -1) && errno == (error))

static int child(int (*work)(void))
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		_exit(work());
	int status;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static struct stat st;

static void opening(void)
{
	char name[257];
	memset(name, 'x', 256);
	name[256] = 0;
	int fd = open("a", O_RDWR | O_CREAT | O_EXCL, 0640);
	WANT(fd >= 0);
	FAILS(open("a", O_RDWR | O_CREAT | O_EXCL, 0640), EEXIST);
	FAILS(open("none", O_RDONLY), ENOENT);
	FAILS(open("a/b", O_RDONLY), ENOTDIR);
	FAILS(open(".", O_WRONLY), EISDIR);
	FAILS(open(name, O_RDWR | O_CREAT, 0600), ENAMETOOLONG);
	FAILS(open("", O_RDONLY), ENOENT);
	WANT(symlink("loop", "loop") == 0);
	FAILS(open("loop", O_RDONLY), ELOOP);
	FAILS(open("loop", O_RDONLY | O_NOFOLLOW), ELOOP);
	WANT(write(fd, "0123456789", 10) == 10);
	int again = open("a", O_RDONLY | O_TRUNC);
	WANT(again >= 0 && fstat(fd, &st) == 0 && st.st_size == 0);
	close(again);
	int one = open("log", O_WRONLY | O_CREAT | O_APPEND, 0600), two = open("log", O_WRONLY | O_APPEND);
	for (int i = 0; i < 100; i++) {
		WANT(write(one, "1\n", 2) == 2);
		WANT(write(two, "2\n", 2) == 2);
	}
	WANT(fstat(one, &st) == 0 && st.st_size == 400);
	FAILS(read(one, name, 1), EBADF);
	close(one), close(two), close(fd);
	umask(027);
	fd = open("masked", O_WRONLY | O_CREAT, 0666);
	WANT(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0640);
	umask(0);
	close(fd);
	fd = open("open", O_WRONLY | O_CREAT, 0666);
	WANT(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0666);
	umask(022);
	close(fd);
}

static void names(void)
{
	WANT(mkdir("d", 0755) == 0 && mkdir("d/e", 0700) == 0);
	FAILS(mkdir("d", 0755), EEXIST);
	FAILS(rmdir("d"), ENOTEMPTY);
	FAILS(unlink("d"), EISDIR);
	FAILS(rmdir("a"), ENOTDIR);
	FAILS(rename("d", "d/e/f"), EINVAL);
	WANT(mkdir("g", 0755) == 0);
	FAILS(rename("g", "d"), ENOTEMPTY);
	FAILS(rename("a", "g"), EISDIR);
	FAILS(rename("g", "a"), ENOTDIR);
	WANT(rename("g", "d/e") == 0);
	FAILS(stat("g", &st), ENOENT);
	WANT(stat("d", &st) == 0 && S_ISDIR(st.st_mode));
	WANT(link("a", "b") == 0 && stat("b", &st) == 0 && st.st_nlink == 2);
	FAILS(link("a", "b"), EEXIST);
	FAILS(link("d", "l"), EPERM);
	ino_t inode = st.st_ino;
	WANT(rename("b", "d/b") == 0 && stat("d/b", &st) == 0 && st.st_ino == inode);
	WANT(rename("a", "d/b") == 0 && stat("a", &st) == 0); // two names of one file: nothing happens
	FAILS(renameat2(AT_FDCWD, "a", AT_FDCWD, "log", RENAME_NOREPLACE), EEXIST);
	WANT(stat("log", &st) == 0 && (inode = st.st_ino, 1));
	WANT(renameat2(AT_FDCWD, "a", AT_FDCWD, "log", RENAME_EXCHANGE) == 0);
	WANT(stat("a", &st) == 0 && st.st_ino == inode);
	WANT(unlink("d/b") == 0 && stat("log", &st) == 0 && st.st_nlink == 1);
	char target[64] = "";
	WANT(symlink("d/e/../none", "s") == 0 && readlink("s", target, 64) == 11 && !strcmp(target, "d/e/../none"));
	WANT(lstat("s", &st) == 0 && S_ISLNK(st.st_mode) && st.st_size == 11);
	WANT(symlink("/proc/self/comm", "absolute") == 0);
	int fd = open("absolute", O_RDONLY); // the guest's own
	WANT(fd >= 0 && read(fd, target, 64) == 6 && !strncmp(target, "share\n", 6));
	close(fd);
	WANT(chdir("d/e") == 0 && rmdir("../e") == 0);
	FAILS(open("x", O_WRONLY | O_CREAT, 0600), ENOENT);
	WANT(stat(".", &st) == 0 && getcwd(target, 64) == NULL && errno == ENOENT);
}

static void unlinked(void)
{
	char text[16] = "";
	int fd = open("gone", O_RDWR | O_CREAT, 0600);
	WANT(unlink("gone") == 0 && fstat(fd, &st) == 0 && st.st_nlink == 0);
	WANT(pwrite(fd, "still", 5, 100000) == 5 && pread(fd, text, 9, 100000) == 5 && !strcmp(text, "still"));
	WANT(ftruncate(fd, 3) == 0 && fchmod(fd, 0600) == 0 && fstat(fd, &st) == 0 && st.st_size == 3);
	char path[64];
	sprintf(path, "/proc/self/fd/%d", fd);
	int again = open(path, O_RDWR);
	WANT(again >= 0 && write(again, "x", 1) == 1);
	close(again), close(fd);
	fd = open("replaced", O_RDWR | O_CREAT, 0600);
	WANT(write(fd, "old", 3) == 3);
	int new = open("new", O_RDWR | O_CREAT, 0600);
	WANT(rename("new", "replaced") == 0 && pread(fd, text, 9, 0) == 3 && !strncmp(text, "old", 3));
	close(new), close(fd);
}

static int reads_pipe(void)
{
	char text[8] = "";
	int fd = open("pipe", O_RDONLY);
	return read(fd, text, 8) == 5 && !strcmp(text, "hello") ? 0 : 1;
}

static int connects(void)
{
	struct sockaddr_un at = {AF_UNIX, "socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	return connect(fd, (void *)&at, sizeof at) == 0 && write(fd, "x", 1) == 1 ? 0 : 1;
}

static void special(void)
{
	WANT(mkfifo("pipe", 0600) == 0 && stat("pipe", &st) == 0 && S_ISFIFO(st.st_mode));
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		_exit(reads_pipe());
	int status, fd = open("pipe", O_WRONLY);
	WANT(write(fd, "hello", 5) == 5);
	close(fd);
	WANT(waitpid(pid, &status, 0) == pid && status == 0);
	struct sockaddr_un at = {AF_UNIX, "socket"};
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	WANT(bind(fd, (void *)&at, sizeof at) == 0 && listen(fd, 1) == 0 && stat("socket", &st) == 0);
	WANT(S_ISSOCK(st.st_mode) && child(connects) == 0);
	close(fd);
	FAILS(mknod("device", S_IFCHR | 0600, 0x103), EPERM);
	WANT(mknod("regular", S_IFREG | 0600, 0) == 0 && stat("regular", &st) == 0 && S_ISREG(st.st_mode));
}

static void attributes(uid_t uid)
{
	int fd = open("m", O_RDWR | O_CREAT, 0600);
	WANT(chmod("m", 0751) == 0 && stat("m", &st) == 0 && (st.st_mode & 07777) == 0751);
	WANT(st.st_uid == uid && st.st_gid == uid);
	WANT(chown("m", uid, uid) == 0 && fchown(fd, uid, -1) == 0);
	FAILS(chown("m", 4242, -1), EPERM);
	WANT(chmod("m", 04755) == 0 && stat("m", &st) == 0 && (st.st_mode & 07777) == 0755); // and no more
	WANT(mkdir("sticky", 01777) == 0 && chmod("sticky", 01777) == 0 && stat("sticky", &st) == 0);
	WANT((st.st_mode & 07777) == 01777);
	struct timespec times[2] = {{1000000000, 123456789}, {1100000000, 987654321}};
	WANT(utimensat(AT_FDCWD, "m", times, 0) == 0 && stat("m", &st) == 0);
	WANT(st.st_atim.tv_nsec == 123456789 && st.st_mtim.tv_sec == 1100000000 && st.st_mtim.tv_nsec == 987654321);
	WANT(write(fd, "x", 1) == 1 && fstat(fd, &st) == 0 && st.st_mtim.tv_sec > 1100000000);
	close(fd);
	WANT(access("m", R_OK | W_OK | X_OK) == 0);
	char value[16] = "";
	if (setxattr("m", "user.a", "value", 5, 0) == 0) {
		WANT(getxattr("m", "user.a", value, 16) == 5 && !strcmp(value, "value"));
		FAILS(setxattr("m", "user.a", "value", 5, XATTR_CREATE), EEXIST);
		WANT(listxattr("m", value, 16) == 7 && !strcmp(value, "user.a"));
		WANT(removexattr("m", "user.a") == 0);
		FAILS(getxattr("m", "user.a", value, 16), ENODATA);
	} else
		WANT(errno == EOPNOTSUPP);
	FAILS(setxattr("m", "trusted.a", "value", 5, 0), uid ? EPERM : EOPNOTSUPP);
	struct statvfs vfs;
	WANT(statvfs(".", &vfs) == 0 && vfs.f_blocks > 0 && vfs.f_namemax == 255);
}

static void contents(void)
{
	static char block[3 << 20], back[3 << 20];
	for (size_t i = 0; i < sizeof block; i++)
		block[i] = i * 7 + i / 4096;
	int fd = open("big", O_RDWR | O_CREAT | O_TRUNC, 0600);
	WANT(write(fd, block, sizeof block) == sizeof block && fsync(fd) == 0 && fdatasync(fd) == 0);
	WANT(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
	WANT(pread(fd, back, sizeof back, 0) == sizeof back && !memcmp(block, back, sizeof back));
	WANT(pwrite(fd, "end", 3, 5LL << 30) == 3 && fstat(fd, &st) == 0 && st.st_size == (5LL << 30) + 3);
	WANT(st.st_blocks < 1 << 20);
	WANT(pread(fd, back, 3, 5LL << 30) == 3 && !memcmp(back, "end", 3));
	WANT(lseek(fd, 3 << 20, SEEK_HOLE) >= 3 << 20 && lseek(fd, (5LL << 30) + 1, SEEK_DATA) == (5LL << 30) + 1);
	FAILS(lseek(fd, 6LL << 30, SEEK_DATA), ENXIO);
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192) == 0) {
		WANT(pread(fd, back, 16384, 0) == 16384 && back[4096] == 0 && back[12287] == 0);
		WANT(back[4095] == block[4095] && back[12288] == block[12288]);
	} else
		WANT(errno == EOPNOTSUPP);
	WANT(ftruncate(fd, 1 << 20) == 0);
	int copy = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0600);
	loff_t from = 65536;
	WANT(copy_file_range(fd, &from, copy, NULL, 65536, 0) == 65536);
	WANT(pread(copy, back, 65536, 0) == 65536 && !memcmp(back, block + 65536, 65536));
	off_t at = 0;
	WANT(sendfile(copy, fd, &at, 4096) == 4096);
	char *page = aligned_alloc(4096, 8192);
	int direct = open("big", O_RDWR | O_DIRECT);
	memset(page, 'D', 8192);
	WANT(direct >= 0 && pwrite(direct, page, 8192, 65536) == 8192 && pread(direct, page, 8192, 69632) == 8192);
	WANT(page[0] == 'D' && page[4096] == block[73728] && pread(fd, back, 1, 65536) == 1 && back[0] == 'D');
	close(direct);
	char *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	WANT(map != MAP_FAILED && map[65536] == 'D');
	memset(map + 500000, 'M', 100000);
	WANT(msync(map, 1 << 20, MS_SYNC) == 0 && pread(fd, back, 4, 599998) == 4 && !memcmp(back, "MM", 2));
	WANT(munmap(map, 1 << 20) == 0);
	int log = open("big", O_WRONLY | O_APPEND); // pages are written back by any handle
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	map[7] = '7';
	WANT(munmap(map, 4096) == 0);
	close(fd);
	WANT(fsync(log) == 0 && fstat(log, &st) == 0 && st.st_size == 1 << 20);
	close(log), close(copy), free(page);
	fd = open(".", O_TMPFILE | O_RDWR, 0600);
	if (fd >= 0) {
		char path[64];
		sprintf(path, "/proc/self/fd/%d", fd);
		WANT(linkat(AT_FDCWD, path, AT_FDCWD, "temporary", AT_SYMLINK_FOLLOW) == 0);
	} else
		WANT(errno == EOPNOTSUPP);
	close(fd);
}

static int flock_busy(void)
{
	int fd = open("lock", O_RDWR);
	return flock(fd, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK ? 0 : 1;
}

static int lock_busy(void)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 1};
	int fd = open("lock", O_RDWR);
	if (fcntl(fd, F_SETLK, &lock) != -1 || errno != EAGAIN)
		return 1;
	lock.l_start = 50;
	return fcntl(fd, F_SETLK, &lock) == 0 ? 0 : 2;
}

static void locks(void)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
	int fd = open("lock", O_RDWR | O_CREAT, 0600);
	WANT(flock(fd, LOCK_EX) == 0 && child(flock_busy) == 0 && flock(fd, LOCK_UN) == 0);
	WANT(child(flock_busy) == 1);
	WANT(fcntl(fd, F_SETLK, &lock) == 0 && child(lock_busy) == 0);
	close(fd);
}

static void directories(void)
{
	char name[32];
	WANT(mkdir("many", 0755) == 0 && chdir("many") == 0);
	for (int i = 0; i < 1200; i++) {
		sprintf(name, "file-%d", i);
		close(open(name, O_WRONLY | O_CREAT, 0600));
	}
	DIR *dir = opendir(".");
	struct dirent *entry;
	int count = 0, seen = 0;
	long half = 0;
	char after[256] = "";
	while ((entry = readdir(dir))) {
		if (++count == 600)
			half = telldir(dir);
		if (count == 601)
			strcpy(after, entry->d_name);
	}
	WANT(count == 1202);
	seekdir(dir, half);
	WANT((entry = readdir(dir)) && !strcmp(entry->d_name, after));
	rewinddir(dir);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] == 'f')
			seen += unlink(entry->d_name) == 0;
	closedir(dir);
	WANT(seen == 1200 && chdir("..") == 0 && rmdir("many") == 0);
}

int main(int count, char **words)
{
	uid_t uid = count > 1 ? atoi(words[1]) : 0;
	if (uid && (setgroups(0, NULL) || setgid(uid) || setuid(uid)))
		return 2;
	char name[32];
	sprintf(name, "suite-%d", uid);
	WANT(mkdir(name, 0755) == 0);
	char *start = realpath(name, NULL);
	WANT(start && chdir(start) == 0);
	umask(022);
	opening(), names();
	WANT(chdir(start) == 0);
	unlinked(), special(), attributes(uid), contents(), locks(), directories();
	int root = open(".", O_RDONLY);
	WANT(fsync(root) == 0 && syncfs(root) == 0);
	printf("%d asked, %d wrong\n", asked, wrong);
	return wrong != 0;
}
