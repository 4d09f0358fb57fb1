// Made from crates/core/src/spec by its tests. Not to be edited.

/**
 * The facts of the calling process that a call is relative to.
 */
export type Caller = {
  /**
   * Its working directory, absolute; empty where it was removed.
   */
  cwd: string,
  /**
   * The variables of its environment that a container may be given: all of them for `envHost`, else a few.
   */
  env: Record<string, string>,
};

/**
 * In which form a list of changes is wanted.
 */
export type Form = "text" | "json";

/**
 * Size of a terminal in characters.
 */
export type TerminalSize = {
  /**
   * Width in columns, 1 to 65535.
   */
  cols: number,
  /**
   * Height in rows, 1 to 65535.
   */
  rows: number,
};

/**
 * A mount taken apart, for paths that hold colons or commas.
 */
export type MountOptions = {
  /**
   * Type of the mount: `bind`, `tmpfs` or `overlay`.
   */
  type: 'bind' | 'tmpfs' | 'overlay',
  /**
   * Path on the host (`bind`), lower directory (`overlay`); none for `tmpfs`. Relative to the caller's directory.
   */
  source?: string,
  /**
   * Absolute path in the container.
   */
  target: string,
  /**
   * `ro`, `nosuid`, `nodev`, `noexec`, `rslave`, `size=64m`, `mode=1777`, …
   */
  options?: Array<string>,
};

/**
 * A mount as the caller wrote it.
 */
export type MountSpec = string | MountOptions;

/**
 * The root file system as the caller named it.
 */
export type Rootfs = string | {
  /**
   * Its name, completed by docker's rules (`busybox`, `registry.example/app:1`), or the beginning of its id.
   */
  image: string,
};

/**
 * A container as the caller asked for it.
 */
export type Spec = {
  /**
   * The command and its arguments; the command is looked up in the container's `PATH`.
   */
  args: Array<string>,
  /**
   * What relative paths, `~/` and the environment refer to.
   */
  caller: Caller,
  /**
   * Give the command every variable of the caller. Default false: on the host's tree only what programs need to run
   * (`PATH`, `HOME`, `LANG`, …), elsewhere docker's minimum.
   */
  envHost: boolean,
  /**
   * Run a small init as PID 1, which reaps orphans and forwards signals. Default false: the command is PID 1.
   */
  init: boolean,
  /**
   * The container stays until it is ended: without a command nsrs's own init is its first process.
   */
  stays: boolean,
  /**
   * Numbers of passed file descriptors in the command, in the order in which they are passed, after 0, 1, 2.
   */
  preserveFds: Array<number>,
  /**
   * Which of standard output (1) and error (2) are pipes that were made for the command: they are given to its user, who can
   * then open them by name (/dev/stdout).
   */
  ownPipes: Array<number>,
  /**
   * In which form the command's changes are listed, if they are. Default JSON.
   */
  changesForm: Form,
  /**
   * The root file system: `host`, the host's own tree copy-on-write, a directory, or an image. Default `host`.
   */
  rootfs?: Rootfs,
  /**
   * Keep what the command writes to an image's tree in memory, not on disk. Default false.
   */
  rootfsTmpfs: boolean,
  /**
   * Mount the root file system read-only. Default false.
   */
  readOnly: boolean,
  /**
   * List what the command changed of its root file system, in `changes` of the result. A directory as the root is
   * copy-on-write then. Default false.
   */
  diff: boolean,
  /**
   * Directory that keeps what the command changes of its root file system, to be shown and applied by `nsrs apply`, or
   * gone on with; made if it is missing. A directory as the root is copy-on-write then. Default: the changes are thrown
   * away.
   */
  upper?: string,
  /**
   * Further paths of the host's tree to hide (`~/` is the home directory), beside the well-known secret places.
   */
  hide: Array<string>,
  /**
   * Bind mounts, `SOURCE:TARGET[:OPTIONS]`, as docker's `--volume`.
   */
  volumes: Array<string>,
  /**
   * Mounts as `type=bind,source=…,target=…[,readonly]`, or taken apart.
   */
  mounts: Array<MountSpec>,
  /**
   * Temporary file systems in memory, `TARGET[:OPTIONS]`, as docker's `--tmpfs`.
   */
  tmpfs: Array<string>,
  /**
   * Size of /dev/shm, such as `64m`. Default `64m`.
   */
  shmSize?: string,
  /**
   * Which of an image's platforms, `os/arch[/variant]`. Default: this machine's.
   */
  platform?: string,
  /**
   * In place of the image's entrypoint; its `Cmd` is then dropped too. An empty list is no entrypoint.
   */
  entrypoint?: Array<string>,
  /**
   * Publish every port of tcp and udp that the image exposes, each on a free port of the host. Default false.
   */
  publishAll: boolean,
  /**
   * The network: `none`, `host`, `bridge`, `pasta`, or `ns:NAME|PATH|PID`. Default `bridge` for root, else `pasta` if
   * it is installed, else `none`.
   */
  network?: string,
  /**
   * IPv4 address on the bridge.
   */
  ip?: string,
  /**
   * IPv6 address on the bridge.
   */
  ip6?: string,
  /**
   * Hardware (MAC) address on the bridge. Default: one made from the IPv4 address.
   */
  mac?: string,
  /**
   * Published ports, `[IP:][HOST:]CONTAINER[/udp]`; without `HOST` on a free port.
   */
  publish: Array<string>,
  /**
   * Addresses of name servers. Default: those of the host that the container can reach.
   */
  dns: Array<string>,
  /**
   * Search domains of the resolver.
   */
  dnsSearch: Array<string>,
  /**
   * Options of the resolver, see resolv.conf(5). Default: the host's.
   */
  dnsOptions: Array<string>,
  /**
   * Lines for /etc/hosts, `NAME:IP`; the address `host-gateway` is the host.
   */
  addHosts: Array<string>,
  /**
   * User namespace: `private`, `host`, a path, or `ns:PID`. Default `host` for root, `private` for everybody else.
   */
  userns?: string,
  /**
   * User ids of a user namespace of its own, `INSIDE:OUTSIDE:COUNT`. Default: root keeps all ids. Everybody else
   * keeps their id on the host's tree, and elsewhere becomes root, with their subordinate ids beside it.
   */
  uidMaps: Array<string>,
  /**
   * Group ids, `INSIDE:OUTSIDE:COUNT`. Default: as the user ids.
   */
  gidMaps: Array<string>,
  /**
   * PID namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
   */
  pid?: string,
  /**
   * IPC namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
   */
  ipc?: string,
  /**
   * UTS namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
   */
  uts?: string,
  /**
   * Cgroup namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
   */
  cgroupns?: string,
  /**
   * Mount namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
   */
  mountns?: string,
  /**
   * Time namespace: `private`, `host`, a path, or `ns:PID`. Default `host`, or `private` with an offset.
   */
  timens?: string,
  /**
   * Offset of the monotonic clock in seconds.
   */
  monotonic: number,
  /**
   * Offset of the boot-time clock in seconds.
   */
  boottime: number,
  /**
   * Host name. Default: the caller's on the host's tree, else `nsrs`.
   */
  hostname?: string,
  /**
   * NIS domain name. Default: the caller's.
   */
  domainname?: string,
  /**
   * Kernel parameters of the container's own namespaces.
   */
  sysctls: Record<string, string>,
  /**
   * Variables of the command. A name with the value `undefined` takes the caller's; where a process enters, that
   * variable of the container is taken away.
   */
  env: Record<string, string | undefined>,
  /**
   * Working directory in the container. Default: the caller's on the host's tree, else `/`.
   */
  workdir?: string,
  /**
   * `USER[:GROUP]`, names of the container or numbers. Default: the caller on the host's tree, else root. `HOME`, and on
   * the host's tree `USER` and `LOGNAME`, are this user's.
   */
  user?: string,
  /**
   * Supplementary groups, beside those of the user.
   */
  groups: Array<string>,
  /**
   * File mode creation mask, octal. Default: the caller's on the host's tree, else `0022`.
   */
  umask?: string,
  /**
   * Give the command a terminal of its own, of this size.
   */
  tty?: TerminalSize,
  /**
   * Kill the process after this many milliseconds; with the first process its container ends. Default: never.
   */
  timeout: number,
  /**
   * Capabilities beyond podman's default set, with or without `CAP_`, or `ALL`.
   */
  capAdd: Array<string>,
  /**
   * Capabilities to take away, or `ALL`.
   */
  capDrop: Array<string>,
  /**
   * Let set-user-ID programs and file capabilities give more rights. Default false (`no_new_privs` is on).
   */
  allowNewPrivileges: boolean,
  /**
   * Resource limits (setrlimit(2)), `NAME=SOFT[:HARD]`, such as `nofile=1024`. Default: the caller's.
   */
  ulimits: Array<string>,
  /**
   * Out-of-memory score, -1000 to 1000.
   */
  oomScoreAdj: number,
};

/**
 * A process in a container that runs. What is left at its default is as the container's own command has it.
 */
export type EnterSpec = {
  /**
   * The command and its arguments; the command is looked up in the container's `PATH`.
   */
  args: Array<string>,
  /**
   * Numbers of passed file descriptors in the command, in the order in which they are passed, after 0, 1, 2.
   */
  preserveFds: Array<number>,
  /**
   * Which of standard output (1) and error (2) are pipes that were made for the command: they are given to its user, who can
   * then open them by name (/dev/stdout).
   */
  ownPipes: Array<number>,
  /**
   * Variables of the command. A name with the value `undefined` takes the caller's; where a process enters, that
   * variable of the container is taken away.
   */
  env: Record<string, string | undefined>,
  /**
   * Working directory in the container. Default: the caller's on the host's tree, else `/`.
   */
  workdir?: string,
  /**
   * `USER[:GROUP]`, names of the container or numbers. Default: the caller on the host's tree, else root. `HOME`, and on
   * the host's tree `USER` and `LOGNAME`, are this user's.
   */
  user?: string,
  /**
   * Supplementary groups, beside those of the user.
   */
  groups: Array<string>,
  /**
   * File mode creation mask, octal. Default: the caller's on the host's tree, else `0022`.
   */
  umask?: string,
  /**
   * Give the command a terminal of its own, of this size.
   */
  tty?: TerminalSize,
  /**
   * Kill the process after this many milliseconds; with the first process its container ends. Default: never.
   */
  timeout: number,
};
