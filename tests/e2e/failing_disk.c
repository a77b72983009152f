/* A disk that fails once, between a program and the C library (LD_PRELOAD), for test_failing_disk.py.
 *
 *   FAILING_DISK="fdatasync .wal 17 EIO"    the 17th fdatasync of a file whose path has ".wal" in it
 *
 * CALL    fdatasync, fsync or pwrite
 * ACTION  EIO, ENOSPC: it fails so. What was written to the file since its last good sync is gone,
 *         as it is on disks whose cache drops what it couldn't write: there are zeros in its place.
 *         short, of a pwrite: half of it is written, and the caller is told so.
 *         torn, of a pwrite: half of it is written, and the process is killed.
 *
 * Only that one call fails. Whoever writes to or syncs the file again would find it working, so it is
 * told on stderr: "failing_disk: used again". One file at a time, whatever thread; no locks but one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_MAX_BYTES = 512, RANGES_MAX = 65536 };

struct range {
  int fd;
  off_t at;
  size_t size;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char call[16], part[64], action[16], failed_path[PATH_MAX_BYTES];
static long left;
static struct range unsynced[RANGES_MAX];
static int ranges;

static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static ssize_t (*real_pwrite)(int, const void*, size_t, off_t);

__attribute__((constructor)) static void begin(void) {
  real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  real_pwrite = (ssize_t(*)(int, const void*, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
  const char* text = getenv("FAILING_DISK");
  if (text == NULL || sscanf(text, "%15s %63s %ld %15s", call, part, &left, action) != 4) {
    fprintf(stderr, "failing_disk: FAILING_DISK=\"CALL PATH_PART COUNT ACTION\" is not set\n");
    abort();
  }
}

/* Whether the file's path has `part` in it; tells when it is used after it failed. */
static int is_ours(int fd, const char* what) {
  char link[64], path[PATH_MAX_BYTES];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, path, sizeof path - 1);
  if (size <= 0) return 0;
  path[size] = '\0';
  if (failed_path[0] != '\0' && strcmp(path, failed_path) == 0) {
    fprintf(stderr, "failing_disk: used again: %s of %s\n", what, path);
  }
  return strstr(path, part) != NULL;
}

static int is_due(int fd, const char* what) {
  if (strcmp(call, what) != 0 || --left != 0) return 0;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, failed_path, sizeof failed_path - 1);
  failed_path[size > 0 ? size : 0] = '\0';
  fprintf(stderr, "failing_disk: %s of %s: %s\n", what, failed_path, action);
  return 1;
}

static int fail(void) {
  errno = strcmp(action, "ENOSPC") == 0 ? ENOSPC : EIO;
  return -1;
}

static void forget(int fd, int lose) {
  static const char zeros[4096];
  int kept = 0;
  for (int i = 0; i < ranges; ++i) {
    if (unsynced[i].fd != fd) {
      unsynced[kept++] = unsynced[i];
      continue;
    }
    while (lose && unsynced[i].size > 0) {
      const size_t size = unsynced[i].size < sizeof zeros ? unsynced[i].size : sizeof zeros;
      real_pwrite(fd, zeros, size, unsynced[i].at);
      unsynced[i].at += (off_t)size;
      unsynced[i].size -= size;
    }
  }
  ranges = kept;
}

static int sync_file(int fd, const char* what, int (*real)(int)) {
  pthread_mutex_lock(&mutex);
  int result = 0;
  if (!is_ours(fd, what)) {
    result = real(fd);
  } else if (is_due(fd, what)) {
    forget(fd, 1);
    result = fail();
  } else {
    result = real(fd);
    if (result == 0) forget(fd, 0);
  }
  const int why = errno;
  pthread_mutex_unlock(&mutex);
  errno = why;
  return result;
}

int fdatasync(int fd) { return sync_file(fd, "fdatasync", real_fdatasync); }

int fsync(int fd) { return sync_file(fd, "fsync", real_fsync); }

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t at) {
  pthread_mutex_lock(&mutex);
  ssize_t result = 0;
  if (!is_ours(fd, "pwrite")) {
    result = real_pwrite(fd, bytes, size, at);
  } else if (!is_due(fd, "pwrite")) {
    result = real_pwrite(fd, bytes, size, at);
    if (result > 0 && ranges < RANGES_MAX) {
      unsynced[ranges++] = (struct range){fd, at, (size_t)result};
    }
  } else if (strcmp(action, "torn") == 0) {
    real_pwrite(fd, bytes, size / 2, at);
    raise(SIGKILL);
  } else if (strcmp(action, "short") == 0) {
    result = real_pwrite(fd, bytes, size / 2, at);
  } else {
    result = fail();
  }
  const int why = errno;
  pthread_mutex_unlock(&mutex);
  errno = why;
  return result;
}

ssize_t pwrite64(int fd, const void* bytes, size_t size, off_t at) {
  return pwrite(fd, bytes, size, at);
}
