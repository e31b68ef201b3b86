/* Stands between a process and its disk: writes down what the process does to one folder, and plays a broken disk.

   Preloaded, it takes the place of libc's calls that change files. Rules:

   1. A change is made and then recorded, under one lock, before the caller hears of it. So the log has the order in
      which changes happened, and whatever a caller may rely on stands before the next thing it does.
   2. A sync has two records, before and after. Only changes recorded before the first are durable after the second:
      what other threads write meanwhile may have missed it. Nothing is synced for real; the delay plays the disk's time.
   3. A file is its inode, a name is its parent's inode and a word. Nothing is kept per descriptor, so dup, fork, exec
      and descriptors that were passed on need no care.
   4. What cannot be modelled is recorded as such, and the reader of the log refuses it. Nothing is left out in silence,
      but SQLite's -shm files: they are mapped, and rebuilt from the log after a crash.
   5. When the log cannot be written the process is aborted.

   The environment names the folder, the log, and the file of faults, which tests/powerloss/rig.py lays out as below. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "off_t and off64_t are taken to be the same");

enum kind { WRITE = 1, TRUNCATE, SYNC_BEGIN, SYNC_END, CREATE, LINK, UNLINK, RENAME, ACK, UNMODELLED };

struct header { uint32_t kind, length; uint64_t inode, offset, other; };

struct faults {
    int32_t write_error, sync_error;   /* 0: none */
    int64_t write_bytes;               /* that are still written before writes fail */
    int64_t syncs;                     /* that still succeed before syncs fail */
    int64_t sync_failures;             /* that then come; negative: no end */
    int64_t sync_delay_us;
    _Atomic int64_t syncs_begun, syncs_failed, writes_failed;   /* told to the driver */
};

struct entry { uint64_t parent; char name[NAME_MAX + 1]; };

enum place { ELSEWHERE, UNRECORDED, RECORDED };

#define HIGH_DESCRIPTOR 900   /* out of the way of programs that count on low ones */

static struct faults *faults;   /* null: not recording */
static int log_fd, lock_fd;
static char folder[PATH_MAX];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* --- Set-up, lock, log ------------------------------------------------------------------------------------------- */

static void hold(void) { pthread_mutex_lock(&mutex); }
static void let_go(void) { pthread_mutex_unlock(&mutex); }

static int open_high(const char *path, int flags) {
    int low = path ? (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0) : -1;
    int high = low < 0 ? -1 : fcntl(low, F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR);
    if (high >= 0) close(low);
    return high >= 0 ? high : low;
}

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("RUNYARD_POWERLOSS_FOLDER");
    if (!name || strlen(name) >= sizeof folder) return;
    log_fd = open_high(getenv("RUNYARD_POWERLOSS_LOG"), O_WRONLY | O_APPEND);
    lock_fd = open_high(getenv("RUNYARD_POWERLOSS_FAULTS"), O_RDWR);
    if (log_fd < 0 || lock_fd < 0) return;
    void *map = mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, lock_fd, 0);
    if (map == MAP_FAILED) return;
    strcpy(folder, name);
    pthread_atfork(hold, let_go, let_go);
    faults = map;
}

/* Threads exclude each other by the mutex, processes by a lock that dies with them. */
static void lock(void) {
    hold();
    struct flock whole = {.l_type = F_WRLCK};
    while (fcntl(lock_fd, F_SETLKW, &whole) && errno == EINTR) {}
}

static void unlock(void) {
    int error = errno;
    struct flock whole = {.l_type = F_UNLCK};
    fcntl(lock_fd, F_SETLK, &whole);
    let_go();
    errno = error;
}

static void record(enum kind kind, uint64_t inode, uint64_t offset, uint64_t other, const void *payload, size_t length) {
    int error = errno;
    struct header header = {0x52590000 | kind, (uint32_t)length, inode, offset, other};
    struct iovec parts[2] = {{&header, sizeof header}, {(void *)payload, length}};
    if (length > UINT32_MAX || syscall(SYS_writev, log_fd, parts, 2) != (long)(sizeof header + length)) {
        dprintf(2, "power-loss shim: cannot write the log: %m\n");
        abort();
    }
    errno = error;
}

static void unmodelled(const char *what) { record(UNMODELLED, 0, 0, 0, what, strlen(what)); }

/* --- What is ours ------------------------------------------------------------------------------------------------ */

static bool is_shm(const char *path) {
    size_t length = strlen(path);
    return length > 4 && !strcmp(path + length - 4, "-shm");
}

/* Where a descriptor leads, by the name that the kernel has for it. */
static enum place place_of(int fd, struct stat *status) {
    if (!faults || fd < 0 || fstat(fd, status) || !(S_ISREG(status->st_mode) || S_ISDIR(status->st_mode))) return ELSEWHERE;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1), root = (ssize_t)strlen(folder);
    if (length < root || strncmp(path, folder, (size_t)root)) return ELSEWHERE;
    path[length] = 0;
    if (path[root] != '/' && path[root] != 0) return ELSEWHERE;
    char *deleted = strstr(path, " (deleted)");
    if (deleted) *deleted = 0;
    return is_shm(path) ? UNRECORDED : RECORDED;
}

/* Whether a path is a name in our folder, and which; the file need not be there. */
static bool entry_of(int dir, const char *path, struct entry *entry) {
    char parent[PATH_MAX];
    size_t length = faults && path ? strlen(path) : 0;
    while (length > 1 && path[length - 1] == '/') length--;
    if (!length || length >= sizeof parent) return false;
    memcpy(parent, path, length);
    parent[length] = 0;
    char *slash = strrchr(parent, '/'), *name = slash ? slash + 1 : parent;
    if (strlen(name) > NAME_MAX || is_shm(name)) return false;
    strcpy(entry->name, name);
    strcpy(name, ".");
    int error = errno, fd = (int)syscall(SYS_openat, dir, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    struct stat status;
    bool ours = fd >= 0 && place_of(fd, &status) == RECORDED;
    if (fd >= 0) close(fd);
    entry->parent = ours ? status.st_ino : 0;
    errno = error;
    return ours;
}

/* --- Contents ---------------------------------------------------------------------------------------------------- */

/* How many of these bytes a disk with faults takes; -1 and errno: none. The lock is held. */
static ssize_t room_for(size_t count) {
    if (!faults->write_error || !count) return (ssize_t)count;
    int64_t room = faults->write_bytes < (int64_t)count ? faults->write_bytes : (int64_t)count;
    faults->write_bytes -= room;
    if (room) return room;
    faults->writes_failed++;
    errno = faults->write_error;
    return -1;
}

/* A write at an offset or, with a negative one, where the descriptor stands. */
static ssize_t put(int fd, const void *bytes, size_t count, off_t offset, enum place place, uint64_t inode) {
    lock();
    ssize_t done = room_for(count);
    if (done > 0) {
        done = offset < 0 ? syscall(SYS_write, fd, bytes, done) : syscall(SYS_pwrite64, fd, bytes, done, offset);
        if (done > 0 && place == RECORDED) {
            if (offset < 0) offset = lseek(fd, 0, SEEK_CUR) - done;
            record(WRITE, inode, (uint64_t)offset, 0, bytes, (size_t)done);
        }
    }
    unlock();
    return done;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    struct stat status;
    enum place place = place_of(fd, &status);
    return place ? put(fd, bytes, count, -1, place, status.st_ino) : syscall(SYS_write, fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    struct stat status;
    enum place place = offset < 0 ? ELSEWHERE : place_of(fd, &status);
    return place ? put(fd, bytes, count, offset, place, status.st_ino) : syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    struct stat status;
    enum place place = place_of(fd, &status);
    if (!place || count < 1) {
        if (offset == -1 && !flags) return syscall(SYS_writev, fd, parts, count);
        return syscall(SYS_pwritev2, fd, parts, count, offset, 0L, flags);
    }
    if (flags) unmodelled("pwritev2 with flags");
    size_t total = 0;
    for (int i = 0; i < count; i++) total += parts[i].iov_len;
    char *whole = malloc(total ? total : 1), *next = whole;
    if (!whole) return -1;
    for (int i = 0; i < count; i++) next = mempcpy(next, parts[i].iov_base, parts[i].iov_len);
    ssize_t done = put(fd, whole, total, offset, place, status.st_ino);
    free(whole);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) { return pwritev2(fd, parts, count, -1, 0); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return pwritev2(fd, parts, count, offset, 0); }

int ftruncate(int fd, off_t size) {
    struct stat status;
    if (place_of(fd, &status) != RECORDED) return (int)syscall(SYS_ftruncate, fd, size);
    lock();
    int result = (int)syscall(SYS_ftruncate, fd, size);
    if (!result) record(TRUNCATE, status.st_ino, (uint64_t)size, 0, NULL, 0);
    unlock();
    return result;
}

int truncate(const char *path, off_t size) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    int result = fd < 0 ? -1 : ftruncate(fd, size), error = errno;
    if (fd >= 0) close(fd);
    errno = error;
    return result;
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    struct stat status;
    enum place place = place_of(fd, &status);
    if (!place) return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    lock();
    int result = -1;
    if (room_for((size_t)length) == length) result = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    else errno = faults->write_error;
    if (!result && place == RECORDED && mode & ~FALLOC_FL_KEEP_SIZE) unmodelled("fallocate that changes what is there");
    if (!result && place == RECORDED && !mode && offset + length > status.st_size)
        record(TRUNCATE, status.st_ino, (uint64_t)(offset + length), 0, NULL, 0);
    unlock();
    return result;
}

int posix_fallocate(int fd, off_t offset, off_t length) {
    int before = errno, error = fallocate(fd, 0, offset, length) ? errno : 0;
    errno = before;
    return error;
}

/* Copies inside the kernel would pass us by. Callers know systems that lack them, and write instead. */
ssize_t sendfile(int to, int from, off_t *offset, size_t count) {
    struct stat status;
    return place_of(to, &status) ? (errno = ENOSYS, -1) : syscall(SYS_sendfile, to, from, offset, count);
}

ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t count, unsigned flags) {
    struct stat status;
    if (place_of(to, &status)) return errno = ENOSYS, -1;
    return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, count, flags);
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    struct stat status;
    if (fd >= 0 && flags & MAP_SHARED && protection & PROT_WRITE && place_of(fd, &status) == RECORDED)
        unmodelled("a shared mapping that can be written");
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}

/* --- Syncs ------------------------------------------------------------------------------------------------------- */

static int sync_error(void) {
    if (!faults->sync_error) return 0;
    if (faults->syncs > 0) return faults->syncs--, 0;
    if (!faults->sync_failures) return 0;
    if (faults->sync_failures > 0) faults->sync_failures--;
    faults->syncs_failed++;
    return faults->sync_error;
}

static int sync_file(int fd, long call) {
    struct stat status;
    if (place_of(fd, &status) != RECORDED) return (int)syscall(call, fd);
    uint64_t token = (uint64_t)atomic_fetch_add(&faults->syncs_begun, 1);
    record(SYNC_BEGIN, status.st_ino, 0, token, NULL, 0);
    if (faults->sync_delay_us > 0) usleep((useconds_t)faults->sync_delay_us);
    lock();
    int error = sync_error();
    record(SYNC_END, status.st_ino, (uint64_t)error, token, NULL, 0);
    unlock();
    return error ? (errno = error, -1) : 0;
}

int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

/* --- Names ------------------------------------------------------------------------------------------------------- */

static int open_at(int dir, const char *path, int flags, mode_t mode) {
    struct entry entry;
    bool plain = !(flags & (O_CREAT | O_TRUNC | O_SYNC)) || (flags & O_TMPFILE) == O_TMPFILE;
    if (plain || !entry_of(dir, path, &entry)) return (int)syscall(SYS_openat, dir, path, flags, mode);
    lock();
    struct stat before, status;
    int error = errno;
    bool existed = !fstatat(dir, path, &before, 0);
    errno = error;
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= 0 && !fstat(fd, &status)) {
        if (!existed) record(CREATE, status.st_ino, status.st_mode, entry.parent, entry.name, strlen(entry.name));
        else if (flags & O_TRUNC) record(TRUNCATE, status.st_ino, 0, 0, NULL, 0);
        if (flags & O_SYNC) unmodelled("O_SYNC or O_DSYNC");
    }
    unlock();
    return fd;
}

#define MODE_ARGUMENT(flags, mode) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        __builtin_va_list arguments; \
        __builtin_va_start(arguments, flags); \
        mode = __builtin_va_arg(arguments, mode_t); \
        __builtin_va_end(arguments); \
    }

int open(const char *path, int flags, ...) { MODE_ARGUMENT(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE_ARGUMENT(flags, mode) return open_at(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int dir, const char *path, int flags) { return open_at(dir, path, flags, 0); }

int mkdirat(int dir, const char *path, mode_t mode) {
    struct entry entry;
    if (!entry_of(dir, path, &entry)) return (int)syscall(SYS_mkdirat, dir, path, mode);
    lock();
    struct stat status;
    int result = (int)syscall(SYS_mkdirat, dir, path, mode);
    if (!result && !fstatat(dir, path, &status, AT_SYMLINK_NOFOLLOW))
        record(CREATE, status.st_ino, status.st_mode, entry.parent, entry.name, strlen(entry.name));
    unlock();
    return result;
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    struct entry entry;
    if (!entry_of(to_dir, to, &entry)) return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    lock();
    struct stat status;
    int result = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    if (!result && !fstatat(to_dir, to, &status, AT_SYMLINK_NOFOLLOW))
        record(LINK, status.st_ino, 0, entry.parent, entry.name, strlen(entry.name));
    unlock();
    return result;
}

int unlinkat(int dir, const char *path, int flags) {
    struct entry entry;
    if (!entry_of(dir, path, &entry)) return (int)syscall(SYS_unlinkat, dir, path, flags);
    lock();
    struct stat status = {0};
    int error = errno, gone = fstatat(dir, path, &status, AT_SYMLINK_NOFOLLOW);
    errno = error;
    int result = (int)syscall(SYS_unlinkat, dir, path, flags);
    if (!result && !gone) record(UNLINK, status.st_ino, 0, entry.parent, entry.name, strlen(entry.name));
    unlock();
    return result;
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    struct entry old, new;
    bool leaves = entry_of(from_dir, from, &old), comes = entry_of(to_dir, to, &new);
    if (!leaves && !comes) return (int)syscall(SYS_renameat, from_dir, from, to_dir, to);
    lock();
    char names[2 * sizeof old.name];
    int result = (int)syscall(SYS_renameat, from_dir, from, to_dir, to), length = 0;
    struct stat status = {0};
    if (!result && fstatat(to_dir, to, &status, AT_SYMLINK_NOFOLLOW)) unmodelled("a file that was renamed twice at once");
    else if (!result && leaves && comes) {
        length = snprintf(names, sizeof names, "%s/%s", old.name, new.name);
        record(RENAME, status.st_ino, new.parent, old.parent, names, (size_t)length);
    } else if (!result && leaves) record(UNLINK, status.st_ino, 0, old.parent, old.name, strlen(old.name));
    else if (!result) unmodelled("a file that was moved in from outside");
    unlock();
    return result;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = unlink(path);
    return result && errno == EISDIR ? rmdir(path) : result;
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

/* --- The same with 64 bits, as libc has them by two names ---------------------------------------------------------- */

#define ALSO(name) __attribute__((alias(#name)))
int open64(const char *path, int flags, ...) ALSO(open);
int openat64(int dir, const char *path, int flags, ...) ALSO(openat);
int creat64(const char *path, mode_t mode) ALSO(creat);
int __open64_2(const char *path, int flags) ALSO(__open_2);
int __openat64_2(int dir, const char *path, int flags) ALSO(__openat_2);
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) ALSO(pwrite);
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) ALSO(pwritev);
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) ALSO(pwritev2);
int ftruncate64(int fd, off64_t size) ALSO(ftruncate);
int truncate64(const char *path, off64_t size) ALSO(truncate);
int fallocate64(int fd, int mode, off64_t offset, off64_t length) ALSO(fallocate);
int posix_fallocate64(int fd, off64_t offset, off64_t length) ALSO(posix_fallocate);
ssize_t sendfile64(int to, int from, off64_t *offset, size_t count) ALSO(sendfile);
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset) ALSO(mmap);
