/* A disk that fails when it is told to: preloaded into a process, it makes the writing calls on files below a folder fail.
 *
 * NEARSIDE_FAULT_DIR   the folder: how the files' paths begin, without links in them
 * NEARSIDE_FAULT_FILE  what fails, read at each call: "fsync" (EIO of fsync and fdatasync), "write" (EIO of all that writes),
 *                      "enospc" (ENOSPC of all that writes); nothing as long as it is not there
 *
 * It is to be called without locks and from any thread, so it holds nothing but the addresses of the real calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Whether the file is below the folder. */
static int is_below(int fd)
{
    const char *folder = getenv("NEARSIDE_FAULT_DIR");
    char link[64], path[PATH_MAX];
    ssize_t length;

    if (!folder || !*folder)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

/* Whether this is what fails now. */
static int is_told(const char *what)
{
    const char *file = getenv("NEARSIDE_FAULT_FILE");
    char told[32];
    ssize_t length;
    int fd;

    if (!file || (fd = open(file, O_RDONLY | O_CLOEXEC)) < 0)
        return 0;
    length = read(fd, told, sizeof told - 1);
    close(fd);
    if (length < 0)
        return 0;
    told[length] = 0;
    return strncmp(told, what, strlen(what)) == 0;
}

/* The error of a call, 0 for none; the caller's errno stays as it is. */
static int fault(int fd, int is_sync)
{
    int kept = errno, error = 0;

    if (is_below(fd)) {
        if (is_sync)
            error = is_told("fsync") ? EIO : 0;
        else if (is_told("write"))
            error = EIO;
        else if (is_told("enospc"))
            error = ENOSPC;
    }
    errno = kept;
    return error;
}

#define CALL(result, name, is_sync, fd, declared, passed)          \
    result name declared                                           \
    {                                                              \
        static result(*real) declared;                             \
        int error = fault(fd, is_sync);                            \
                                                                   \
        if (error) {                                               \
            errno = error;                                         \
            return -1;                                             \
        }                                                          \
        if (!real)                                                 \
            real = (result(*) declared)dlsym(RTLD_NEXT, #name);    \
        return real passed;                                        \
    }

CALL(ssize_t, write, 0, fd, (int fd, const void *from, size_t length), (fd, from, length))
CALL(ssize_t, pwrite, 0, fd, (int fd, const void *from, size_t length, off_t at), (fd, from, length, at))
CALL(ssize_t, pwrite64, 0, fd, (int fd, const void *from, size_t length, off64_t at), (fd, from, length, at))
CALL(ssize_t, writev, 0, fd, (int fd, const struct iovec *from, int count), (fd, from, count))
CALL(ssize_t, pwritev, 0, fd, (int fd, const struct iovec *from, int count, off_t at), (fd, from, count, at))
CALL(ssize_t, pwritev64, 0, fd, (int fd, const struct iovec *from, int count, off64_t at), (fd, from, count, at))
CALL(int, fsync, 1, fd, (int fd), (fd))
CALL(int, fdatasync, 1, fd, (int fd), (fd))
