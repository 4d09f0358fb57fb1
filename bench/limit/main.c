/*
 * The limit of a container's start: a small resident program that makes the system calls of one nsrs start (taken from
 * `strace -f` of the real thing) with nothing around them: no request, no plan, no errors to tell, no JavaScript.
 *
 *   limit ROOT PROGRAM host|none|bridge
 *
 * Commands on standard input, one line each; each is answered by one line of nanoseconds:
 *   1        one start, from clone3 to the status of its exit
 *   c K N    N starts, K of them at a time
 */
#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_AT_ONCE = 64 };

struct start {
	pid_t pid;
	int pidfd;
	int channel;
};

static int netlink = -1, bridge = -1;
static unsigned counter;
static char bridge_name[16];

_Noreturn void fail(const char *step)
{
	dprintf(2, "limit: %s: %s\n", step, strerror(errno));
	_exit(125);
}

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Addresses of a network that is nobody's: the bridge itself has none, so nothing is routed to it. */
static struct addresses lease(void)
{
	unsigned host = 2 + counter++ % 60000;
	uint8_t high = (uint8_t)(host >> 8), low = (uint8_t)host;
	return (struct addresses){
		.v4 = { 10, 254, high, low },
		.v6 = { 0xfd, 0x6e, 0x73, 0x72, 0x73, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low },
	};
}

static struct start begin(const struct plan *plan)
{
	struct start start = { .pidfd = -1, .channel = -1 };
	struct addresses own = lease();
	int gate[2] = { -1, -1 };
	if (plan->bridge && pipe2(gate, O_CLOEXEC) < 0)
		fail("pipe");
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID |
			 (plan->network ? CLONE_NEWNET : 0),
		.pidfd = (uint64_t)(uintptr_t)&start.pidfd,
		.exit_signal = SIGCHLD,
	};
	long pid = syscall(SYS_clone3, &args, sizeof args);
	if (pid < 0)
		fail("clone3");
	if (pid == 0)
		container(plan, &own, gate[0]);
	start.pid = (pid_t)pid;
	if (plan->bridge) {
		close(gate[0]);
		cable_plug(netlink, bridge, start.pid, &own);
		if (write(gate[1], "", 1) != 1)
			fail("write");
		start.channel = gate[1];
	}
	return start;
}

static void finish(struct start *start)
{
	int status;
	struct rusage usage;
	if (wait4(start->pid, &status, 0, &usage) != start->pid)
		fail("wait4");
	if (status != 0) {
		dprintf(2, "limit: the program ended with status %#x\n", status);
		_exit(125);
	}
	close(start->pidfd);
	if (start->channel >= 0)
		close(start->channel);
}

static uint64_t one(const struct plan *plan)
{
	uint64_t from = now();
	struct start start = begin(plan);
	struct pollfd ready = { .fd = start.pidfd, .events = POLLIN };
	while (poll(&ready, 1, -1) != 1)
		;
	finish(&start);
	return now() - from;
}

static uint64_t many(const struct plan *plan, int at_once, int count)
{
	struct start running[MOST_AT_ONCE];
	struct pollfd ready[MOST_AT_ONCE];
	int alive = 0, begun = 0;
	uint64_t from = now();
	while (begun < count || alive > 0) {
		while (alive < at_once && begun < count) {
			running[alive] = begin(plan);
			ready[alive] = (struct pollfd){ .fd = running[alive].pidfd, .events = POLLIN };
			alive++;
			begun++;
		}
		if (poll(ready, (nfds_t)alive, -1) < 0)
			continue;
		for (int i = alive - 1; i >= 0; i--) {
			if (!ready[i].revents)
				continue;
			finish(&running[i]);
			alive--;
			running[i] = running[alive];
			ready[i] = ready[alive];
		}
	}
	return now() - from;
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: limit ROOT PROGRAM host|none|bridge\n");
		return 2;
	}
	struct plan plan = { .root = argv[1], .program = argv[2] };
	plan.bridge = strcmp(argv[3], "bridge") == 0;
	plan.network = plan.bridge || strcmp(argv[3], "none") == 0;
	plan.null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (plan.null < 0)
		fail("open /dev/null");
	if (plan.bridge) {
		snprintf(bridge_name, sizeof bridge_name, "lim%d", getpid());
		netlink = netlink_open();
		bridge = bridge_make(netlink, bridge_name);
	}
	char line[64];
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof line, stdin)) {
		int at_once, count;
		uint64_t took;
		if (sscanf(line, "c %d %d", &at_once, &count) == 2 && at_once >= 1 && at_once <= MOST_AT_ONCE)
			took = many(&plan, at_once, count);
		else
			took = one(&plan);
		printf("%llu\n", (unsigned long long)took);
	}
	if (plan.bridge)
		bridge_remove(netlink, bridge_name);
	return 0;
}
