// Who is who in a user namespace.

import { execSync } from 'node:child_process'
import { chmodSync, chownSync, readFileSync, statSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { asEach, asRoot, asUser, has, unless, user } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

const maps = [
  'sh',
  '-c',
  'cat /proc/self/uid_map; echo -; cat /proc/self/gid_map; echo -; cat /proc/self/setgroups; id -u; id -g',
]
const tidy = (text: string) => text.split('\n').map((line) => line.trim().split(/\s+/).join(' '))

function noRange(): string | undefined {
  if (!has('newuidmap')) return 'newuidmap is missing (Debian: uidmap)'
  const line = readFileSync('/etc/subuid', 'utf8')
    .split('\n')
    .find((line) => line.startsWith(`${user.name}:`))
  return line ? undefined : `${user.name} has no range in /etc/subuid`
}

asRoot('root keeps all ids, and loses its rights over the host', async (t, place) => {
  const [uids, ...rest] = tidy(await place.output(['--userns', 'private', ...maps]))
  t.is(uids, '0 0 4294967295')
  t.deepEqual(rest.slice(-3), ['allow', '0', '0'])
})

asRoot('explicit maps are written as they are given', async (t, place) => {
  const out = tidy(
    await place.output([
      '--uidmap',
      '0:100000:1000',
      '--uidmap',
      '2000:200000:5',
      '--gidmap',
      '0:300000:10',
      '-u',
      '0',
      '-w',
      '/',
      ...maps,
    ]),
  )
  t.deepEqual(out, ['0 100000 1000', '2000 200000 5', '-', '0 300000 10', '-', 'allow', '0', '0'])
})

unless(noBusybox(), asRoot, 'files of a mapped container belong to the mapped ids', async (t, place) => {
  const volume = place.make('volume')
  chownSync(volume, 100_000, 100_000)
  const rootfs = busyboxRoot(place)
  chmodSync(place.dir, 0o755)
  await place.output([
    '--rootfs',
    rootfs,
    '--uidmap',
    '0:100000:65536',
    '-v',
    `${volume}:/work`,
    'sh',
    '-c',
    'echo x > /work/root; echo x > /work/seven; chown 7:8 /work/seven',
  ])
  const owner = (name: string) => [statSync(join(volume, name)).uid, statSync(join(volume, name)).gid]
  t.deepEqual(
    [owner('root'), owner('seven')],
    [
      [100_000, 100_000],
      [100_007, 100_008],
    ],
  )
})

asUser("on the host's tree a user is mapped to themselves", async (t, place) => {
  const { uid, gid } = place.as
  t.deepEqual(tidy(await place.output(maps)), [
    `${uid} ${uid} 1`,
    '-',
    `${gid} ${gid} 1`,
    '-',
    'deny',
    `${uid}`,
    `${gid}`,
  ])
})

unless(
  noBusybox() ?? noRange(),
  asUser,
  'in another root a user is root, with the range of /etc/subuid behind',
  async (t, place) => {
    const rootfs = busyboxRoot(place)
    const out = tidy(await place.output(['--rootfs', rootfs, ...maps]))
    const range = (file: string) =>
      readFileSync(file, 'utf8')
        .split('\n')
        .find((line) => line.startsWith(`${place.as.name}:`))
        ?.split(':')
        .slice(1)
        .join(' ')
    t.deepEqual(out, [
      `0 ${place.as.uid} 1`,
      `1 ${range('/etc/subuid')}`,
      '-',
      `0 ${place.as.gid} 1`,
      `1 ${range('/etc/subgid')}`,
      '-',
      'allow',
      '0',
      '0',
    ])
  },
)

unless(
  noBusybox(),
  asUser,
  'without newuidmap there is a map of one id, and it is said what that forbids',
  async (t, place) => {
    const rootfs = busyboxRoot(place)
    const bin = place.make('path')
    // The programs that change to the user have to be found, too.
    symlinkSync(execSync('command -v setpriv', { encoding: 'utf8' }).trim(), join(bin, 'setpriv'))
    const env = { PATH: bin }
    const out = tidy(await place.output(['--rootfs', rootfs, ...maps], { env }))
    t.deepEqual(out, [`0 ${place.as.uid} 1`, '-', `0 ${place.as.gid} 1`, '-', 'deny', '0', '0'])
    const { code, stderr } = await place.run(['--rootfs', rootfs, '-u', '1000', 'true'], { env })
    t.is(code, 125)
    t.regex(stderr, /1000[\s\S]*not mapped[\s\S]*hint: .*subuid/)
  },
)

asUser('nobody maps ids that are not theirs', async (t, place) => {
  for (const map of ['0:0:1', '0:1:1', `0:${place.as.uid}:2`]) {
    const { code, stderr } = await place.run(['--uidmap', map, '--gidmap', map, '-w', '/', 'true'])
    t.is(code, 125, map)
    t.regex(stderr, /map/, stderr)
  }
})

asEach('maps of one id for each are as unshare makes them', async (t, place) => {
  const nsrs = tidy(
    await place.output([
      '--uidmap',
      `5:${place.as.uid}:1`,
      '--gidmap',
      `6:${place.as.gid}:1`,
      '-u',
      '5:6',
      '-w',
      '/',
      'cat',
      '/proc/self/uid_map',
      '/proc/self/gid_map',
    ]),
  )
  t.deepEqual(nsrs, [`5 ${place.as.uid} 1`, `6 ${place.as.gid} 1`])
  const oracle = tidy((await place.exec('unshare', ['--map-root-user', 'cat', '/proc/self/uid_map'])).stdout)
  t.is(oracle[0], `0 ${place.as.uid} 1`)
})
