/*
 * What a program tells its file system, written down, so that a test can decide afterwards what a power cut would have
 * left of it.
 *
 * Loaded into a program by LD_PRELOAD. Every call goes through to the system; whatever changes a file, a name or a
 * length below PEIL_POWERCUT_DIR is then appended to the file PEIL_POWERCUT_JOURNAL, and so is every sync that came
 * back. The journal outlives the program when it is killed, as all that was handed to the kernel does; what a power cut
 * would have dropped is chosen by tests/src/powercut.rs.
 *
 * With PEIL_POWERCUT_LIES set a sync is not written down: a disk that says "done" and has done nothing.
 * PEIL_POWERCUT_SYNC_MS makes every sync take that long, as on a disk that turns: on a fast one a cut at a moment of
 * chance would hardly ever find something that is written and not synced.
 *
 * Assumes x86-64 or arm64 Linux with glibc, absolute paths, one process at a time. One lock orders all calls below the
 * directory, so the journal has the order in which the system saw them. What a program changes through a mapping of a
 * file is not seen: of SQLite that is the index of its log (-shm), which it makes anew after a crash. Its own system
 * calls, past the C library, are not seen either; peil-collector makes none for its files.
 *
 * A record: kind (8 bytes, one letter), inode, position, length of what follows, and then that.
 *   W position data   bytes were written         T position   the file has this length
 *   S                 the file was synced        D path       the directory was synced
 *   C path            a file was made            M path       a directory was made
 *   U path            a name was taken away      R old NUL new   a name was changed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#undef open
#undef open64
#undef openat
#undef openat64
#undef pwrite
#undef pwrite64
#undef ftruncate
#undef ftruncate64
#undef posix_fallocate
#undef posix_fallocate64

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char below[PATH_MAX];
static size_t below_length;
static int journal = -1;
static int lies;
static struct timespec sync_takes;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static void fail(const char *what) {
    fprintf(stderr, "powercut: %s: %s\n", what, strerror(errno));
    _exit(97);
}

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("PEIL_POWERCUT_DIR"), *path = getenv("PEIL_POWERCUT_JOURNAL");
    if (!dir || !path) return;
    if (!realpath(dir, below)) fail("the directory");
    below_length = strlen(below);
    lies = getenv("PEIL_POWERCUT_LIES") != NULL;
    const char *slow = getenv("PEIL_POWERCUT_SYNC_MS");
    long ms = slow ? strtol(slow, NULL, 10) : 0;
    sync_takes = (struct timespec){ms / 1000, ms % 1000 * 1000000};
    REAL(int, "open64", const char *, int, ...);
    journal = real(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (journal < 0) fail("the journal");
}

/* The part of a path below the directory, or NULL. */
static const char *part(const char *path) {
    if (journal < 0 || strncmp(path, below, below_length)) return NULL;
    if (path[below_length] == '\0') return path + below_length;
    return path[below_length] == '/' ? path + below_length + 1 : NULL;
}

/* The same for an open file; also NULL for the index of SQLite's log. */
static const char *part_of(int fd, char *space) {
    char link[32];
    if (journal < 0) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, space, PATH_MAX - 1);
    if (length < 0) return NULL;
    space[length] = '\0';
    if (length > 4 && !strcmp(space + length - 4, "-shm")) return NULL;
    return part(space);
}

static void note(char kind, uint64_t inode, uint64_t at, const void *data, size_t length) {
    uint64_t head[4] = {(unsigned char)kind, inode, at, length};
    struct iovec both[2] = {{head, sizeof head}, {(void *)data, length}};
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (real(journal, both, 2) != (ssize_t)(sizeof head + length)) fail("cannot write the journal");
}

static uint64_t inode_of(int fd) {
    struct stat seen;
    return fstat(fd, &seen) ? 0 : seen.st_ino;
}

static uint64_t length_of(int fd) {
    struct stat seen;
    return fstat(fd, &seen) ? 0 : (uint64_t)seen.st_size;
}

static int opened(const char *name, int at, const char *path, int flags, mode_t mode) {
    REAL(int, "openat64", int, const char *, int, ...);
    (void)name;
    const char *rest = at == AT_FDCWD || path[0] == '/' ? part(path) : NULL;
    if (!rest || !(flags & (O_CREAT | O_TRUNC)) || strstr(rest, "-shm")) return real(at, path, flags, mode);
    pthread_mutex_lock(&turn);
    int there = access(path, F_OK) == 0;
    int fd = real(at, path, flags, mode);
    int error = errno;
    if (fd >= 0 && !there) note('C', inode_of(fd), 0, rest, strlen(rest));
    if (fd >= 0 && there && (flags & O_TRUNC)) note('T', inode_of(fd), 0, NULL, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return opened(#name, AT_FDCWD, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return opened(#name, at, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

/* Runs `call` in turn, and `after` when it succeeded; for calls on the open file `fd`. */
#define ON_FILE(type, call, after) \
    char space[PATH_MAX]; \
    const char *rest = part_of(fd, space); \
    if (!rest) return call; \
    pthread_mutex_lock(&turn); \
    type done = call; \
    int error = errno; \
    if (done >= 0) { after; } \
    pthread_mutex_unlock(&turn); \
    errno = error; \
    return done

static ssize_t written_at(int fd, const void *data, size_t length, off_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    ON_FILE(ssize_t, real(fd, data, length, at), note('W', inode_of(fd), (uint64_t)at, data, (size_t)done));
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return written_at(fd, data, length, at); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t at) { return written_at(fd, data, length, at); }

ssize_t write(int fd, const void *data, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    ON_FILE(ssize_t, real(fd, data, length),
            note('W', inode_of(fd), (uint64_t)(lseek(fd, 0, SEEK_CUR) - done), data, (size_t)done));
}

static int resized(int fd, off_t length) {
    REAL(int, "ftruncate64", int, off_t);
    ON_FILE(int, real(fd, length), note('T', inode_of(fd), (uint64_t)length, NULL, 0));
}

int ftruncate(int fd, off_t length) { return resized(fd, length); }
int ftruncate64(int fd, off_t length) { return resized(fd, length); }

/* Returns the error instead of setting it: room that was made is a longer file of zeros. */
static int room_made(int fd, off_t at, off_t length) {
    REAL(int, "posix_fallocate64", int, off_t, off_t);
    ON_FILE(int, real(fd, at, length), if (!done) note('T', inode_of(fd), length_of(fd), NULL, 0));
}

int posix_fallocate(int fd, off_t at, off_t length) { return room_made(fd, at, length); }
int posix_fallocate64(int fd, off_t at, off_t length) { return room_made(fd, at, length); }

static void synced(int fd, const char *rest) {
    struct stat seen;
    if (lies || fstat(fd, &seen)) return;
    if (S_ISDIR(seen.st_mode)) note('D', seen.st_ino, 0, rest, strlen(rest));
    else note('S', seen.st_ino, 0, NULL, 0);
}

/* The time a sync takes, before it: others go on writing, and what they write then may be synced too. */
static void turn_the_disk(int fd) {
    char space[PATH_MAX];
    if (part_of(fd, space)) nanosleep(&sync_takes, NULL);
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    turn_the_disk(fd);
    ON_FILE(int, real(fd), synced(fd, rest));
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    turn_the_disk(fd);
    ON_FILE(int, real(fd), synced(fd, rest));
}

/* Runs `call` in turn, and notes it when it succeeded; for calls on the name `path`. */
#define ON_NAME(call, kind, data, length) \
    const char *rest = part(path); \
    if (!rest || strstr(rest, "-shm")) return call; \
    pthread_mutex_lock(&turn); \
    int done = call; \
    int error = errno; \
    if (!done) note(kind, 0, 0, data, length); \
    pthread_mutex_unlock(&turn); \
    errno = error; \
    return done

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    ON_NAME(real(path), 'U', rest, strlen(rest));
}

int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    ON_NAME(real(path), 'U', rest, strlen(rest));
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    ON_NAME(real(path, mode), 'M', rest, strlen(rest));
}

int rename(const char *path, const char *to) {
    REAL(int, "rename", const char *, const char *);
    char both[2 * PATH_MAX];
    const char *target = part(to);
    if (!part(path) != !target) {
        errno = EXDEV;
        fail("a name moved into or out of the directory");
    }
    int length = target ? snprintf(both, sizeof both, "%s%c%s", part(path), 0, target) : 0;
    ON_NAME(real(path, to), 'R', both, (size_t)length);
}

/* Ways to change a file that no program under test has needed yet: told loudly instead of passed over. */
#define UNSEEN(type, name, args, ...) \
    type name args { \
        char space[PATH_MAX]; \
        if (part_of(fd, space)) { errno = ENOTSUP; fail(#name " is not followed"); } \
        static type (*real) args; \
        if (!real) real = (type (*) args)dlsym(RTLD_NEXT, #name); \
        return real(__VA_ARGS__); \
    }
UNSEEN(ssize_t, writev, (int fd, const struct iovec *parts, int count), fd, parts, count)
UNSEEN(ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), fd, parts, count, at)
UNSEEN(ssize_t, copy_file_range, (int from, off_t *a, int fd, off_t *b, size_t n, unsigned f), from, a, fd, b, n, f)
