// Device nodes outside /dev, wherever a root or a mount has them from: a way to the host's disks and memory (CVE-2016-9962's kin).

import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { asRoot, cli, type Place, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

/** A character device and a block device of the host, which hold bytes to be read. */
function makeNodes(directory: string): void {
  mkdirSync(directory, { recursive: true })
  execFileSync('mknod', ['-m', '666', join(directory, 'zero'), 'c', '1', '5'])
  execFileSync('mknod', ['-m', '666', join(directory, 'disk'), 'b', '7', '0'])
}

/** Tells which nodes in a directory of the container can be opened. */
const openable = (...directories: string[]) => [
  'sh',
  '-c',
  `for node in ${directories.flatMap((at) => [`${at}/zero`, `${at}/disk`]).join(' ')}; do
     [ -e $node ] || echo "missing $node"
     head -c 1 $node > /dev/null 2> /tmp/why || grep -q denied /tmp/why || echo "cannot tell $node: $(cat /tmp/why)"
     head -c 1 $node > /dev/null 2>&1 && echo "opened $node"
   done; head -c 1 /dev/zero > /dev/null && echo done`,
]

function rootWithNodes(place: Place): string {
  const rootfs = busyboxRoot(place)
  mkdirSync(join(rootfs, 'tmp'), { recursive: true })
  makeNodes(join(rootfs, 'srv'))
  return rootfs
}

unless(noBusybox(), asRoot, 'a node in a root of any kind opens nothing', async (t, place) => {
  const rootfs = rootWithNodes(place)
  const ways = [
    ['--rootfs', rootfs],
    ['--rootfs', rootfs, '--init'],
    ['--rootfs', rootfs, '--read-only', '--tmpfs', '/tmp'],
    ['--rootfs', rootfs, '--diff'],
    ['--rootfs', rootfs, '--cap-add', 'MKNOD'],
    ['--rootfs', rootfs, '--user', '1000'],
    ['--rootfs', rootfs, '--allow-new-privileges'],
  ]
  for (const way of ways)
    t.regex((await place.run([...way, ...openable('/srv')])).stdout, /^done\n/, way.slice(2).join(' '))
})

unless(noBusybox(), asRoot, 'a node on a file system that is mounted in the root opens nothing', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const below = join(rootfs, 'srv/below')
  mkdirSync(join(rootfs, 'tmp'), { recursive: true })
  mkdirSync(below, { recursive: true })
  execFileSync('mount', ['-t', 'tmpfs', 'below', below])
  t.teardown(() => execFileSync('umount', [below]))
  makeNodes(below)
  t.is(await place.output(['--rootfs', rootfs, ...openable('/srv/below')]), 'done')
})

asRoot("a node on the host's tree opens nothing, in the current directory neither", async (t, place) => {
  makeNodes(place.make('nodes'))
  const directory = join(place.dir, 'nodes')
  for (const way of [[], ['--read-only'], ['--cap-add', 'MKNOD']]) {
    const { stdout, stderr } = await place.run([...way, '--network', 'none', '--', ...openable(directory)])
    t.is(stdout, 'done\n', `${way.join(' ')} ${stderr}`)
  }
})

unless(
  noBusybox(),
  asRoot,
  "a node in a mount of the caller's opens only where they asked for it",
  async (t, place) => {
    const rootfs = ['--rootfs', busyboxRoot(place), '--tmpfs', '/tmp']
    makeNodes(place.make('nodes'))
    const source = join(place.dir, 'nodes')
    const mounts = [
      ['-v', `${source}:/v`],
      ['-v', `${source}:/v:ro,suid,exec`],
      ['--mount', `type=bind,source=${source},target=/v`],
      ['--mount', `type=overlay,source=${source},target=/v`],
    ]
    for (const mount of mounts)
      t.is(await place.output([...rootfs, ...mount, ...openable('/v')]), 'done', mount.join(' '))
    const zero = ['sh', '-c', 'head -c 3 /v/zero | wc -c']
    t.is(await place.output([...rootfs, '-v', `${source}:/v:dev`, ...zero]), '3')
    t.is(await place.output([...rootfs, '--mount', `type=bind,source=${source},target=/v,dev`, ...zero]), '3')
    t.is(await place.output([...rootfs, '-v', `${source}/zero:/v/zero:dev`, ...zero]), '3')
    t.not((await place.run([...rootfs, '-v', `${source}/zero:/v/zero`, 'head', '-c', '1', '/v/zero'])).code, 0)
  },
)

unless(noBusybox(), asRoot, 'a node that a command makes opens something in /dev alone', async (t, place) => {
  const rootfs = ['--rootfs', busyboxRoot(place), '--cap-add', 'MKNOD', '--tmpfs', '/t', '--tmpfs', '/d:dev']
  const script = `for at in / /t /dev/shm /d /dev; do mknod $at/new c 1 5 && head -c 1 $at/new > /dev/null 2>&1 && echo $at; done`
  t.is(await place.output([...rootfs, 'sh', '-c', script]), '/d\n/dev')
})

unless(noBusybox(), asRoot, "the host's nodes stay as they are where they are bound", async (t, place) => {
  // As in an outer container of docker's without CAP_MKNOD.
  const rootfs = busyboxRoot(place)
  const before = statSync('/dev/null')
  t.teardown(() => {
    chownSync('/dev/null', before.uid, before.gid)
    chmodSync('/dev/null', before.mode)
  })
  const script = `grep -c ' /dev/null ' /proc/self/mountinfo
    chmod 600 /dev/null; chown 1:1 /dev/null; echo x > /dev/null && head -c 1 /dev/zero | wc -c`
  const args = ['--bounding-set=-mknod', cli, 'run', '--rootfs', rootfs, 'sh', '-c', script]
  const { stdout, stderr } = await place.exec('setpriv', args)
  t.is(stdout, '1\n1\n', stderr)
  const { mode, uid, gid } = statSync('/dev/null')
  t.deepEqual({ mode, uid, gid }, { mode: before.mode, uid: before.uid, gid: before.gid })
})
