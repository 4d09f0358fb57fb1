// Bad input: a clear error that names the option or path and the reason, the right exit code, and nothing left behind.

import { chmodSync, chownSync, copyFileSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { snapshot } from '../helpers/canary.ts'
import {
  asEach,
  asRoot,
  asUser,
  cli,
  type ExecOptions,
  exec,
  isRoot,
  type Place,
  project,
  unless,
} from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

interface Mistake {
  args: string[]
  /** What the message has to hold: option or path, and reason. */
  says: RegExp[]
  code?: number
  options?: ExecOptions
}

/** State that a mistake may not change. */
function remains(place: Place): string[] {
  const state = () => {
    try {
      return readdirSync(place.state, { recursive: true, withFileTypes: true })
        .filter((entry) => !entry.isDirectory())
        .map(({ name }) => name)
    } catch {
      return []
    }
  }
  return [...snapshot(join(place.dir, 'root')), ...state()]
}

function mistakes(place: Place, rootfs: string): Record<string, Mistake> {
  const at = (name: string) => join(place.dir, name)
  const inRoot = ['--rootfs', rootfs]
  return {
    'the rootfs is missing': {
      args: ['--rootfs', at('nowhere'), 'true'],
      says: [/--rootfs ".*nowhere"/, /no such directory/],
    },
    'the rootfs is a file': { args: ['--rootfs', at('file'), 'true'], says: [/--rootfs ".*file"/, /not a directory/] },
    'the rootfs is empty': {
      args: ['--rootfs', at('empty'), 'true'],
      says: [/--rootfs ".*empty"/, /is empty/, /hint:/],
    },
    'a mount target lies in /sys and is missing': {
      args: [...inRoot, '-v', `${at('volume')}:/sys/x`, 'true'],
      says: [
        /mount onto \/sys\/x: .*\/sys is a file system of the kernel's/,
        /--volume ".*:\/sys\/x"/,
        /hint: .*another/,
      ],
    },
    'a mount target lies in /sys and exists': {
      args: [...inRoot, '--tmpfs', '/sys/kernel', 'true'],
      says: [/mount onto \/sys\/kernel: .*\/sys is a file system of the kernel's/, /hint: .*another/],
    },
    'a mount target lies in /proc': {
      args: [...inRoot, '-v', `${at('file')}:/etc/../proc/x/y`, 'true'],
      says: [/mount onto .*: .*\/proc is a file system of the kernel's/, /--volume/, /hint: .*another/],
    },
    'a mount target leads into /proc by a link': {
      args: [...inRoot, '--tmpfs', '/window/x', 'true'],
      says: [/mount onto \/window\/x: .*\/proc is a file system of the kernel's/, /hint: .*another/],
    },
    'the command does not exist': {
      args: [...inRoot, 'no-such-command'],
      says: [/no-such-command/, /PATH/],
      code: 127,
    },
    'the path of the command does not exist': {
      args: [...inRoot, '/no/such/command'],
      says: [/\/no\/such\/command/, /ENOENT/],
      code: 127,
    },
    'the command is not executable': {
      args: [...inRoot, '/plain'],
      says: [/\/plain/, /not executable/, /EACCES/],
      code: 126,
    },
    'the command is of the wrong format': {
      args: [...inRoot, '/garbage'],
      says: [/\/garbage/, /ENOEXEC/, /not a program/],
      code: 126,
    },
    'the command is a directory': { args: [...inRoot, '/etc'], says: [/\/etc/, /directory/], code: 126 },
    'the interpreter is missing': { args: [...inRoot, '/script'], says: [/\/script/, /\/no\/interpreter/], code: 126 },
    'the command is empty': { args: [...inRoot, ''], says: [/command/, /empty/] },
    'the user is unknown': {
      args: [...inRoot, '-u', 'nobody-here', 'true'],
      says: [/user "nobody-here"/, /\/etc\/passwd/],
    },
    'the group is unknown': {
      args: [...inRoot, '-u', '0:nobody-here', 'true'],
      says: [/group "nobody-here"/, /\/etc\/group/],
    },
    'the user is too large': {
      args: [...inRoot, '-u', '4294967296', 'true'],
      says: [/--user "4294967296"/, /4294967294/],
    },
    'a map is no map': {
      args: [...inRoot, '--uidmap', '0:x:1', '--userns', 'private', '--', 'true'],
      says: [/--uidmap "0:x:1"/, /three numbers/],
    },
    'a map is empty': {
      args: [...inRoot, '--uidmap', '0:0:0', '--userns', 'private', '--', 'true'],
      says: [/--uidmap "0:0:0"/, /no ids/],
    },
    'maps overlap': {
      args: [...inRoot, '--uidmap', '0:100000:10', '--uidmap', '5:200000:10', '--userns', 'private', '--', 'true'],
      says: [/--uidmap "5:200000:10"/, /overlaps 0:100000:10/],
    },
    'a map without a user namespace': {
      args: [...inRoot, '--uidmap', '0:0:1', '--userns', 'host', 'true'],
      says: [/--uidmap/, /--userns/],
    },
    'port 0': { args: [...inRoot, '--network', 'bridge', '-p', '8080:0', 'true'], says: [/--publish "8080:0"/] },
    'port 70000': {
      args: [...inRoot, '--network', 'bridge', '-p', '70000:80', 'true'],
      says: [/--publish "70000:80"/, /65535/],
    },
    'the same port twice': {
      args: [...inRoot, '--network', 'bridge', '-p', '8080:80', '-p', '8080:81', 'true'],
      says: [/--publish "8080:81\/tcp"/, /also asked for by "8080:80\/tcp"/],
    },
    'a published port without a network for it': {
      args: [...inRoot, '--network', 'none', '-p', '8080:80', 'true'],
      says: [/--publish/, /--network none/],
    },
    'the source of a mount is missing': {
      args: [...inRoot, '-v', `${at('nowhere')}:/mnt`, 'true'],
      says: [/--volume ".*nowhere:\/mnt"/, /does not exist/],
    },
    'the target of a mount leads outside': {
      args: [...inRoot, '-v', `${at('volume')}:/outside/x`, 'true'],
      says: [/\/outside\/x/, /--volume/, /outside|doesn't exist inside/],
    },
    'the target of a mount is relative': {
      args: [...inRoot, '-v', `${at('volume')}:mnt`, 'true'],
      says: [/--volume ".*:mnt"/, /absolute/],
    },
    'the target of a mount is the root': {
      args: [...inRoot, '-v', `${at('volume')}:/`, 'true'],
      says: [/--volume/, /root/],
    },
    'an unknown option of a mount': {
      args: [...inRoot, '-v', `${at('volume')}:/mnt:wat`, 'true'],
      says: [/--volume/, /"wat"/],
    },
    'an unknown type of mount': {
      args: [...inRoot, '--mount', 'type=nfs,source=/x,target=/mnt', 'true'],
      says: [/--mount/, /"nfs"/, /bind, tmpfs, overlay/],
    },
    'a directory is to be mounted onto a file': {
      args: [...inRoot, '-v', `${at('volume')}:/bin/busybox`, 'true'],
      says: [/mount onto \/bin\/busybox: the source is a directory, and the target is none/, /hint: /],
    },
    'a file is to be mounted onto a directory': {
      args: [...inRoot, '-v', `${at('file')}:/etc`, 'true'],
      says: [/mount onto \/etc: the target is a directory, and the source is none/, /hint: /],
    },
    'a mount target climbs out': {
      args: [...inRoot, '-v', `${at('volume')}:/mnt/../../etc`, 'true'],
      says: [/\/mnt\/\.\.\/\.\.\/etc: it leads out of the root file system by \.\./, /hint: write the target without/],
    },
    'a volume with a name': {
      args: [...inRoot, '-v', 'data:/mnt', 'true'],
      says: [/--volume "data:\/mnt"/, /named volumes/],
    },
    'an unknown capability': {
      args: [...inRoot, '--cap-add', 'NET_RAWW', 'true'],
      says: [/--cap-add "NET_RAWW"/, /did you mean NET_RAW/],
    },
    'an unknown resource': { args: [...inRoot, '--ulimit', 'files=1', 'true'], says: [/--ulimit "files=1"/, /nofile/] },
    'a limit upside down': {
      args: [...inRoot, '--ulimit', 'nofile=9:8', 'true'],
      says: [/--ulimit "nofile=9:8"/, /above the hard/],
    },
    'a kernel parameter of the host': {
      args: [...inRoot, '--sysctl', 'kernel.core_pattern=x', 'true'],
      says: [/--sysctl "kernel.core_pattern=x"/, /whole host/],
    },
    'an unknown kernel parameter': {
      args: [...inRoot, '--sysctl', 'net.no.such=1', 'true'],
      says: [/net[./]no[./]such/, /ENOENT|no such/],
    },
    'a host name that is too long': {
      args: [...inRoot, '-h', 'x'.repeat(65), 'true'],
      says: [/--hostname "x+"/, /6[34]/],
    },
    'a host name with a space': { args: [...inRoot, '-h', 'a b', 'true'], says: [/--hostname "a b"/] },
    'an address without a bridge': { args: [...inRoot, '--ip', '10.0.0.2', 'true'], says: [/--ip/, /--network none/] },
    'an address in a joined network': {
      args: [...inRoot, '--network', '/proc/self/ns/net', '--ip', '10.0.0.2', 'true'],
      says: [/combine --ip with --network \/proc\/self\/ns\/net/],
    },
    'the namespace of a dead process': {
      args: [...inRoot, '--ipc', 'ns:4194300', 'true'],
      says: [/invalid --ipc "\/proc\/4194300\/ns\/ipc"/, /no such process/],
    },
    'a namespace of another kind': {
      args: [...inRoot, '--ipc', '/proc/self/ns/uts', 'true'],
      says: [/\/proc\/self\/ns\/uts/, /another kind/],
    },
    'a file that is no namespace': {
      args: [...inRoot, '--ipc', '/etc/passwd', 'true'],
      says: [/\/etc\/passwd/, /not a namespace/],
    },
    'a network that does not exist': {
      args: [...inRoot, '--network', 'wat', 'true'],
      says: [/--network "wat"/, /none, host, bridge, pasta/],
    },
    'a named network namespace that does not exist': {
      args: [...inRoot, '--network', 'ns:nowhere', 'true'],
      says: [/invalid --network "\/run\/netns\/nowhere"/, /no such namespace/, /ip netns list/],
    },
    'a variable without a name': { args: [...inRoot, '-e', '=x', 'true'], says: [/--env/, /name/] },
    'an argument of 1 MB': { args: [...inRoot, '--explain', 'true'], says: [], code: 0 },
    'a working directory that is missing': {
      args: [...inRoot, '-w', '/no/where', 'true'],
      says: [/working directory \/no\/where/, /ENOENT/],
    },
    'a relative working directory': { args: [...inRoot, '-w', 'here', 'true'], says: [/--workdir "here"/, /absolute/] },
    'an umask': { args: [...inRoot, '--umask', '999', 'true'], says: [/--umask "999"/, /octal/] },
    'an out-of-memory score': {
      args: [...inRoot, '--oom-score-adj', '2000', 'true'],
      says: [/--oom-score-adj/, /1000/],
    },
    'a size': { args: [...inRoot, '--shm-size', 'much', 'true'], says: [/--shm-size "much"/, /64m/] },
    'a descriptor that is not open': {
      args: [...inRoot, '--preserve-fd', '77', 'true'],
      says: [/--preserve-fd/, /77/],
    },
    'an unknown option': { args: [...inRoot, '--hostnam', 'x', 'true'], says: [/--hostnam/, /--hostname/] },
    'no command': { args: inRoot, says: [/command/] },
  }
}

unless(noBusybox(), asEach, 'every mistake is named, with its reason, and leaves nothing behind', async (t, place) => {
  const rootfs = busyboxRoot(place)
  for (const name of ['empty', 'volume']) place.make(name)
  writeFileSync(join(place.dir, 'file'), '')
  writeFileSync(join(rootfs, 'plain'), '#!/bin/sh\n')
  writeFileSync(join(rootfs, 'garbage'), '\x7fwat\n')
  writeFileSync(join(rootfs, 'script'), '#!/no/interpreter\n')
  chmodSync(join(rootfs, 'garbage'), 0o755)
  chmodSync(join(rootfs, 'script'), 0o755)
  symlinkSync('/nowhere/on/the/host', join(rootfs, 'outside'))
  symlinkSync('/proc/sys', join(rootfs, 'window'))
  // What a container makes in its root, an error may have found made.
  await place.output(['--rootfs', rootfs, 'true'])
  const before = remains(place)
  for (const [name, { args, says, code = 125, options }] of Object.entries(mistakes(place, rootfs))) {
    const outcome = await place.run(args, options)
    t.is(outcome.code, code, `${name}: ${outcome.stderr}`)
    for (const pattern of says) t.regex(outcome.stderr, pattern, name)
    if (code !== 0) t.is(outcome.stdout, '', name)
    t.notRegex(outcome.stderr, /panicked|at .*:\d+:\d+|undefined/, name)
  }
  t.deepEqual(remains(place), before)
})

unless(noBusybox(), asEach, 'mistakes are reported together', async (t, place) => {
  const { code, stderr } = await place.run([
    '--rootfs',
    '/no/where',
    '--cap-add',
    'WAT',
    '--hostname',
    'a b',
    '-v',
    '/no/source:/mnt',
    '--ulimit',
    'wat=1',
    '-u',
    '-1',
    '-w',
    'here',
    'true',
  ])
  t.is(code, 125)
  for (const part of ['/no/where', 'WAT', 'a b', '/no/source', 'wat=1', '"-1"', '"here"'])
    t.true(stderr.includes(part), `${part} is missing in ${stderr}`)
})

asEach('arguments of 1 MB are named as such', async (t, place) => {
  const [one, many, nul, name] = await place.batch([
    { command: 'echo', args: ['x'.repeat(1 << 20)] },
    { command: 'echo', args: Array.from({ length: 80 }, () => 'x'.repeat(100_000)) },
    { command: 'echo', args: ['a\0b'] },
    { command: 'echo', options: { env: { 'A=B': 'x' } } },
  ])
  t.regex(one?.message ?? '', /E2BIG/)
  t.regex(many?.message ?? '', /E2BIG/)
  t.regex(nul?.message ?? '', /NUL/)
  t.regex(name?.message ?? '', /env.*A=B|A=B.*env/s)
})

asUser('no rights for a bridge', async (t, place) => {
  const { code, stderr } = await place.run(['--network', 'bridge', 'true'])
  t.is(code, 125)
  t.regex(stderr, /--network bridge.*root[\s\S]*hint: .*pasta/)
})

asUser('a helper executable that is missing or another program is named', async (t, place) => {
  const native = place.make('native')
  const source = readdirSync(join(project, 'npm'))
    .map((name) => join(project, 'npm', name))
    .find((path) => readdirSync(path).includes('nsrs.node'))
  if (!source) return t.fail('the addon is not built')
  copyFileSync(join(source, 'nsrs.node'), join(native, 'nsrs.node'))
  const env = { NSRS_NATIVE_DIR: native }
  const ways = async (name: string, says: RegExp) => {
    const all = name === 'nsrs-image' ? [['images']] : [['run', '--', 'true'], ['apply', 'x'], ['doctor']]
    for (const args of all) {
      const { code, stdout, stderr } = await place.nsrs(args, { env })
      t.is(code, 125, `${args[0]}: ${stdout} ${stderr}`)
      t.regex(stderr, says)
      t.regex(stderr, /hint: reinstall nsrs/)
    }
    if (name === 'nsrs-image') return
    const [done] = await place.batch([{ command: 'true' }], { env })
    t.is(done?.code, 'ERR_NSRS_SUPERVISOR_LOST')
    t.regex(done?.message ?? '', says)
    t.regex(done?.hint ?? '', /^reinstall nsrs/)
  }
  for (const name of ['nsrs-runtime', 'nsrs-image']) {
    const path = join(native, name)
    await ways(name, new RegExp(`${path}.*ENOENT`))
    const foreign = new RegExp(`start [^\n]*${path}: it is not an executable of nsrs \\d`)
    writeFileSync(path, '#!/bin/sh\nexit 1\n', { mode: 0o755 })
    await ways(name, foreign)
    writeFileSync(path, 'no program', { mode: 0o755 })
    await ways(name, foreign)
    copyFileSync('/bin/true', path)
    await ways(name, foreign)
    const old = readFileSync(join(source, name))
    old[old.indexOf('nsrs\0\0\0\0') + 8] = 0x39
    writeFileSync(path, old)
    await ways(name, new RegExp(`start [^\n]*${path}: it is of version 9[^\n]*, this`))
  }
})

asUser('a directory that is closed to the caller is named, with the remedy', async (t, place) => {
  // It takes root to close one to its owner's container.
  if (!isRoot) return t.pass()
  for (const path of ['closed/root', 'open/closed']) place.make(path)
  for (const path of ['closed', 'closed/root', 'open', 'open/closed']) chownSync(join(place.dir, path), 0, 0)
  for (const path of ['closed', 'open/closed']) chmodSync(join(place.dir, path), 0o700)
  symlinkSync('closed', join(place.dir, 'link'))
  writeFileSync(join(place.dir, 'closed/file'), '')
  const at = (path: string) => join(place.dir, path)
  const cases: [string[], string, string][] = [
    [['--rootfs', at('closed/root')], `--rootfs "${at('closed/root')}"`, 'closed'],
    [['--rootfs', at('closed/root'), '--diff'], `--rootfs "${at('closed/root')}"`, 'closed'],
    [['--rootfs', at('link/root')], `--rootfs "${at('link/root')}"`, 'closed'],
    [['--rootfs', at('open/closed')], `--rootfs "${at('open/closed')}"`, 'open/closed'],
    [['--rootfs', at('open/closed'), '--read-only'], `--rootfs "${at('open/closed')}"`, 'open/closed'],
    [['--rootfs', at('open/closed'), '--diff'], `--rootfs "${at('open/closed')}"`, 'open/closed'],
    [['-v', `${at('closed/file')}:/mnt/file`], `--volume "${at('closed/file')}:/mnt/file"`, 'closed'],
    [['--mount', `type=overlay,src=${at('link/root')},dst=/mnt`], '--mount "type=overlay', 'closed'],
  ]
  for (const [options, option, closed] of cases) {
    const { code, stderr } = await place.run([...options, 'true'])
    t.is(code, 125, stderr)
    t.true(stderr.includes(option), stderr)
    t.true(stderr.includes(`no permission to enter ${at(closed)}: permission denied (EACCES)\n`), stderr)
    t.true(stderr.includes(`hint: let this user enter it (chmod o+x ${at(closed)}), or `), stderr)
  }
})

asUser('user namespaces switched off are named, with the remedy', async (t, place) => {
  // The switch is one of each user namespace: in one of its own nothing of the host is changed.
  const script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
  const run = [process.execPath, cli, 'run', '--network', 'none', '--userns', 'private', '--', 'true']
  const { code, stderr } = await place.exec('unshare', ['--user', '--map-root-user', 'sh', '-c', script, 'sh', ...run])
  t.is(code, 125, stderr)
  t.regex(stderr, /user namespaces/)
  t.regex(stderr, /hint: .*max_user_namespaces/)
})

asRoot('a container that could not start leaves no bridge', async (t, place) => {
  const { code, stdout, stderr } = await exec(
    'unshare',
    [
      '--net',
      'sh',
      '-c',
      // The bridge is removed behind the caller's back.
      `"$@"; code=$?
      for i in $(seq 200); do [ "$(ip -o link | wc -l)" = 1 ] && break; sleep 0.1; done
      ip -o link | cut -d: -f2; nft list ruleset; exit $code`,
      'sh',
      process.execPath,
      cli,
      'run',
      '--network',
      'bridge',
      '-p',
      '8080:80',
      '--',
      'no-such-command',
    ],
    place.options(),
  )
  t.is(code, 127, stderr)
  t.is(stdout.trim(), 'lo')
})

/** A shell command that runs its arguments in a directory that is gone. */
const GONE = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'

unless(
  noBusybox(),
  asEach,
  'a current directory that was removed is missed only where it is needed',
  async (t, place) => {
    const rootfs = busyboxRoot(place)
    const there = (args: string[]) =>
      place.exec('sh', ['-c', GONE, 'sh', process.execPath, cli, 'run', '--network', 'none', ...args])
    t.like(await there(['--rootfs', rootfs, '--', 'pwd']), { code: 0, stdout: '/\n', stderr: '' })
    t.like(await there(['-w', '/etc', '--', 'pwd']), { code: 0, stdout: '/etc\n', stderr: '' })
    const host = await there(['--', 'pwd'])
    t.is(host.code, 125)
    t.regex(host.stderr, /^nsrs: enter the working directory: the current directory was removed\nhint: .*--workdir\n$/)
    const relative = await there(['--rootfs', 'root', '-v', './a:/a', '--', 'pwd'])
    t.is(relative.code, 125)
    t.regex(relative.stderr, /--rootfs "root": it is relative to the current directory, which was removed/)
    t.regex(relative.stderr, /--volume ".\/a:\/a": .*removed/)
    t.is(relative.stderr.match(/nsrs:/g)?.length, 2, relative.stderr)

    const driver = join(project, 'test/helpers/batch.mjs')
    const jobs = [{ rootfs: { dir: rootfs } }, {}].map((options) => ({
      command: 'pwd',
      options: { network: 'none', ...options },
    }))
    const input = JSON.stringify({ together: 1, jobs })
    const { stdout, stderr } = await place.exec('sh', ['-c', GONE, 'sh', process.execPath, driver], { input })
    const [own, hosts] = JSON.parse(stdout || `[{"stdout":${JSON.stringify(stderr)}}]`)
    t.is(own.stdout, '/')
    t.is(hosts.code, 'ERR_NSRS_INVALID_ARGUMENT')
    t.regex(hosts.message, /the current directory was removed/)
  },
)

asEach('a current directory that the container has another of is told so', async (t, place) => {
  const { code, stderr } = await place.run(['true'], { cwd: `/proc/${process.pid}` })
  t.is(code, 125)
  t.regex(stderr, /the container has a \/proc, \/sys and \/dev of its own/)
  t.regex(stderr, /hint: .*--workdir/)
})

/** Gives a file capabilities that it can't be executed without, as `setcap cap_…+ep` does. */
const SETCAP = `
import os, struct, sys
os.setxattr(sys.argv[1], 'security.capability', struct.pack('<5I', 0x02000001, 1 << int(sys.argv[2]), 0, 0, 0))`

unless(
  noBusybox(),
  asRoot,
  'a file that demands a capability is told with the option that gives it',
  async (t, place) => {
    const rootfs = busyboxRoot(place)
    const program = join(rootfs, 'bin/busybox-clock')
    copyFileSync(join(rootfs, 'bin/busybox'), program)
    const SYS_TIME = '25'
    await place.exec('python3', ['-c', SETCAP, program, SYS_TIME])
    const { code, stderr } = await place.run(['--rootfs', rootfs, '/bin/busybox-clock', 'true'])
    t.is(code, 126)
    t.regex(stderr, /capabilities that the container lacks \(SYS_TIME\).*EPERM/)
    t.regex(stderr, /^hint: --cap-add SYS_TIME$/m)
    t.is((await place.run(['--rootfs', rootfs, '--cap-add', 'SYS_TIME', '/bin/busybox-clock', 'true'])).code, 0)
  },
)
