// Has a child trace it and ends with 7: as long as the tracer doesn't wait for it, its parent can't reap it.
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <unistd.h>

int main(void) {
  int told[2];
  char seized = 0;
  pid_t self = getpid();
  if (pipe(told) != 0) return 2;
  // Where Yama restricts tracing, the tracer must be named.
  prctl(PR_SET_PTRACER, -1, 0, 0, 0);
  if (fork() == 0) {
    setsid();
    seized = ptrace(PTRACE_SEIZE, self, 0, 0) == 0 ? 'y' : 'n';
    if (write(told[1], &seized, 1) != 1) return 2;
    // Nobody is to wait for its streams.
    for (int fd = 0; fd < 3; fd++) close(fd);
    for (;;) pause();
  }
  if (read(told[0], &seized, 1) != 1) return 2;
  puts(seized == 'y' ? "traced" : "not traced");
  return 7;
}
