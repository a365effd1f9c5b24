/*
 * Stands between a process and the kernel (LD_PRELOAD): logs in which order the journal was synced and the bank was
 * written to, and makes the journal's disk fail on demand. It owns no judgement: the tests read its log.
 *
 * SHIM_JOURNAL=PATH    the database. PATH is called "db", PATH-wal "wal"; other files are passed through.
 * SHIM_BANK_PORT=PORT  connections to this port are the bank's.
 * SHIM_LOG=PATH        a line for each event, "<sequence> <CLOCK_MONOTONIC ns> <event>":
 *                          write FILE len=N ret=N
 *                          sync FILE begin
 *                          sync FILE end errno=N size=N
 *                          connect conn=N
 *                          net CALL conn=N len=N types=N,N    (before the call; "+" for the rest of a record)
 *                      The sequence is taken before a call for "begin" and "net", after it for the others: a sync whose
 *                      end has a lower number than a "net" had returned before those bytes were handed to the kernel.
 * SHIM_FAULT=OP:WHAT:WHEN,...
 *                      OP    wal-write, wal-sync, db-write, db-sync
 *                      WHAT  EIO, ENOSPC (nothing is done), short (half is written), slow:MS (done after a while)
 *                      WHEN  always; while:PATH (as long as that file exists); once-after:PATH (once, when it exists)
 *
 * Calls are made as system calls, so that nothing here depends on the order of loading. glibc on 64-bit Linux.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { NOTHING, DB, WAL, BANK };

/* Where the stream to the bank stands in its TLS records. */
struct records {
    unsigned char head[5];
    unsigned have; /* Bytes of head that have been seen. */
    size_t left;   /* Bytes of the record's body that are still to come. */
};

struct descriptor {
    atomic_int kind;
    unsigned long conn;
    struct records records; /* Used by the one thread that writes to the connection. */
};

struct fault {
    enum kind file;
    int sync;
    int error; /* 0 for short and slow. */
    long slow_ms;
    int once;
    const char *path; /* NULL for always. */
    atomic_int spent;
};

#define DESCRIPTORS 65536
#define FAULTS 8

static struct descriptor table[DESCRIPTORS];
static struct fault faults[FAULTS];
static int fault_count;
static int log_fd = -1;
static int bank_port = -1;
static const char *journal;
static atomic_ulong sequence = 1;
static atomic_ulong connections = 1;

static void die(const char *why, const char *what)
{
    dprintf(2, "shim: %s: %s\n", why, what);
    _exit(97);
}

static void record(unsigned long number, const char *format, ...)
{
    if (log_fd < 0)
        return;
    int saved = errno;
    char line[512];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "%lu %lld ", number, now.tv_sec * 1000000000LL + now.tv_nsec);
    va_list arguments;
    va_start(arguments, format);
    length += vsnprintf(line + length, sizeof line - (size_t)length - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length++] = '\n';
    if (syscall(SYS_write, log_fd, line, (size_t)length) != length)
        die("the log takes no more", strerror(errno));
    errno = saved;
}

static unsigned long next(void)
{
    return atomic_fetch_add(&sequence, 1);
}

static struct descriptor *look(int fd, enum kind least)
{
    if (fd < 0 || fd >= DESCRIPTORS)
        return NULL;
    return atomic_load(&table[fd].kind) >= (int)least ? &table[fd] : NULL;
}

static void set(int fd, enum kind kind)
{
    if (fd >= 0 && fd < DESCRIPTORS)
        atomic_store(&table[fd].kind, (int)kind);
}

static const char *name(int kind)
{
    return kind == WAL ? "wal" : "db";
}

/* Configuration. */

static void parse_fault(char *text)
{
    if (fault_count == FAULTS)
        die("too many faults", text);
    struct fault *fault = &faults[fault_count++];
    char *rest = text;
    const char *op = strsep(&rest, ":");
    const char *what = strsep(&rest, ":");
    if (!what)
        die("not OP:WHAT:WHEN", text);
    fault->file = strncmp(op, "wal-", 4) == 0 ? WAL : DB;
    const char *dash = strchr(op, '-');
    if (dash && strcmp(dash, "-sync") == 0)
        fault->sync = 1;
    else if (!dash || strcmp(dash, "-write") != 0)
        die("no such operation", op);
    if (strcmp(what, "EIO") == 0) {
        fault->error = EIO;
    } else if (strcmp(what, "ENOSPC") == 0) {
        fault->error = ENOSPC;
    } else if (strcmp(what, "slow") == 0) {
        const char *ms = strsep(&rest, ":");
        fault->slow_ms = ms ? atol(ms) : 0;
    } else if (strcmp(what, "short") != 0 || fault->sync) {
        die("no such fault", what);
    }
    const char *when = strsep(&rest, ":");
    if (!when)
        die("no WHEN", text);
    if (strcmp(when, "always") == 0)
        return;
    fault->once = strcmp(when, "once-after") == 0;
    if ((!fault->once && strcmp(when, "while") != 0) || !rest)
        die("no such WHEN", when);
    fault->path = rest;
}

__attribute__((constructor)) static void start(void)
{
    journal = getenv("SHIM_JOURNAL");
    const char *port = getenv("SHIM_BANK_PORT");
    if (port)
        bank_port = atoi(port);
    const char *path = getenv("SHIM_LOG");
    if (path) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        /* Out of the way of the process's own numbers. */
        log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 500);
        if (log_fd < 0)
            die("cannot open the log", path);
        syscall(SYS_close, fd);
    }
    const char *given = getenv("SHIM_FAULT");
    if (given) {
        char *text = strdup(given);
        for (char *one; (one = strsep(&text, ",")) != NULL;)
            parse_fault(one);
    }
}

/* Faults. */

static const struct fault *fault_now(int file, int sync)
{
    for (int i = 0; i < fault_count; i++) {
        struct fault *fault = &faults[i];
        if ((int)fault->file != file || fault->sync != sync)
            continue;
        if (fault->path && syscall(SYS_faccessat, AT_FDCWD, fault->path, F_OK) != 0)
            continue;
        if (fault->once && atomic_exchange(&fault->spent, 1))
            continue;
        return fault;
    }
    return NULL;
}

static void pause_for(const struct fault *fault)
{
    struct timespec left = {fault->slow_ms / 1000, fault->slow_ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

/* Files. */

static int opened(int fd, const char *path)
{
    enum kind kind = NOTHING;
    size_t length = journal && path ? strlen(journal) : 0;
    if (length && strncmp(path, journal, length) == 0) {
        if (path[length] == '\0')
            kind = DB;
        else if (strcmp(path + length, "-wal") == 0)
            kind = WAL;
    }
    set(fd, kind);
    return fd;
}

static int open_at(int dir, const char *path, int flags, va_list arguments)
{
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    return opened((int)syscall(SYS_openat, dir, path, flags, mode), path);
}

#define OPEN(dir)                                                                                                      \
    va_list arguments;                                                                                                 \
    va_start(arguments, flags);                                                                                        \
    int fd = open_at(dir, path, flags, arguments);                                                                     \
    va_end(arguments);                                                                                                 \
    return fd

int open(const char *path, int flags, ...)
{
    OPEN(AT_FDCWD);
}

int open64(const char *path, int flags, ...)
{
    OPEN(AT_FDCWD);
}

int openat(int dir, const char *path, int flags, ...)
{
    OPEN(dir);
}

int openat64(int dir, const char *path, int flags, ...)
{
    OPEN(dir);
}

int close(int fd)
{
    /* First: another thread may be given the number as soon as it is free. */
    set(fd, NOTHING);
    return (int)syscall(SYS_close, fd);
}

static int synced(int fd, long call)
{
    struct descriptor *descriptor = look(fd, DB);
    int kind = descriptor ? atomic_load(&descriptor->kind) : NOTHING;
    if (kind != DB && kind != WAL)
        return (int)syscall(call, fd);
    record(next(), "sync %s begin", name(kind));
    const struct fault *fault = fault_now(kind, 1);
    int result = -1;
    if (fault && fault->slow_ms)
        pause_for(fault);
    if (fault && fault->error)
        errno = fault->error;
    else
        result = (int)syscall(call, fd);
    int error = result == 0 ? 0 : errno;
    struct stat facts;
    long long size = fstat(fd, &facts) == 0 ? (long long)facts.st_size : -1;
    record(next(), "sync %s end errno=%d size=%lld", name(kind), error, size);
    errno = error;
    return result;
}

int fsync(int fd)
{
    return synced(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return synced(fd, SYS_fdatasync);
}

/* at < 0: at the file's own position. */
static ssize_t stored(int fd, int kind, const void *bytes, size_t length, off64_t at)
{
    const struct fault *fault = fault_now(kind, 0);
    size_t some = length;
    ssize_t result = -1;
    if (fault && fault->slow_ms)
        pause_for(fault);
    else if (fault && !fault->error && length > 1)
        some = length / 2;
    if (fault && fault->error)
        errno = fault->error;
    else if (at < 0)
        result = syscall(SYS_write, fd, bytes, some);
    else
        result = syscall(SYS_pwrite64, fd, bytes, some, at);
    record(next(), "write %s len=%zu ret=%zd", name(kind), length, result);
    return result;
}

/* The bank. */

/* Walks over bytes that go to the bank. Appends the type of each record that begins in them to `types`, if given. */
static void walk(struct records *records, const struct iovec *parts, int count, size_t limit, char *types, size_t room)
{
    size_t used = 0;
    if (types)
        types[0] = '\0';
    if (types && (records->left || records->have))
        used = (size_t)snprintf(types, room, "+");
    for (int i = 0; i < count && limit; i++) {
        const unsigned char *bytes = parts[i].iov_base;
        size_t length = parts[i].iov_len < limit ? parts[i].iov_len : limit;
        limit -= length;
        while (length) {
            if (records->left) {
                size_t step = records->left < length ? records->left : length;
                records->left -= step;
                bytes += step;
                length -= step;
                continue;
            }
            if (records->have == 0 && types && used + 8 < room)
                used += (size_t)snprintf(types + used, room - used, "%s%u", used ? "," : "", bytes[0]);
            records->head[records->have++] = *bytes++;
            length--;
            if (records->have == sizeof records->head) {
                records->left = (size_t)records->head[3] << 8 | records->head[4];
                records->have = 0;
            }
        }
    }
}

static void told(struct descriptor *descriptor, const char *call, const struct iovec *parts, int count)
{
    char types[256];
    struct records copy = descriptor->records;
    size_t length = 0;
    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    walk(&copy, parts, count, SIZE_MAX, types, sizeof types);
    record(next(), "net %s conn=%lu len=%zu types=%s", call, descriptor->conn, length, types);
}

static ssize_t went(struct descriptor *descriptor, const struct iovec *parts, int count, ssize_t result)
{
    if (result > 0)
        walk(&descriptor->records, parts, count, (size_t)result, NULL, 0);
    return result;
}

int connect(int fd, __CONST_SOCKADDR_ARG to, socklen_t length)
{
    const struct sockaddr *address = to.__sockaddr__;
    int port = -1;
    if (length >= sizeof(struct sockaddr_in) && address->sa_family == AF_INET)
        port = ntohs(to.__sockaddr_in__->sin_port);
    else if (length >= sizeof(struct sockaddr_in6) && address->sa_family == AF_INET6)
        port = ntohs(to.__sockaddr_in6__->sin6_port);
    if (port >= 0 && port == bank_port && fd >= 0 && fd < DESCRIPTORS) {
        table[fd].conn = atomic_fetch_add(&connections, 1);
        table[fd].records = (struct records){{0}, 0, 0};
        set(fd, BANK);
        record(next(), "connect conn=%lu", table[fd].conn);
    } else {
        set(fd, NOTHING);
    }
    return (int)syscall(SYS_connect, fd, address, length);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    struct descriptor *descriptor = look(fd, DB);
    if (!descriptor)
        return syscall(SYS_write, fd, bytes, length);
    int kind = atomic_load(&descriptor->kind);
    if (kind != BANK)
        return stored(fd, kind, bytes, length, -1);
    struct iovec part = {(void *)(uintptr_t)bytes, length};
    told(descriptor, "write", &part, 1);
    return went(descriptor, &part, 1, syscall(SYS_write, fd, bytes, length));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
    struct descriptor *descriptor = look(fd, DB);
    if (!descriptor)
        return syscall(SYS_pwrite64, fd, bytes, length, at);
    return stored(fd, atomic_load(&descriptor->kind), bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    return pwrite64(fd, bytes, length, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    struct descriptor *descriptor = look(fd, DB);
    int kind = descriptor ? atomic_load(&descriptor->kind) : NOTHING;
    if (kind == DB || kind == WAL)
        die("nobody here writes the journal by", "writev");
    if (kind != BANK)
        return syscall(SYS_writev, fd, parts, count);
    told(descriptor, "writev", parts, count);
    return went(descriptor, parts, count, syscall(SYS_writev, fd, parts, count));
}

ssize_t sendto(int fd, const void *bytes, size_t length, int flags, __CONST_SOCKADDR_ARG to, socklen_t to_length)
{
    struct descriptor *descriptor = look(fd, BANK);
    if (!descriptor)
        return syscall(SYS_sendto, fd, bytes, length, flags, to.__sockaddr__, to_length);
    struct iovec part = {(void *)(uintptr_t)bytes, length};
    told(descriptor, "send", &part, 1);
    return went(descriptor, &part, 1, syscall(SYS_sendto, fd, bytes, length, flags, to.__sockaddr__, to_length));
}

ssize_t send(int fd, const void *bytes, size_t length, int flags)
{
    return sendto(fd, bytes, length, flags, (const struct sockaddr *)NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct descriptor *descriptor = look(fd, BANK);
    if (!descriptor)
        return syscall(SYS_sendmsg, fd, message, flags);
    int count = (int)message->msg_iovlen;
    told(descriptor, "sendmsg", message->msg_iov, count);
    return went(descriptor, message->msg_iov, count, syscall(SYS_sendmsg, fd, message, flags));
}
