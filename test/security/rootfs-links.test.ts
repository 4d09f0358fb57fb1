// A root file system whose every prepared path leads elsewhere (CVE-2019-18837, CVE-2024-45310, CVE-2025-31133,
// CVE-2025-52565, CVE-2026-41579, CVE-2026-47766, CVE-2026-55686, …).

import { spawnSync } from 'node:child_process'
import { linkSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import type { ExecutionContext } from 'ava'
import { snapshot } from '../helpers/canary.ts'
import { asEach, type Done, isRoot, type Job, type Place, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

const SECRET = 'the canary is on the host'

const directories = [
  '/dev',
  '/dev/pts',
  '/dev/shm',
  '/dev/mqueue',
  '/proc',
  '/proc/self',
  '/sys',
  '/etc',
  '/work',
  '/mnt',
  '/mnt/volume',
  '/mnt/tmpfs',
  '/mnt/deep/target',
]
const files = [
  '/dev/null',
  '/dev/console',
  '/dev/ptmx',
  '/dev/tty',
  '/etc/resolv.conf',
  '/etc/hosts',
  '/etc/hostname',
  '/etc/passwd',
  '/etc/group',
  '/mnt/file',
]

/** Ways to spoil a path: each makes something at `at`, whose path in the container is `path`. */
const attacks: Record<string, (at: string, canary: string, kind: 'dir' | 'file') => void> = {
  'a link to the host': (at, canary, kind) => symlinkSync(join(canary, kind), at),
  'a link to what the host lacks': (at, canary) => symlinkSync(join(canary, 'new'), at),
  'a relative link to the host': (at, canary, kind) => symlinkSync(relative(dirname(at), join(canary, kind)), at),
  'a link that climbs': (at, canary, kind) => symlinkSync(`${'../'.repeat(30)}${join(canary, kind)}`, at),
  'a link that climbs through /proc/self/root': (at, canary, kind) =>
    symlinkSync(`/proc/self/root/..${join(canary, kind)}`, at),
  'a link to /proc/self/fd/3': (at) => symlinkSync('/proc/self/fd/3', at),
  'a link to /proc/self/fd/8': (at) => symlinkSync('/proc/self/fd/8', at),
  'a link to /proc/self/cwd': (at) => symlinkSync('/proc/self/cwd', at),
  'a link to itself': (at) => symlinkSync(at.split('/').at(-1) ?? '', at),
  'the wrong kind of file': (at, _canary, kind) => (kind === 'dir' ? writeFileSync(at, '') : mkdirSync(at)),
}

function canaryTree(place: Place): string {
  const canary = place.make('canary')
  place.make('canary/dir')
  for (const name of ['file', 'dir/file', 'dir/passwd', 'dir/null', 'dir/console', 'dir/target']) {
    writeFileSync(join(canary, name), `${SECRET}\n`)
    place.own(join(canary, name))
  }
  return canary
}

interface Case {
  path: string
  name: string
  job: Job
}

/** A root with one path spoilt, and the container that is to be made of it. */
function prepare(place: Place, canary: string, seed: string, path: string, name: string, readOnly: boolean): Case {
  const rootfs = place.make(
    `cases/${readOnly ? 'ro' : 'rw'}-${path.replaceAll('/', '_')}-${name.replaceAll(/\W/g, '-')}`,
  )
  const mkdirs = ['bin', 'etc', 'mnt', 'mnt/deep', 'work', 'dev', 'proc', 'sys', dirname(path).slice(1)]
  for (const directory of mkdirs.filter(Boolean)) mkdirSync(join(rootfs, directory), { recursive: true })
  linkSync(join(seed, 'bin/busybox'), join(rootfs, 'bin/busybox'))
  for (const applet of ['sh', 'cat', 'ls', 'echo', 'touch', 'pwd']) symlinkSync('busybox', join(rootfs, 'bin', applet))
  writeFileSync(join(rootfs, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\n')
  writeFileSync(join(rootfs, 'etc/group'), 'root:x:0:\n')
  rmSync(join(rootfs, path), { recursive: true, force: true })
  attacks[name]?.(join(rootfs, path), canary, directories.includes(path) ? 'dir' : 'file')
  const volume = join(place.dir, 'volume')
  // What leads to the canary from inside would be read and written.
  const probe = `
    pwd
    for path in ${path} ${path}/file ${path}/dir/file ${canary}/file /proc/1/cwd/file ../file ../../canary/file; do
      if [ -f "$path" ]; then cat "$path"; echo evil > "$path"; fi
    done
    touch ${path}/evil ${canary}/evil
    cat /proc/self/mountinfo`
  const options = {
    rootfs: { dir: rootfs },
    readOnly,
    workdir: '/work',
    user: 'root',
    hostname: 'box',
    dns: ['192.0.2.1'],
    addHosts: ['other:192.0.2.2'],
    volumes: [`${volume}:/mnt/volume`, `${join(volume, 'file')}:/mnt/file`, `${volume}:/mnt/deep/target/made`],
    tmpfs: ['/mnt/tmpfs'],
    tty: { cols: 80, rows: 24 },
    timeout: 60_000,
  }
  return { path, name, job: { command: '/bin/sh', args: ['-c', `exec 2>&1; ${probe}`], options } }
}

function check(t: ExecutionContext, { path, name }: Case, done: Done): void {
  const title = `${path} as ${name}`
  t.false(done.stdout.includes(SECRET), `${title}: the canary is read: ${done.stdout}`)
  const mounts = done.stdout.split('\n').filter((line) => / - \w+ /.test(line))
  t.false(
    mounts.some((line) => line.split(' ')[3]?.includes('/canary')),
    `${title}: the canary is mounted`,
  )
  if (done.message === undefined) {
    t.true(done.stdout.startsWith('/work'), `${title}: the working directory is ${done.stdout.split('\n')[0]}`)
    return
  }
  t.regex(done.code ?? '', /^ERR_NSRS_/, `${title}: ${done.message}`)
  // The error names the spoilt path, or one that leads through it.
  t.true(done.message.includes(path), `${title}: ${done.message}`)
  t.false(done.message.includes(SECRET), title)
}

unless(noBusybox(), asEach, 'no path that set-up prepares leads out of the root file system', async (t, place) => {
  const seed = busyboxRoot(place, 'seed')
  const canary = canaryTree(place)
  place.make('volume')
  writeFileSync(join(place.dir, 'volume/file'), '')
  place.own(join(place.dir, 'volume/file'))
  place.make('cases')
  const cases = [false, true].flatMap((readOnly) =>
    [...directories, ...files].flatMap((path) =>
      Object.keys(attacks).map((name) => prepare(place, canary, seed, path, name, readOnly)),
    ),
  )
  if (isRoot) spawnSync('chown', ['-hR', `${place.as.uid}:${place.as.gid}`, join(place.dir, 'cases')])
  const before = snapshot(canary)
  // Descriptors that lead to the canary are open in the caller, from 3 on.
  const done = await place.batch(cases.map(({ job }) => job))
  for (const [index, one] of cases.entries()) check(t, one, done[index] as Done)
  t.deepEqual(snapshot(canary), before)
  const ran = done.filter(({ message }) => message === undefined).length
  t.log(`${ran} of ${cases.length} ran, the others were refused`)
  t.true(ran > cases.length / 4)
})
