import type { ContainerOptions } from '../ts/binding.d.ts'
import { integer, milliseconds, sysctl, variable } from './values.ts'

/** A flag of `nsrs run`. */
export interface Flag {
  /** As commander takes it: `-e, --env <NAME[=VALUE]>`. */
  flags: string
  /** One line of help, in lower case, without a full stop. */
  help: string
  /** May be given several times; the values are collected. */
  many?: true
  /** The only values it takes. */
  choices?: readonly string[]
  /** Other names for it, kept out of the help. */
  aliases?: string[]
  /** What the text on the command line means; default: itself. */
  value?: (text: string) => unknown
  /** With `many`: what the collected values are together; default: a list. */
  together?: (values: unknown[]) => unknown
}

/** Headings of the help, in order, each with the options under it. */
export const groups = {
  Image: ['platform', 'entrypoint', 'publishAll', 'rootfsTmpfs'],
  'Root file system': ['rootfs', 'readOnly', 'diff', 'upper', 'hide', 'volumes', 'mounts', 'tmpfs', 'shmSize'],
  Network: ['network', 'publish', 'dns', 'dnsSearch', 'dnsOptions', 'addHosts', 'ip', 'ip6', 'mac'],
  Process: ['env', 'envHost', 'workdir', 'user', 'groups', 'hostname', 'domainname', 'tty', 'init', 'timeout'],
  Rights: ['capAdd', 'capDrop', 'allowNewPrivileges', 'ulimits', 'sysctls', 'umask', 'oomScoreAdj'],
  Namespaces: [
    'pid',
    'ipc',
    'uts',
    'userns',
    'uidMaps',
    'gidMaps',
    'cgroupns',
    'mountns',
    'timens',
    'monotonic',
    'boottime',
  ],
} as const satisfies Record<string, readonly (keyof ContainerOptions)[]>

const namespace = (letter: string) => `${letter} namespace: private, host, a path, or ns:PID`

type Ungrouped = Exclude<keyof ContainerOptions, (typeof groups)[keyof typeof groups][number]>

/** Nothing can be of this type while an option stands in no group. */
type Flags = [Ungrouped] extends [never] ? Record<keyof ContainerOptions, Flag> : never

/** Every option with its flag; a new option does not compile until it stands here and in a group. */
export const flags: Flags = {
  rootfs: {
    flags: '--rootfs <DIR>',
    help: 'a directory, or host for its own tree, copy-on-write; a command follows',
  },
  platform: { flags: '--platform <OS/ARCH>', help: "which of an image's platforms (default: this machine's)" },
  entrypoint: {
    flags: '--entrypoint <PROGRAM>',
    help: "in place of the image's; an empty text for none",
    value: (text) => (text === '' ? [] : [text]),
  },
  publishAll: {
    flags: '-P, --publish-all',
    help: 'publish every port of tcp and udp that the image exposes, on free ports, which are told',
  },
  rootfsTmpfs: { flags: '--rootfs-tmpfs', help: 'keep changes of the image in memory, not on disk' },
  readOnly: { flags: '--read-only', help: 'mount the root file system read-only' },
  diff: { flags: '--diff', help: 'list at the end what the command changed; a directory as the root stays as it is' },
  upper: {
    flags: '--upper <DIR>',
    help: 'keep the changes in a directory, for nsrs apply or another run; a directory as the root stays as it is',
  },
  hide: {
    flags: '--hide <PATH>',
    help: "hide a path of the host's tree, beside the well-known secret places",
    many: true,
  },
  volumes: { flags: '-v, --volume <SRC:DST[:OPTS]>', help: 'bind mount', many: true },
  mounts: { flags: '--mount <type=…,…>', help: 'mount of type bind, tmpfs or overlay', many: true },
  tmpfs: { flags: '--tmpfs <DST[:OPTS]>', help: 'temporary file system in memory', many: true },
  shmSize: { flags: '--shm-size <SIZE>', help: 'size of /dev/shm (default 64m)' },
  network: {
    flags: '--network <MODE>',
    help: 'none, host, bridge, pasta, or ns:NAME|PATH|PID',
    aliases: ['--net <MODE>'],
  },
  ip: { flags: '--ip <IP>', help: 'IPv4 address on the bridge' },
  ip6: { flags: '--ip6 <IP>', help: 'IPv6 address on the bridge' },
  mac: { flags: '--mac-address <MAC>', help: 'hardware address', aliases: ['--mac <MAC>'] },
  publish: {
    flags: '-p, --publish <[IP:]HOST:PORT[/udp]>',
    help: 'publish a port of the container; PORT or IP::PORT: on a free port, which is told',
    many: true,
  },
  dns: { flags: '--dns <IP>', help: 'name server', many: true },
  dnsSearch: { flags: '--dns-search <DOMAIN>', help: 'search domain', many: true },
  dnsOptions: { flags: '--dns-option <OPT>', help: 'resolver option', many: true, aliases: ['--dns-opt <OPT>'] },
  addHosts: {
    flags: '--add-host <NAME:IP>',
    help: 'line of /etc/hosts; the address host-gateway is the host',
    many: true,
  },
  userns: { flags: '--userns <NS>', help: namespace('user') },
  uidMaps: { flags: '--uidmap <IN:OUT:N>', help: 'map user ids', many: true },
  gidMaps: { flags: '--gidmap <IN:OUT:N>', help: 'map group ids (default: as the user ids)', many: true },
  pid: { flags: '--pid <NS>', help: namespace('PID') },
  ipc: { flags: '--ipc <NS>', help: namespace('IPC') },
  uts: { flags: '--uts <NS>', help: namespace('UTS') },
  cgroupns: { flags: '--cgroupns <NS>', help: namespace('cgroup') },
  mountns: { flags: '--mountns <NS>', help: namespace('mount') },
  timens: { flags: '--timens <NS>', help: namespace('time') },
  monotonic: { flags: '--monotonic <SECONDS>', help: 'offset of the monotonic clock', value: integer },
  boottime: { flags: '--boottime <SECONDS>', help: 'offset of the boot-time clock', value: integer },
  env: {
    flags: '-e, --env <NAME[=VALUE]>',
    help: "variable; a name alone takes the caller's value",
    many: true,
    value: variable,
    together: (pairs) => Object.fromEntries(pairs as [string, string | undefined][]),
  },
  envHost: { flags: '--env-host', help: 'all variables of the caller' },
  workdir: { flags: '-w, --workdir <DIR>', help: 'working directory' },
  user: { flags: '-u, --user <USER[:GROUP]>', help: 'user, by name or number' },
  groups: { flags: '--group-add <GROUP>', help: 'supplementary group', many: true },
  hostname: { flags: '-h, --hostname <NAME>', help: 'host name' },
  domainname: { flags: '--domainname <NAME>', help: 'NIS domain name' },
  ulimits: { flags: '--ulimit <NAME=SOFT[:HARD]>', help: 'resource limit', many: true },
  sysctls: {
    flags: '--sysctl <NAME=VALUE>',
    help: "kernel parameter of the container's namespaces",
    many: true,
    value: sysctl,
    together: (pairs) => Object.fromEntries(pairs as [string, string][]),
  },
  umask: { flags: '--umask <MODE>', help: 'file mode creation mask, octal' },
  oomScoreAdj: { flags: '--oom-score-adj <N>', help: 'out-of-memory score, -1000 to 1000', value: integer },
  capAdd: { flags: '--cap-add <CAP>', help: 'add a capability, or ALL', many: true },
  capDrop: { flags: '--cap-drop <CAP>', help: 'drop a capability, or ALL', many: true },
  allowNewPrivileges: { flags: '--allow-new-privileges', help: 'let set-user-ID programs give more rights' },
  init: { flags: '--init', help: 'run a small init as PID 1' },
  // The size is that of the terminal that the container is run in.
  tty: { flags: '-t, --tty', help: 'give the command a terminal', value: () => ({ cols: 80, rows: 24 }) },
  timeout: {
    flags: '--timeout <SECONDS>',
    help: 'kill the container after this time (1.5, 500ms, 2m, 1h)',
    value: milliseconds,
  },
}

/** Flags of `nsrs run` that are no options of a container, by the property that their values are kept in. */
export const ownFlags = {
  envFile: { flags: '--env-file <FILE>', help: 'variables from a file, a line each', many: true },
  securityOpt: {
    flags: '--security-opt <OPT>',
    help: 'no-new-privileges:false is --allow-new-privileges',
    many: true,
  },
  preserveFd: {
    flags: '--preserve-fd <LIST>',
    help: 'hand on open file descriptors, such as 3,5-7',
    many: true,
  },
  interactive: { flags: '-i, --interactive', help: "accepted as docker's; standard input is always connected" },
  rm: { flags: '--rm', help: "accepted as docker's; a container always goes with its end" },
  pull: {
    flags: '--pull <WHEN>',
    help: 'pull the image: always, missing (default) or never',
    choices: ['always', 'missing', 'never'],
  },
  quiet: { flags: '-q, --quiet', help: 'pull without a word' },
  progress: {
    flags: '--progress <FORM>',
    help: 'how a pull is told: live, plain, json or none',
    choices: ['live', 'plain', 'json', 'none'],
  },
  explain: { flags: '--explain', help: 'print what would be done, and do nothing' },
  format: { flags: '--format <FORMAT>', help: 'of --explain or --diff: text or json', choices: ['text', 'json'] },
} as const satisfies Record<string, Flag>
