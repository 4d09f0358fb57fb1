// A directory as the root: BusyBox, a Debian of our own; read-write and read-only.

import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { snapshot } from '../helpers/canary.ts'
import { asEach, asUser, has, isRoot, type Place, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'
import { giveUp } from '../helpers/skips.ts'

unless(noBusybox(), asEach, 'what is written to a root stays there', async (t, place) => {
  const rootfs = busyboxRoot(place)
  await place.output(['--rootfs', rootfs, 'sh', '-c', 'echo kept > /work/file; mkdir /work/dir'])
  t.is(readFileSync(join(rootfs, 'work/file'), 'utf8'), 'kept\n')
  t.is(await place.output(['--rootfs', rootfs, 'cat', '/work/file']), 'kept')
})

unless(noBusybox(), asUser, "images that are another user's keep nobody from running", async (t, place) => {
  const closed = place.make('theirs')
  chmodSync(closed, 0)
  const env = { NSRS_IMAGE_DIR: join(closed, 'images') }
  const { code, stderr } = await place.nsrs(['run', '--rootfs', busyboxRoot(place), 'true'], { env })
  t.deepEqual([code, stderr], [0, ''])
})

unless(noBusybox(), asEach, 'a read-only root takes nothing, and is left byte for byte', async (t, place) => {
  const rootfs = busyboxRoot(place)
  await place.output(['--rootfs', rootfs, '--read-only', 'true'])
  const before = snapshot(rootfs)
  const script =
    'for path in / /etc /work /tmp /bin; do touch $path/x 2>/dev/null && echo "wrote $path"; done; rm /etc/passwd 2>/dev/null && echo removed; mount -o remount,rw / 2>/dev/null && echo remounted; touch /dev/shm/x /dev/x && echo shm'
  t.is(await place.output(['--rootfs', rootfs, '--read-only', 'sh', '-c', script]), 'shm')
  t.is(
    await place.output([
      '--rootfs',
      rootfs,
      '--read-only',
      '--tmpfs',
      '/tmp',
      'sh',
      '-c',
      'echo x > /tmp/x && cat /tmp/x',
    ]),
    'x',
  )
  t.deepEqual(snapshot(rootfs), before)
})

unless(noBusybox(), asEach, 'a root without any directory gets those that are needed', async (t, place) => {
  const rootfs = busyboxRoot(place, 'bare', { bare: true })
  t.is(await place.output(['--rootfs', rootfs, 'sh', '-c', 'echo /*']), '/bin /dev /etc /proc /sys')
})

unless(noBusybox(), asEach, "a relative root is the caller's, and nothing of the host is in it", async (t, place) => {
  busyboxRoot(place)
  t.is(await place.output(['--rootfs', './root', 'ls', '/']), 'bin\ndev\netc\nproc\nroot\nrun\nsys\ntmp\nwork')
})

/** A Debian root, kept between runs; `undefined` where it can't be made. */
function debian(place: Place): string | undefined {
  const cache = join(process.env.XDG_CACHE_HOME ?? (isRoot ? '/var/cache' : join(homedir(), '.cache')), 'nsrs-test')
  mkdirSync(cache, { recursive: true })
  const tar = join(cache, 'debian.tar')
  if (!existsSync(tar)) {
    const mode = isRoot ? 'root' : 'unshare'
    const suite = /VERSION_CODENAME=(\w+)/.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'stable'
    const args = [`--mode=${mode}`, '--variant=essential', '--format=tar', suite, `${tar}.new`]
    const { status, stderr } = spawnSync('mmdebstrap', args, { encoding: 'utf8', timeout: 500_000 })
    if (status !== 0) {
      console.log(`mmdebstrap: ${stderr.split('\n').slice(-3).join(' ')}`)
      return undefined
    }
    spawnSync('mv', [`${tar}.new`, tar])
  }
  const rootfs = place.make('debian')
  const { status } = spawnSync('tar', [
    '-C',
    rootfs,
    '--exclude=./dev/*',
    ...(place.as.uid === 0 ? [] : ['--no-same-owner']),
    '-xf',
    tar,
  ])
  if (isRoot && place.as.uid !== 0) spawnSync('chown', ['-R', `${place.as.uid}:${place.as.gid}`, rootfs])
  return status === 0 ? rootfs : undefined
}

unless(has('mmdebstrap') ? undefined : 'mmdebstrap is missing', asEach, 'Debian runs as a root', async (t, place) => {
  t.timeout(600_000)
  const rootfs = debian(place)
  if (!rootfs) return giveUp(t, 'mmdebstrap could not make a root (no mirror?)')
  const script =
    'cat /etc/debian_version; dpkg -l | wc -l; id -un; perl -e "print 6 * 7, qq(\\n)"; su -s /bin/sh nobody -c id; ls -l /dev/null'
  const lines = (await place.output(['--rootfs', rootfs, 'bash', '-c', script])).split('\n')
  t.regex(lines[0] ?? '', /\d/)
  t.true(Number(lines[1]) > 30)
  t.deepEqual(lines.slice(2, 4), ['root', '42'])
  t.regex(lines[4] ?? '', /uid=65534\(nobody\)/)
})

unless(noBusybox(), asEach, 'a directory in the place of a file in /etc is named', async (t, place) => {
  const rootfs = busyboxRoot(place)
  mkdirSync(join(rootfs, 'etc/hosts'))
  const { code, stderr } = await place.run(['--rootfs', rootfs, 'true'])
  t.is(code, 125)
  t.regex(stderr, /mount onto \/etc\/hosts: a directory stands there.*\nhint: remove/)
})
