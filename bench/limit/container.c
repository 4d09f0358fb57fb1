/*
 * What happens in the new process, in the order of crates/core/src/steps/mod.rs. Left out, because it changes nothing for
 * the program: the channel to the supervisor, signal actions that are the default already, checks of what was just done.
 */
#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

enum { PATH = O_PATH | O_CLOEXEC | O_NOFOLLOW };
enum { RESTRICTED = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC };

static int sure(long result, const char *step)
{
	if (result < 0)
		fail(step);
	return (int)result;
}

static int beneath(int directory, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
	return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

static int draft(const char *kind)
{
	int fd = sure(fsopen(kind, FSOPEN_CLOEXEC), kind);
	sure(fsconfig(fd, FSCONFIG_SET_STRING, "source", kind, 0), kind);
	return fd;
}

static void set(int fd, const char *key, const char *value)
{
	sure(fsconfig(fd, FSCONFIG_SET_STRING, key, value, 0), key);
}

static int made(int fd, unsigned attributes)
{
	sure(fsconfig(fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0), "fsconfig");
	int mount = sure(fsmount(fd, FSMOUNT_CLOEXEC, attributes), "fsmount");
	close(fd);
	return mount;
}

static void attach(int mount, int target)
{
	sure(move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), "move_mount");
	close(target);
}

static int copy(int directory, const char *path, unsigned flags)
{
	return sure(open_tree(directory, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | flags), "open_tree");
}

static void read_only(int mount, unsigned flags)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
	sure(mount_setattr(mount, "", AT_EMPTY_PATH | flags, &attr, sizeof attr), "mount_setattr");
}

static int enter_root(const char *path)
{
	struct mount_attr attr = { .propagation = MS_PRIVATE };
	sure(mount_setattr(AT_FDCWD, "/", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr), "mount_setattr");
	int tree = copy(AT_FDCWD, path, AT_RECURSIVE);
	attach(tree, sure(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), "open the root"));
	sure(fchdir(tree), "fchdir");
	sure(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	sure(umount2(".", MNT_DETACH), "umount2");
	sure(chdir("/"), "chdir");
	close(tree);
	return sure(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "open /");
}

static int place(int root, const char *name)
{
	return sure(beneath(root, name, PATH | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS), name);
}

static int inside(int dev, const char *name)
{
	sure(mkdirat(dev, name, 0755), name);
	return sure(openat(dev, name, PATH), name);
}

static int mount_dev(int root)
{
	int target = place(root, "dev");
	int fs = draft("tmpfs");
	set(fs, "mode", "755");
	set(fs, "size", "67108864");
	int dev = made(fs, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	attach(dev, target);
	static const struct { const char *name; unsigned major, minor; } nodes[] = {
		{ "null", 1, 3 }, { "zero", 1, 5 }, { "full", 1, 7 }, { "random", 1, 8 }, { "urandom", 1, 9 }, { "tty", 5, 0 },
	};
	umask(0);
	for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++)
		sure(mknodat(dev, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), "mknodat");
	umask(022);
	static const char *const links[][2] = {
		{ "/proc/self/fd", "fd" }, { "/proc/self/fd/0", "stdin" }, { "/proc/self/fd/1", "stdout" },
		{ "/proc/self/fd/2", "stderr" }, { "pts/ptmx", "ptmx" },
	};
	for (unsigned i = 0; i < sizeof links / sizeof *links; i++)
		sure(symlinkat(links[i][0], dev, links[i][1]), "symlinkat");

	fs = draft("devpts");
	set(fs, "ptmxmode", "0666");
	set(fs, "mode", "0620");
	set(fs, "gid", "5");
	int pts = made(fs, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	attach(pts, inside(dev, "pts"));
	close(pts);
	fs = draft("tmpfs");
	set(fs, "mode", "1777");
	set(fs, "size", "67108864");
	int shm = made(fs, RESTRICTED);
	attach(shm, inside(dev, "shm"));
	close(shm);
	int queues = made(draft("mqueue"), RESTRICTED);
	attach(queues, inside(dev, "mqueue"));
	close(queues);
	return dev;
}

static void files(const struct plan *plan, int root, int dev)
{
	static const char *const texts[][2] = {
		{ "hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tnsrs\n" },
		{ "hostname", "nsrs\n" },
		{ "resolv.conf", "nameserver 192.0.2.1\n" },
	};
	int etc = sure(beneath(root, "etc", O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), "etc");
	for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
		const char *name = texts[i][0], *text = texts[i][1];
		/* Without a way out there is nobody to resolve names. */
		if (i == 2 && plan->network && !plan->bridge)
			continue;
		int target = sure(openat(etc, name, PATH), name);
		int file = sure(openat(dev, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644), name);
		if (write(file, text, strlen(text)) < 0)
			fail(name);
		close(file);
		int mount = copy(dev, name, 0);
		attach(mount, target);
		close(mount);
		sure(unlinkat(dev, name, 0), name);
	}
	close(etc);
}

static void parameter(int proc, const char *path, const char *value)
{
	int file = sure(beneath(proc, path, O_WRONLY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV), path);
	if (write(file, value, strlen(value)) < 0)
		fail(path);
	close(file);
}

static void connect_network(const struct plan *plan, const struct addresses *own, int proc, int gate)
{
	char byte;
	if (plan->bridge) {
		if (read(gate, &byte, 1) != 1)
			fail("wait for the cable");
		parameter(proc, "sys/net/ipv6/conf/eth0/accept_ra", "0");
		parameter(proc, "sys/net/ipv6/conf/eth0/accept_dad", "0");
		parameter(proc, "sys/net/ipv6/conf/eth0/disable_ipv6", "0");
	}
	if (plan->network) {
		network_up(plan->bridge ? own : NULL);
		parameter(proc, "sys/net/ipv4/ip_unprivileged_port_start", "0");
		parameter(proc, "sys/net/ipv4/ping_group_range", "0 2147483647");
	}
}

static void restrict_pseudo(int proc, int sys, int dev)
{
	static const char *const masked_proc[] = { "acpi", "interrupts", "kcore", "keys", "latency_stats", "sched_debug",
						   "scsi", "timer_list", "timer_stats" };
	static const char *const masked_sys[] = { "dev/block", "devices/virtual/powercap", "firmware", "fs/selinux" };
	static const char *const kept[] = { "asound", "bus", "fs", "irq", "sys", "sysrq-trigger" };
	enum { PROC = sizeof masked_proc / sizeof *masked_proc, SYS = sizeof masked_sys / sizeof *masked_sys };
	const uint64_t bounds = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
	struct stat stat;
	sure(mkdirat(dev, ".masked", 0555), "mkdirat");
	for (unsigned i = 0; i < PROC + SYS; i++) {
		int target = i < PROC ? beneath(proc, masked_proc[i], PATH, bounds) : beneath(sys, masked_sys[i - PROC], PATH, bounds);
		if (target < 0)
			continue;
		sure(fstat(target, &stat), "fstat");
		int mask = copy(dev, S_ISDIR(stat.st_mode) ? ".masked" : "null", 0);
		read_only(mask, 0);
		attach(mask, target);
		close(mask);
	}
	sure(unlinkat(dev, ".masked", AT_REMOVEDIR), "unlinkat");
	for (unsigned i = 0; i < sizeof kept / sizeof *kept; i++) {
		int target = beneath(proc, kept[i], PATH, bounds);
		if (target < 0)
			continue;
		int tree = copy(target, "", AT_RECURSIVE);
		read_only(tree, AT_RECURSIVE);
		attach(tree, target);
		close(tree);
	}
}

static void look_up_user(int root)
{
	static const char *const names[] = { "etc/passwd", "etc/group" };
	char text[16384];
	for (int i = 0; i < 2; i++) {
		int file = beneath(root, names[i], O_RDONLY | O_NOCTTY | O_NONBLOCK, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
		if (file < 0)
			continue;
		while (read(file, text, sizeof text) > 0)
			;
		close(file);
	}
}

/* The filter of crates/base/src/sys/seccomp.rs, instruction by instruction, as it is on x86-64. */
static void filter_calls(void)
{
#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)
#define EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define END(action) BPF_STMT(BPF_RET | BPF_K, action)
#define DENY END(SECCOMP_RET_ERRNO | 1)
#define CALL(number, argument, first, second) \
	EQUAL(number, 0, 5), LOAD(offsetof(struct seccomp_data, args[argument])), EQUAL(first, 1, 0), EQUAL(second, 0, 1), \
	DENY, END(SECCOMP_RET_ALLOW)
#define ABI(audit, socket, ioctl) \
	LOAD(offsetof(struct seccomp_data, arch)), EQUAL(audit, 0, 16), LOAD(offsetof(struct seccomp_data, nr)), \
	BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x40000000, 0, 1), END(SECCOMP_RET_ERRNO | 38), \
	CALL(socket, 0, 38 /* AF_ALG */, 40 /* AF_VSOCK */), CALL(ioctl, 1, 0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */), \
	END(SECCOMP_RET_ALLOW)
	struct sock_filter filter[] = { ABI(AUDIT_ARCH_X86_64, 41, 16), ABI(AUDIT_ARCH_I386, 359, 54), END(SECCOMP_RET_KILL_PROCESS) };
	struct sock_fprog program = { .len = sizeof filter / sizeof *filter, .filter = filter };
	sure(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "seccomp");
}

static void give_up_rights(void)
{
	/* podman's default set */
	static const unsigned kept = 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER | 1u << CAP_FSETID |
				     1u << CAP_KILL | 1u << CAP_SETGID | 1u << CAP_SETUID | 1u << CAP_SETPCAP |
				     1u << CAP_NET_BIND_SERVICE | 1u << CAP_SYS_CHROOT | 1u << CAP_SETFCAP;
	for (int number = 0; number <= CAP_LAST_CAP; number++)
		if (number >= 32 || !(kept & 1u << number))
			sure(prctl(PR_CAPBSET_DROP, number), "PR_CAPBSET_DROP");
	gid_t group = 0;
	sure(syscall(SYS_setgroups, 1, &group), "setgroups");
	prctl(PR_SET_KEEPCAPS, 1);
	sure(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
	sure(syscall(SYS_setresuid, 0, 0, 0), "setresuid");
	prctl(PR_SET_KEEPCAPS, 0);
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = { { .effective = kept, .permitted = kept } };
	sure(syscall(SYS_capset, &header, sets), "capset");
	sure(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "PR_CAP_AMBIENT");
	sure(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
}

_Noreturn void container(const struct plan *plan, const struct addresses *own, int gate)
{
	sure(setsid(), "setsid");
	for (int number = 0; number < 3; number++)
		sure(dup2(plan->null, number), "dup2");
	int proc = made(draft("proc"), RESTRICTED);
	int sys = made(draft("sysfs"), RESTRICTED | MOUNT_ATTR_RDONLY);
	int root = enter_root(plan->root);
	attach(proc, place(root, "proc"));
	attach(sys, place(root, "sys"));
	int dev = mount_dev(root);
	files(plan, root, dev);
	sure(sethostname("nsrs", 4), "sethostname");
	connect_network(plan, own, proc, gate);
	restrict_pseudo(proc, sys, dev);
	close(proc);
	close(sys);
	close(dev);
	look_up_user(root);
	filter_calls();
	give_up_rights();
	sure(chdir("/"), "chdir");
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	sure(prctl(PR_SET_PDEATHSIG, SIGKILL), "PR_SET_PDEATHSIG");
	sure(syscall(SYS_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */), "close_range");
	char *args[] = { (char *)plan->program, NULL };
	char *env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "HOSTNAME=nsrs", NULL };
	execve(plan->program, args, env);
	fail("execve");
}
