// Makes a sibling of itself, which leaves its process group and ends at the word of its argument: "now", or "last".
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **words) {
  if (count != 2) return 2;
  long child = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
  if (child < 0) {
    perror("clone");
    return 1;
  }
  if (child == 0) {
    setsid();
    // Nobody is to wait for its streams.
    for (int fd = 0; fd < 3; fd++) close(fd);
    if (strcmp(words[1], "last") == 0) pause();
    return 0;
  }
  puts("made");
  return 0;
}
