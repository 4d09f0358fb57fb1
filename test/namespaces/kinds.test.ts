// Each kind of namespace: a new one, the caller's, one to join. /proc/self/ns tells which.

import { spawn } from 'node:child_process'
import { chmodSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { asEach, asRoot, cli, exec, isRoot, type Place, root, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

const KINDS = {
  mnt: '--mountns',
  pid: '--pid',
  uts: '--uts',
  ipc: '--ipc',
  cgroup: '--cgroupns',
  time: '--timens',
  user: '--userns',
  net: '--network',
} as const
type Kind = keyof typeof KINDS
const files = Object.keys(KINDS) as Kind[]
const list = ['sh', '-c', `for kind in ${files.join(' ')}; do readlink /proc/self/ns/$kind; done`]

function read(text: string): Record<Kind, string> {
  const lines = text.trim().split('\n')
  return Object.fromEntries(files.map((kind, index) => [kind, lines[index]])) as Record<Kind, string>
}

function own(): Record<Kind, string> {
  return read(files.map((kind) => readlinkSync(`/proc/self/ns/${kind}`)).join('\n'))
}

const different = (inside: Record<Kind, string>, outside: Record<Kind, string>) =>
  files.filter((kind) => inside[kind] !== outside[kind]).sort()

asEach(
  'by default all namespaces but time are new, and that of the user for those who are not root',
  async (t, place) => {
    const expected = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'uts', ...(place.as.uid === 0 ? [] : ['user'])].sort()
    t.deepEqual(different(read(await place.output(list)), own()), expected)
    // The oracle sees it in the same way.
    const flags = [
      '--cgroup',
      '--ipc',
      '--mount',
      '--net',
      '--pid',
      '--fork',
      '--uts',
      ...(place.as.uid === 0 ? [] : ['--user']),
    ]
    t.deepEqual(different(read((await place.exec('unshare', [...flags, ...list])).stdout), own()), expected)
  },
)

for (const kind of files) {
  asEach(`a namespace of one kind is shared with the host: ${KINDS[kind]} host`, async (t, place) => {
    if (place.as.uid !== 0 && kind === 'user') {
      const { code, stderr } = await place.run(['--userns', 'host', 'true'])
      t.not(code, 0)
      return t.regex(stderr, /root|right|EPERM/, stderr)
    }
    const inside = read(await place.output([KINDS[kind], 'host', ...list]))
    t.is(inside[kind], own()[kind])
  })
}

asEach("private is what it says, for those that are the host's by default too", async (t, place) => {
  const inside = read(await place.output(['--timens', 'private', '--userns', 'private', ...list]))
  t.deepEqual(different(inside, own()), [...files].sort())
})

/** A process with namespaces of its own, to be joined; its number as the host sees it. */
async function target(t: ExecutionContext, flags: string[]): Promise<number> {
  const child = spawn('unshare', [...flags, '--fork', '--kill-child', 'sh', '-c', 'echo up; exec sleep 600'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => {
    child.kill('SIGKILL')
  })
  await new Promise((resolve) => child.stdout.once('data', resolve))
  const { stdout } = await exec('cat', [`/proc/${child.pid}/task/${child.pid}/children`])
  return Number(stdout)
}

asRoot('namespaces are joined by the number of a process and by path', async (t, place) => {
  const pid = await target(t, ['--uts', '--ipc', '--net', '--cgroup', '--pid'])
  for (const kind of ['uts', 'ipc', 'net', 'cgroup', 'pid'] as const) {
    const wanted = readlinkSync(`/proc/${pid}/ns/${kind}`)
    for (const form of [`ns:${pid}`, `/proc/${pid}/ns/${kind}`, `ns:/proc/${pid}/ns/${kind}`]) {
      t.is(read(await place.output([KINDS[kind], form, ...list]))[kind], wanted, `${kind} ${form}`)
    }
  }
})

asRoot('a namespace is joined by the file it is bound to', async (t, place) => {
  const file = join(place.dir, 'bound')
  writeFileSync(file, '')
  // Bound in a mount namespace of its own, where nsrs is started too.
  const script = `unshare --uts=${file} hostname bound && exec "$@"`
  const { stdout, stderr } = await exec(
    'unshare',
    [
      '--mount',
      'sh',
      '-c',
      script,
      'sh',
      process.execPath,
      cli,
      'run',
      '--network',
      'none',
      '--uts',
      file,
      '--',
      'hostname',
    ],
    place.options(),
  )
  t.is(stdout.trim(), 'bound', stderr)
})

asRoot('a user namespace is joined first, and gives the right to the others', async (t, place) => {
  const pid = await target(t, ['--user', '--map-root-user', '--uts', '--ipc', '--net'])
  const inside = read(
    await place.output([
      '--userns',
      `ns:${pid}`,
      '--uts',
      `ns:${pid}`,
      '--ipc',
      `ns:${pid}`,
      '--network',
      `ns:${pid}`,
      ...list,
    ]),
  )
  for (const kind of ['user', 'uts', 'ipc', 'net'] as const)
    t.is(inside[kind], readlinkSync(`/proc/${pid}/ns/${kind}`), kind)
})

asRoot('a joined namespace is left as it is', async (t, place) => {
  const pid = await target(t, ['--uts'])
  const name = await exec('nsenter', [`--uts=/proc/${pid}/ns/uts`, 'hostname'], { as: root })
  const { code, stderr } = await place.run(['--uts', `ns:${pid}`, '-h', 'other', 'true'])
  t.is(code, 125)
  t.regex(stderr, /--hostname|uts/i)
  t.is((await exec('nsenter', [`--uts=/proc/${pid}/ns/uts`, 'hostname'], { as: root })).stdout, name.stdout)
})

asEach('the clocks are set off, and no others', async (t, place) => {
  const read = (text: string) =>
    text
      .trim()
      .split('\n')
      .map((line) => Number(line.split(/\s+/)[1]))
  const offsets = read(
    await place.output(['--monotonic', '3600', '--boottime', '-30', 'cat', '/proc/self/timens_offsets']),
  )
  t.deepEqual(offsets, [3600, -30])
  const uptime = async (args: string[]) => Number(await place.output([...args, 'cut', '-d.', '-f1', '/proc/uptime']))
  const [plain, later] = [await uptime([]), await uptime(['--boottime', '100000'])]
  t.true(Math.abs(later - plain - 100_000) < 5, `${plain} ${later}`)
  t.regex((await place.run(['--monotonic', '-999999999', 'true'])).stderr, /clock/)
})

async function hostname(place: Place): Promise<string> {
  return (await place.exec('hostname')).stdout.trim()
}

asEach("host and domain name are the container's own", async (t, place) => {
  const before = await hostname(place)
  t.is(
    await place.output([
      '-h',
      'box',
      '--domainname',
      'example.test',
      'sh',
      '-c',
      'hostname; cat /proc/sys/kernel/domainname',
    ]),
    'box\nexample.test',
  )
  t.is(await hostname(place), before)
})

/** A container of nsrs's own, to be joined; the number of its first process as the host sees it. */
async function container(t: ExecutionContext, place: Place, options: string[]): Promise<number> {
  const { uid, gid } = place.as
  const user = isRoot && uid !== 0 ? ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--init-groups'] : ['env']
  const command = [process.execPath, cli, 'run', '--network', 'none', ...options, 'sh', '-c', 'echo up; exec sleep 600']
  const child = spawn(user[0] as string, [...user.slice(1), ...command], {
    cwd: '/',
    env: { PATH: process.env.PATH, HOME: place.as.home, NSRS_STATE_DIR: place.state },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => {
    child.kill('SIGKILL')
  })
  await new Promise((resolve) => child.stdout.once('data', resolve))
  const { stdout } = await exec('sh', ['-c', `until pgrep -x sleep -P ${child.pid}; do sleep 0.05; done`])
  return Number(stdout)
}

unless(
  noBusybox(),
  asEach,
  'of joined user and PID namespaces the processes are seen, and no others',
  async (t, place) => {
    const rootfs = busyboxRoot(place)
    const pid = await container(t, place, ['--userns', 'private', '--rootfs', rootfs])
    const join = ['--userns', `ns:${pid}`, '--pid', `ns:${pid}`]
    const script = 'cat /proc/1/cmdline | tr "\\\\0" " "; echo; ls -d /proc/[0-9]* | wc -l; id -u'
    for (const root of [['--rootfs', rootfs], []]) {
      const [first, count, user] = (await place.output([...join, ...root, 'sh', '-c', script])).split('\n')
      t.is(first?.trim(), 'sleep 600')
      t.true(Number(count) < 10, count)
      t.is(user, '0')
    }
  },
)

unless(noBusybox(), asRoot, 'a user namespace with ids of its own is joined as its root', async (t, place) => {
  const rootfs = busyboxRoot(place)
  chmodSync(place.dir, 0o755)
  const pid = await container(t, place, ['--uidmap', '0:100000:1000', '--gidmap', '0:100000:1000', '--rootfs', rootfs])
  for (const root of [['--rootfs', rootfs], []]) {
    const script = 'id -u; id -g; : > /dev/null && touch /tmp/file && echo made'
    t.is(
      await place.output(['--userns', `ns:${pid}`, '--tmpfs', '/tmp', '-w', '/', ...root, 'sh', '-c', script]),
      '0\n0\nmade',
    )
  }
})

asRoot('a mount namespace is joined from its root on, with a network of its own', async (t, place) => {
  const pid = await target(t, ['--mount'])
  const command = ['sh', '-c', 'pwd; grep -c eth0 /proc/net/dev']
  const run = [process.execPath, cli, 'run', '--mountns', `ns:${pid}`, '--network', 'bridge', '--', ...command]
  const { stdout, stderr } = await place.exec('unshare', ['--net', ...run])
  t.is(stdout, '/\n1\n', stderr)
})
