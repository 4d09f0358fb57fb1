// As whom a command runs, read from the kernel (CVE-2016-3697, CVE-2018-10856, CVE-2022-29162, CVE-2023-25173,
// CVE-2024-40635, CVE-2026-46680, CVE-2026-47262).

import { execFileSync } from 'node:child_process'
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { asEach, asRoot, asUser, cli, type Done, type Place, unless, user } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

/** What /proc/self/status says. */
function status({ stdout }: Pick<Done, 'stdout'>): Record<string, string> {
  return Object.fromEntries(
    stdout
      .split('\n')
      .map((line) => line.split(/:\s*/))
      .map(([name, value]) => [name, value?.trim()]),
  )
}

const NONE = '0000000000000000'
/** Podman's eleven: CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP. */
const DEFAULT = '00000000800405fb'

async function as(place: Place, rootfs: string, users: string[], options: object = {}): Promise<Done[]> {
  return place.batch(
    users.map((user) => ({
      command: 'cat',
      args: ['/proc/self/status'],
      options: { rootfs: { dir: rootfs }, user, timeout: 60_000, ...options },
    })),
  )
}

function passwd(rootfs: string, passwdText: string, groupText: string): void {
  writeFileSync(join(rootfs, 'etc/passwd'), passwdText)
  writeFileSync(join(rootfs, 'etc/group'), groupText)
}

unless(noBusybox(), asEach, 'ids, groups and capabilities are exactly those of the user', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const expected = [
    ['root', '0', '0', '0 44', DEFAULT],
    ['0', '0', '0', '0 44', DEFAULT],
    ['0:0', '0', '0', '0', DEFAULT],
    ['alice', '1000', '1000', '29 44 1000', NONE],
    ['1000', '1000', '1000', '29 44 1000', NONE],
    ['alice:audio', '1000', '29', '29', NONE],
    ['1000:0', '1000', '0', '0', NONE],
    ['4242', '4242', '0', '0', NONE],
    ['4242:4243', '4242', '4243', '4243', NONE],
  ] as const
  const done = await as(
    place,
    rootfs,
    expected.map(([user]) => user),
  )
  for (const [index, [user, uid, gid, groups, caps]] of expected.entries()) {
    const found = status(done[index] as Done)
    t.is(done[index]?.message, undefined)
    t.is(found.Uid?.replaceAll(/\s+/g, ' '), Array(4).fill(uid).join(' '), user)
    t.is(found.Gid?.replaceAll(/\s+/g, ' '), Array(4).fill(gid).join(' '), user)
    t.is(found.Groups, groups, user)
    t.deepEqual(
      [found.CapInh, found.CapPrm, found.CapEff, found.CapBnd, found.CapAmb],
      [NONE, caps, caps, DEFAULT, NONE],
      user,
    )
    t.is(found.NoNewPrivs, '1', user)
  }
})

unless(noBusybox(), asEach, 'capabilities are those asked for, in all five sets', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const bit = (...numbers: number[]) =>
    numbers
      .reduce((set, number) => set | (1n << BigInt(number)), 0n)
      .toString(16)
      .padStart(16, '0')
  const read = async (options: object) => {
    const [done] = await as(place, rootfs, ['0'], options)
    return status(done as Done)
  }
  const none = await read({ capDrop: ['ALL'] })
  t.deepEqual([none.CapInh, none.CapPrm, none.CapEff, none.CapBnd, none.CapAmb], Array(5).fill(NONE))
  const raw = await read({ capDrop: ['all'], capAdd: ['cap_net_raw'] })
  t.deepEqual([raw.CapInh, raw.CapPrm, raw.CapEff, raw.CapBnd, raw.CapAmb], [NONE, bit(13), bit(13), bit(13), NONE])
  const user = await read({ capAdd: ['NET_RAW'], user: '1000' })
  t.deepEqual(
    [user.CapInh, user.CapPrm, user.CapEff, user.CapAmb],
    Array(4).fill(bit(13)),
    'a user who is not root keeps what was added, and that alone',
  )
})

unless(noBusybox(), asEach, 'no way to write a user becomes root', async (t, place) => {
  const rootfs = busyboxRoot(place)
  passwd(
    rootfs,
    [
      'root:x:0:0::/root:/bin/sh',
      '1000abc:x:0x3e8:0::/:/bin/sh',
      'huge:x:4294967296:0::/:/bin/sh',
      'minus:x:-1:0::/:/bin/sh',
      'last:x:4294967295:4294967295::/:/bin/sh',
      'empty:x:::::/bin/sh',
      'spaced:x: 0:0::/:/bin/sh',
      'plus:x:+0:0::/:/bin/sh',
      'short:x:0',
    ].join('\n'),
    'root:x:0:\nwide:x:18446744073709551616:\nminus:x:-1:\nnegative:x:4294967295:\n',
  )
  const users = [
    '1000abc',
    '4294967296',
    '4294967295',
    '-1',
    '0x0',
    '+0',
    ' 0',
    '0 ',
    '18446744073709551616',
    '99999999999999999999999',
    '',
    'huge',
    'minus',
    'last',
    'empty',
    'spaced',
    'plus',
    'short',
    '0:wide',
    '0:minus',
    '0:negative',
    '0:4294967296',
    '0:-1',
    '0:',
    ':0',
    'root\n',
    'nobody-here',
    'root:root:root',
  ]
  for (const [index, done] of (await as(place, rootfs, users)).entries()) {
    t.is(done.exitCode, undefined, `${JSON.stringify(users[index])} became ${status(done).Uid}`)
    t.regex(done.message ?? '', /invalid user|find the (user|group)/, users[index])
    t.regex(done.code ?? done.message ?? '', /INVALID_ARGUMENT|TypeError/, users[index])
  }
})

unless(noBusybox(), asEach, 'a number that the image claims to be somebody else stays the number', async (t, place) => {
  const rootfs = busyboxRoot(place)
  passwd(rootfs, '1000:x:0:0::/root:/bin/sh\n+1000:x:0:0::/:/bin/sh\n', '1000:x:0:\n')
  const [user, group] = await as(place, rootfs, ['1000', '7:1000'])
  t.regex(status(user as Done).Uid ?? '', /^1000\s/)
  t.regex(status(group as Done).Gid ?? '', /^1000\s/)
})

unless(noBusybox(), asRoot, 'user and group files of 100 MB cost neither memory nor much time', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const group = openSync(join(rootfs, 'etc/group'), 'w')
  writeSync(group, 'root:x:0:\n')
  // One line without an end, then very many lines that name the user.
  const block = Buffer.alloc(1 << 20, 'x')
  for (let count = 0; count < 50; count++) writeSync(group, block)
  writeSync(group, '\n')
  const lines = Buffer.from('g:x:5:alice,bob\n'.repeat(1 << 16))
  for (let count = 0; count < 50; count++) writeSync(group, lines)
  closeSync(group)
  const since = Date.now()
  const { stdout, stderr } = await place.exec('/usr/bin/env', [
    'bash',
    '-c',
    `ulimit -v 2000000; exec "$0" "$@"`,
    process.execPath,
    join(import.meta.dirname, '../../dist/cli.cjs'),
    'run',
    '--network',
    'none',
    '--rootfs',
    rootfs,
    '-u',
    'alice',
    'cat',
    '/proc/self/status',
  ])
  t.regex(stdout, /^Groups:\t5 1000 $/m, stderr)
  t.true(Date.now() - since < 15_000)
})

unless(
  noBusybox(),
  asEach,
  "what stands at /etc/passwd may be anything: it is an error, or nobody's",
  async (t, place) => {
    const { mkdirSync, rmSync, symlinkSync } = await import('node:fs')
    const { spawnSync } = await import('node:child_process')
    const kinds: Record<string, (path: string) => void> = {
      directory: (path) => mkdirSync(path),
      fifo: (path) => spawnSync('mkfifo', [path]),
      'link to /dev/zero': (path) => symlinkSync('/dev/zero', path),
      'link to a FIFO of /proc': (path) => symlinkSync('/proc/self/fd/1', path),
      'link to itself': (path) => symlinkSync('passwd', path),
    }
    for (const [kind, make] of Object.entries(kinds)) {
      const rootfs = busyboxRoot(place, kind.replaceAll(/\W/g, '-'))
      rmSync(join(rootfs, 'etc/passwd'))
      make(join(rootfs, 'etc/passwd'))
      const [done] = await as(place, rootfs, ['alice'])
      t.is(done?.exitCode, undefined, kind)
      t.regex(done?.message ?? '', /\/etc\/passwd/, kind)
    }
  },
)

asUser("on the host's tree the command is the user, in no group more and with no right", async (t, place) => {
  const found = status({ stdout: await place.output(['cat', '/proc/self/status']) })
  t.regex(found.Uid ?? '', new RegExp(`^${place.as.uid}\\s`))
  t.deepEqual([found.CapInh, found.CapPrm, found.CapEff, found.CapAmb, found.NoNewPrivs], [NONE, NONE, NONE, NONE, '1'])
  const bare = status({ stdout: (await place.exec('cat', ['/proc/self/status'])).stdout })
  t.is(found.Groups, bare.Groups)
})

asRoot("on the host's tree another user has a home and a name of their own", async (t, place) => {
  const { name, home } = user
  const env = { HOME: '/root', USER: 'root', LOGNAME: 'root', SHELL: '/bin/bash' }
  const told = (...args: string[]) =>
    place.output([...args, '-w', '/', '--', 'sh', '-c', 'echo "$HOME $USER $LOGNAME $SHELL"'], { env })
  t.is(await told(), '/root root root /bin/bash')
  t.is(await told('-u', name), `${home} ${name} ${name} /bin/bash`)
  t.is(await told('-u', String(user.uid)), `${home} ${name} ${name} /bin/bash`)
  t.is(await told('-u', name, '-e', 'HOME=/else', '-e', 'USER'), `/else root ${name} /bin/bash`)
  t.is(await told('-u', '4242'), '/   /bin/bash')
})

/** Who owns the caller's standard output before, and after the library has run commands as another user. */
const OWNERS = `
  import { closeSync, constants, fstatSync, openSync } from 'node:fs'
  import { Container, run } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)}
  const [dir, fifo] = process.argv.slice(1)
  const options = { rootfs: { dir }, network: 'none' }
  const named = openSync(fifo, constants.O_RDWR)
  const owners = () => [1, named].map((fd) => fstatSync(fd).uid)
  const before = owners()
  const box = await Container.create(options)
  for (const stdout of ['inherit', named]) {
    await run('true', { ...options, user: '1000', stdout })
    await box.exec('true', { user: '1000', stdout })
  }
  process.stderr.write(JSON.stringify([before, owners()]))
  await box.stop({ timeout: 0 })`

unless(noBusybox(), asRoot, "a pipe of the caller's stays whose it is", async (t, place) => {
  const fifo = join(place.dir, 'fifo')
  execFileSync('mkfifo', [fifo])
  const node = [process.execPath, '--input-type=module', '-e', OWNERS, busyboxRoot(place), fifo]
  const { stderr } = await place.exec('sh', ['-c', '"$@" | cat', 'sh', ...node])
  t.deepEqual(JSON.parse(stderr), [
    [0, 0],
    [0, 0],
  ])
  const run = `"$node" "$cli" run --network none --init -w / -u 1000 -- true; stat -L -c %u /proc/self/fd/1 >&2`
  const env = { node: process.execPath, cli }
  t.is((await place.exec('sh', ['-c', `{ ${run}; } | cat`], { env })).stderr.trim(), '0')
})

unless(noBusybox(), asRoot, 'a user can open by name what was made for the command', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const script = 'echo out > /dev/stdout; echo err > /dev/stderr'
  const [made] = await place.batch([
    { command: 'sh', args: ['-c', script], options: { rootfs: { dir: rootfs }, user: '1000' } },
  ])
  t.like(made, { stdout: 'out', stderr: 'err' })
  const run = `"$node" "$cli" run --network none --rootfs "$root" -u 1000 -- sh -c '${script}' 2>&1 | cat`
  const env = { node: process.execPath, cli, root: rootfs }
  t.is((await place.exec('sh', ['-c', run], { env })).stdout, 'out\nerr\n')
})
