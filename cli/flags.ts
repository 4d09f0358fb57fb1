import type { CoreOptions } from '../ts/options/types.ts'
import { integer, milliseconds, sysctl, variable } from './flag-values.ts'

/** A flag of `nsrs run`. */
export interface Flag {
  /** In the syntax of commander: `-e, --env <NAME[=VALUE]>`. */
  flags: string
  /** One line of help, in lower case without a full stop. */
  help: string
  /** May be given several times; the values are collected in a list. */
  repeatable?: true
  /** The only values it takes. */
  choices?: readonly string[]
  /** Alternative names, not shown in the help. */
  aliases?: string[]
  /** Parses the text on the command line. Default: the text itself. */
  parse?: (text: string) => unknown
  /** With `repeatable`: combines the collected values. Default: a list. */
  combine?: (values: unknown[]) => unknown
}

/** The headings of the help, each with its options. */
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
} as const satisfies Record<string, readonly (keyof CoreOptions)[]>

const namespace = (letter: string) => `${letter} namespace: private, host, a path, or ns:PID`

type Ungrouped = Exclude<keyof CoreOptions, (typeof groups)[keyof typeof groups][number]>

/** `never` while some option is in no group. */
type Flags = [Ungrouped] extends [never] ? Record<keyof CoreOptions, Flag> : never

/** Every option with its flag. A new option does not compile until it is listed here and in a group. */
export const flags: Flags = {
  rootfs: {
    flags: '--rootfs <DIR>',
    help: "directory to use as the root, or host for this host's own tree, copy-on-write",
  },
  platform: { flags: '--platform <OS/ARCH>', help: "platform of the image (default: this machine's)" },
  entrypoint: {
    flags: '--entrypoint <PROGRAM>',
    help: "replace the image's entrypoint; empty for none",
    parse: (text) => (text === '' ? [] : [text]),
  },
  publishAll: {
    flags: '-P, --publish-all',
    help: 'publish every port that the image exposes on a free port, and print which',
  },
  rootfsTmpfs: { flags: '--rootfs-tmpfs', help: 'keep changes to the image in memory, not on disk' },
  readOnly: { flags: '--read-only', help: 'mount the root file system read-only' },
  diff: { flags: '--diff', help: 'list what the command changed; a root directory is not modified' },
  upper: {
    flags: '--upper <DIR>',
    help: 'keep the changes in DIR for nsrs apply or another run; a root directory is not modified',
  },
  hide: {
    flags: '--hide <PATH>',
    help: "hide a path of the host's tree, in addition to known secrets",
    repeatable: true,
  },
  volumes: { flags: '-v, --volume <SRC:DST[:OPTS]>', help: 'bind mount', repeatable: true },
  mounts: { flags: '--mount <type=…,…>', help: 'mount of type bind, tmpfs or overlay', repeatable: true },
  tmpfs: { flags: '--tmpfs <DST[:OPTS]>', help: 'temporary file system in memory', repeatable: true },
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
    help: 'publish a port; with PORT or IP::PORT, on a free port, which is printed',
    repeatable: true,
  },
  dns: { flags: '--dns <IP>', help: 'name server', repeatable: true },
  dnsSearch: { flags: '--dns-search <DOMAIN>', help: 'search domain', repeatable: true },
  dnsOptions: { flags: '--dns-option <OPT>', help: 'resolver option', repeatable: true, aliases: ['--dns-opt <OPT>'] },
  addHosts: {
    flags: '--add-host <NAME:IP>',
    help: 'line of /etc/hosts; the address host-gateway means the host',
    repeatable: true,
  },
  userns: { flags: '--userns <NS>', help: namespace('user') },
  uidMaps: { flags: '--uidmap <IN:OUT:N>', help: 'map user ids', repeatable: true },
  gidMaps: { flags: '--gidmap <IN:OUT:N>', help: 'map group ids (default: as the user ids)', repeatable: true },
  pid: { flags: '--pid <NS>', help: namespace('PID') },
  ipc: { flags: '--ipc <NS>', help: namespace('IPC') },
  uts: { flags: '--uts <NS>', help: namespace('UTS') },
  cgroupns: { flags: '--cgroupns <NS>', help: namespace('cgroup') },
  mountns: { flags: '--mountns <NS>', help: namespace('mount') },
  timens: { flags: '--timens <NS>', help: namespace('time') },
  monotonic: { flags: '--monotonic <SECONDS>', help: 'offset of the monotonic clock', parse: integer },
  boottime: { flags: '--boottime <SECONDS>', help: 'offset of the boot-time clock', parse: integer },
  env: {
    flags: '-e, --env <NAME[=VALUE]>',
    help: "set a variable; a name alone takes the caller's value",
    repeatable: true,
    parse: variable,
    combine: (pairs) => Object.fromEntries(pairs as [string, string | undefined][]),
  },
  envHost: { flags: '--env-host', help: "pass all of the caller's variables" },
  workdir: { flags: '-w, --workdir <DIR>', help: 'working directory' },
  user: { flags: '-u, --user <USER[:GROUP]>', help: 'user, by name or number' },
  groups: { flags: '--group-add <GROUP>', help: 'supplementary group', repeatable: true },
  hostname: { flags: '-h, --hostname <NAME>', help: 'host name' },
  domainname: { flags: '--domainname <NAME>', help: 'NIS domain name' },
  ulimits: { flags: '--ulimit <NAME=SOFT[:HARD]>', help: 'resource limit', repeatable: true },
  sysctls: {
    flags: '--sysctl <NAME=VALUE>',
    help: "kernel parameter of the container's namespaces",
    repeatable: true,
    parse: sysctl,
    combine: (pairs) => Object.fromEntries(pairs as [string, string][]),
  },
  umask: { flags: '--umask <MODE>', help: 'file mode creation mask, octal' },
  oomScoreAdj: { flags: '--oom-score-adj <N>', help: 'out-of-memory score, -1000 to 1000', parse: integer },
  capAdd: { flags: '--cap-add <CAP>', help: 'add a capability, or ALL', repeatable: true },
  capDrop: { flags: '--cap-drop <CAP>', help: 'drop a capability, or ALL', repeatable: true },
  allowNewPrivileges: { flags: '--allow-new-privileges', help: 'let set-user-ID programs gain privileges' },
  init: { flags: '--init', help: 'run a small init as PID 1' },
  // The supervisor takes the size from the terminal that the container runs in.
  tty: { flags: '-t, --tty', help: 'allocate a terminal for the command', parse: () => ({ cols: 80, rows: 24 }) },
  timeout: {
    flags: '--timeout <SECONDS>',
    help: 'time limit, such as 1.5, 500ms, 2m or 1h',
    parse: milliseconds,
  },
}

/** Flags of `nsrs run` that are not options of a container, by the property that holds their values. */
export const cliFlags = {
  envFile: { flags: '--env-file <FILE>', help: 'read variables from a file, one per line', repeatable: true },
  securityOpt: {
    flags: '--security-opt <OPT>',
    help: 'no-new-privileges:false is the same as --allow-new-privileges',
    repeatable: true,
  },
  preserveFd: {
    flags: '--preserve-fd <LIST>',
    help: 'pass open file descriptors to the command, such as 3,5-7',
    repeatable: true,
  },
  interactive: {
    flags: '-i, --interactive',
    help: 'no effect: standard input is always connected',
  },
  rm: { flags: '--rm', help: 'no effect: containers are always removed' },
  pull: {
    flags: '--pull <WHEN>',
    help: 'when to pull the image: always, missing (default) or never',
    choices: ['always', 'missing', 'never'],
  },
  quiet: { flags: '-q, --quiet', help: 'suppress pull output' },
  progress: {
    flags: '--progress <FORM>',
    help: 'pull progress: live, plain, json or none',
    choices: ['live', 'plain', 'json', 'none'],
  },
  explain: { flags: '--explain', help: 'only print what would be done' },
  format: {
    flags: '--format <FORMAT>',
    help: 'format of --explain or --diff: text or json',
    choices: ['text', 'json'],
  },
} as const satisfies Record<string, Flag>
