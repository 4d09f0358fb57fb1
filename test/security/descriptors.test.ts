// Nothing of the caller's crosses into a container unasked (CVE-2016-9962, CVE-2024-21626).

import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Container, run } from '../../ts/index.ts'
import { busybox } from '../helpers/host.ts'
import { asEach, cli, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

/** A shell command that opens 200 descriptors on everything there is, then runs its arguments. */
const HOARD = `
  for fd in {10..60}; do eval "exec $fd</"; done
  for fd in {61..110}; do eval "exec $fd</etc/passwd"; done
  for fd in {111..160}; do eval "exec $fd<>$HOARD/file"; done
  for fd in {161..209}; do eval "exec $fd</etc"; done
  exec "$@"`

asEach('of 200 open descriptors of the caller none crosses', async (t, place) => {
  writeFileSync(join(place.dir, 'file'), '')
  place.own(join(place.dir, 'file'))
  const env = { HOARD: place.dir }
  const bare = await place.exec('bash', ['-c', HOARD, 'bash', 'sh', '-c', 'ls /proc/self/fd | wc -l'], { env })
  t.true(Number(bare.stdout) > 200, 'the caller has them')
  for (const more of [[], ['--init'], ['-t']]) {
    const run = ['run', '--network', 'none', ...more, '--', 'sh', '-c', 'ls /proc/1/fd; echo -; ls /proc/self/fd; :']
    const { stdout, stderr } = await place.exec('bash', ['-c', HOARD, 'bash', process.execPath, cli, ...run], { env })
    const [first, own] = stdout
      .trim()
      .split('-')
      .map((part) => part.trim().split(/\s+/))
    // An init has the three of its channel to the supervisor, and for a moment the pipe that told it of the exec; nobody
    // can reach them. The last one of ls is the directory it lists.
    if (more.includes('--init')) t.true((first?.length ?? 9) <= 7, `${first}`)
    else t.deepEqual(first, ['0', '1', '2'], stderr)
    t.deepEqual(own, ['0', '1', '2', '3'], `${more}`)
  }
})

asEach('a descriptor that is named crosses under its number, and no other', async (t, place) => {
  const run = [
    'run',
    '--network',
    'none',
    '--preserve-fd',
    '150,7',
    '--',
    'sh',
    '-c',
    'ls /proc/self/fd | tr "\\n" " "; readlink /proc/1/fd/150',
  ]
  const script = `exec 7</etc/hostname 150</etc/passwd 151</etc/group; exec "$@"`
  const { stdout } = await place.exec('bash', ['-c', script, 'bash', process.execPath, cli, ...run])
  t.is(stdout.trim(), '0 1 150 2 3 7 /etc/passwd')
})

unless(noBusybox(), asEach, 'no working directory leads through a descriptor', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const jobs = Array.from({ length: 40 }, (_, index) => index + 3).flatMap((fd) =>
    ['self', '1'].map((pid) => ({
      command: 'pwd',
      options: { rootfs: { dir: rootfs }, workdir: `/proc/${pid}/fd/${fd}` },
    })),
  )
  for (const [index, done] of (await place.batch(jobs)).entries()) {
    t.is(done.exitCode, undefined, `${jobs[index]?.options.workdir} led to ${done.stdout}`)
    t.regex(done.message ?? '', /enter the working directory \/proc\//)
  }
})

unless(noBusybox(), asEach, 'the working directory always lies inside', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const [up, far] = await place.batch(
    ['/../../..', '/work/../../../etc'].map((workdir) => ({
      command: 'sh',
      args: ['-c', 'pwd; ls -di . | cut -d" " -f1; ls /../../../ | head -1'],
      options: { rootfs: { dir: rootfs }, workdir },
    })),
  )
  t.regex(up?.stdout ?? '', /^\/\n\d+\nbin/)
  t.regex(far?.stdout ?? '', /^\/etc\n\d+\nbin/)
})

unless(noBusybox(), asEach, 'the host is beyond every way up', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const host = (await place.exec('stat', ['-c', '%d:%i', '/'])).stdout.trim()
  const script =
    'for path in / /.. /../.. /proc/1/root /proc/self/root /proc/1/root/.. /proc/1/cwd; do stat -Lc %d:%i $path; done; cat /proc/self/mountinfo'
  const [done] = await place.batch([{ command: 'sh', args: ['-c', script], options: { rootfs: { dir: rootfs } } }])
  const lines = done?.stdout.split('\n') ?? []
  t.is(new Set(lines.slice(0, 7)).size, 1, done?.stdout)
  t.not(lines[0], host)
  const mounts = lines.slice(7).map((line) => line.split(' '))
  t.deepEqual(mounts.filter(([, , , , at]) => at === '/').length, 1)
  const places = mounts.map(([, , , , at]) => at ?? '')
  t.true(
    places.every((at) => /^\/($|dev|proc|sys|etc\/(hosts|hostname|resolv.conf)$)/.test(at)),
    places.join(' '),
  )
})

unless(noBusybox(), asEach, 'a directory is no standard stream, for whoever asks', async (t, place) => {
  const run = [process.execPath, cli, 'run', '--network', 'none']
  const rootfs = busyboxRoot(place)
  for (const [number, name] of ['standard input', 'standard output', 'standard error'].entries()) {
    for (const root of [['--rootfs', rootfs], ['--rootfs', rootfs, '--init'], ['--']]) {
      const script = `exec ${number}</; exec "$@"`
      const reading = ['cat', `/proc/self/fd/${number}/etc/passwd`]
      const { code, stdout, stderr } = await place.exec('bash', ['-c', script, 'bash', ...run, ...root, ...reading])
      t.is(code, 125, `${name} ${root} ${stdout}`)
      // On standard error nothing can be told.
      if (number !== 2) t.regex(stderr, new RegExp(`${name}: a directory.*\nhint: `))
    }
  }
})

test('a directory is no standard stream that a program gives', async (t) => {
  const rootfs = { dir: busybox() }
  const directory = openSync('/', 'r')
  t.teardown(() => closeSync(directory))
  const expected = { code: 'ERR_NSRS_INVALID_ARGUMENT', message: /standard (input|output|error): a directory/ }
  await using box = await Container.create({ rootfs, network: 'none' })
  for (const stream of ['stdin', 'stdout', 'stderr']) {
    for (let round = 0; round < 3; round++) {
      await t.throwsAsync(run('true', { rootfs, network: 'none', [stream]: directory }), expected, stream)
    }
    await t.throwsAsync(box.exec('true', { [stream]: directory }), expected, stream)
  }
  t.is((await box.exec('echo', ['goes on'])).stdout, 'goes on')
})
