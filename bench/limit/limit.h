/* The limit: the system calls of one nsrs start with nothing around them. See main.c. */
#ifndef LIMIT_H
#define LIMIT_H

#include <stdbool.h>
#include <stdint.h>

/* What a start is to be. */
struct plan {
	const char *root;      /* directory that becomes the container's root */
	const char *program;   /* executed in it, without arguments */
	bool network;          /* a network namespace with its loopback up */
	bool bridge;           /* and a veth cable to the bridge */
	int null;              /* descriptor of /dev/null */
};

/* The container's own addresses in one start. */
struct addresses {
	uint8_t v4[4];
	uint8_t v6[16];
};

/* Ends the process with the name of the step that failed and errno. */
_Noreturn void fail(const char *step);

/* The new process, from clone3 to execve. `gate` is readable when the cable is plugged. */
_Noreturn void container(const struct plan *plan, const struct addresses *own, int gate);

/* A route netlink socket. */
int netlink_open(void);
/* Makes the bridge of the measurements; returns its number. */
int bridge_make(int netlink, const char *name);
void bridge_remove(int netlink, const char *name);
/* Plugs a cable from the bridge into a process's network namespace, as its eth0. */
void cable_plug(int netlink, int bridge, int pid, const struct addresses *own);
/* From inside: loopback up; with `own` also eth0 with its addresses and routes. */
void network_up(const struct addresses *own);

#endif
