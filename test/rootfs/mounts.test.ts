// Volumes, mounts, temporary file systems: each option as /proc/self/mountinfo shows it.

import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { snapshot } from '../helpers/canary.ts'
import { asEach, asRoot, cli, exec, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

interface Line {
  options: string[]
  super: string
  type: string
  tags: string
}

function mountinfo(text: string, at: string): Line {
  const line = text
    .split('\n')
    .filter((line) => line.split(' ')[4] === at)
    .at(-1)
  const [before = '', after = ''] = line?.split(' - ') ?? []
  const fields = before.split(' ')
  return {
    options: fields[5]?.split(',') ?? [],
    tags: fields.slice(6).join(' '),
    type: after.split(' ')[0] ?? '',
    super: after.split(' ')[2] ?? '',
  }
}

unless(noBusybox(), asEach, 'every option of a volume is an option of its mount', async (t, place) => {
  const rootfs = ['--rootfs', busyboxRoot(place)]
  const volume = place.make('volume')
  const show = async (...options: string[]) =>
    mountinfo(await place.output([...rootfs, ...options, 'cat', '/proc/self/mountinfo']), '/mnt/v')
  const plain = await show('-v', `${volume}:/mnt/v`)
  t.true(plain.options.includes('rw'))
  for (const option of ['ro', 'nosuid', 'nodev', 'noexec', 'nosymfollow'])
    t.true((await show('-v', `${volume}:/mnt/v:${option}`)).options.includes(option), option)
  const all = await show('--mount', `type=bind,source=${volume},target=/mnt/v,readonly,nosuid,nodev,noexec`)
  t.deepEqual(
    ['ro', 'nosuid', 'nodev', 'noexec'].filter((option) => !all.options.includes(option)),
    [],
  )
  t.deepEqual((await show('-v', './volume:/mnt/v')).type, plain.type, "a relative source is the caller's")
})

unless(noBusybox(), asEach, 'a volume is written through to, and a read-only one is not', async (t, place) => {
  const rootfs = ['--rootfs', busyboxRoot(place)]
  const volume = place.make('volume')
  await place.output([...rootfs, '-v', `${volume}:/v`, 'sh', '-c', 'echo x > /v/file'])
  t.is(readFileSync(join(volume, 'file'), 'utf8'), 'x\n')
  const before = snapshot(volume)
  t.not((await place.run([...rootfs, '-v', `${volume}:/v:ro`, 'sh', '-c', 'echo y > /v/file'])).code, 0)
  t.not((await place.run([...rootfs, '-v', `${volume}/file:/etc/file:ro`, 'sh', '-c', 'echo y > /etc/file'])).code, 0)
  t.deepEqual(snapshot(volume), before)
  t.is(await place.output([...rootfs, '-v', `${volume}/file:/etc/file`, 'cat', '/etc/file']), 'x')
})

unless(noBusybox(), asEach, 'a temporary file system has its size, its mode and its restrictions', async (t, place) => {
  const rootfs = ['--rootfs', busyboxRoot(place)]
  const script =
    'cat /proc/self/mountinfo; stat -c "mode %a" /t; head -c 2000000 /dev/zero > /t/big 2>/dev/null; stat -c "size %s" /t/big'
  const out = await place.output([...rootfs, '--tmpfs', '/t:size=1m,mode=0750', 'sh', '-c', script])
  const line = mountinfo(out, '/t')
  t.is(line.type, 'tmpfs')
  t.deepEqual(
    ['rw', 'nosuid', 'nodev', 'noexec'].filter((option) => !line.options.includes(option)),
    [],
  )
  t.regex(out, /mode 750/)
  t.regex(out, /size 1048576/)
  t.true(
    mountinfo(
      await place.output([...rootfs, '--tmpfs', '/t:exec,ro', 'cat', '/proc/self/mountinfo']),
      '/t',
    ).options.includes('ro'),
  )
  t.regex(await place.output([...rootfs, '--shm-size', '2m', 'cat', '/proc/self/mountinfo']), /\/dev\/shm .*size=2048k/)
})

unless(noBusybox(), asEach, 'an overlay mount shows a directory and throws changes away', async (t, place) => {
  const rootfs = ['--rootfs', busyboxRoot(place)]
  const lower = place.make('lower')
  writeFileSync(join(lower, 'file'), 'lower')
  place.own(join(lower, 'file'))
  const before = snapshot(lower)
  const out = await place.output([
    ...rootfs,
    '--mount',
    `type=overlay,source=${lower},target=/o`,
    'sh',
    '-c',
    'cat /o/file; echo changed > /o/file; echo > /o/new; cat /o/file',
  ])
  t.is(out, 'lowerchanged')
  t.deepEqual(snapshot(lower), before)
})

unless(noBusybox(), asEach, 'read-only holds for every mount below', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const volume = place.make('volume')
  for (const sub of ['volume/sub', 'volume/sub/deep']) place.make(sub)
  // A tree of mounts, in a mount namespace of its own.
  const script = `mount -t tmpfs x ${volume}/sub && mkdir ${volume}/sub/deep && mount -t tmpfs y ${volume}/sub/deep && exec "$@"`
  const run = [process.execPath, cli, 'run', '--network', 'none', '--rootfs', rootfs, '-v', `${volume}:/v:ro`]
  const probe = [
    'sh',
    '-c',
    'for path in /v /v/sub /v/sub/deep; do touch $path/x 2>/dev/null && echo "wrote $path"; done; cat /proc/self/mountinfo',
  ]
  const nested = place.as.uid === 0 ? ['--mount'] : ['--user', '--map-root-user', '--mount']
  const { stdout, stderr } = await place.exec('unshare', [...nested, 'sh', '-c', script, 'sh', ...run, ...probe])
  t.notRegex(stdout, /wrote/, stderr)
  for (const at of ['/v', '/v/sub', '/v/sub/deep'])
    t.true(mountinfo(stdout, at).options.includes('ro'), `${at} ${stdout} ${stderr}`)
})

unless(
  noBusybox(),
  asRoot,
  'mounts of the host come in where that is asked for, and none goes out',
  async (t, place) => {
    const rootfs = busyboxRoot(place)
    const volume = place.make('volume')
    for (const name of ['late', 'out']) mkdirSync(join(volume, name))
    const log = (mode: string) => join(place.dir, `log-${mode}`)
    const tail =
      'touch /v/up; until [ -e /v/go ]; do sleep 0.05; done; mount -t tmpfs inside /v/out 2>/dev/null; grep -c " /v/late " /proc/self/mountinfo; grep " /v " /proc/self/mountinfo | grep -o "master\\|shared"'
    const script = `mount --bind ${volume} ${volume} && mount --make-shared ${volume}
    for mode in private rslave; do
      "$@" -v ${volume}:/v:$mode --cap-add SYS_ADMIN sh -c '${tail}' > ${place.dir}/log-$mode & pid=$!
      while kill -0 $pid && [ ! -e ${volume}/up ]; do sleep 0.05; done
      mount -t tmpfs late ${volume}/late; touch ${volume}/go; wait $pid; umount ${volume}/late
      rm ${volume}/up ${volume}/go
      grep " ${volume}/out " /proc/self/mountinfo && echo leaked
    done; true`
    const { stdout, stderr } = await exec(
      'unshare',
      ['--mount', 'sh', '-c', script, 'sh', process.execPath, cli, 'run', '--network', 'none', '--rootfs', rootfs],
      place.options(),
    )
    t.is(stdout, '', stderr)
    t.is(readFileSync(log('private'), 'utf8').trim(), '0')
    t.is(readFileSync(log('rslave'), 'utf8').trim(), '1\nmaster')
  },
)

asEach('nothing that a container mounts is seen on the host', async (t, place) => {
  const before = readFileSync('/proc/self/mountinfo', 'utf8').split('\n').length
  await place.output(['--tmpfs', '/mnt', 'true'])
  t.is(readFileSync('/proc/self/mountinfo', 'utf8').split('\n').length, before)
})

unless(
  noBusybox(),
  asEach,
  'targets are made in the root where they are missing, through links that stay inside',
  async (t, place) => {
    const { symlinkSync } = await import('node:fs')
    const rootfs = busyboxRoot(place)
    const volume = place.make('volume')
    writeFileSync(join(volume, 'file'), 'x')
    symlinkSync('/work', join(rootfs, 'link'))
    symlinkSync('../work', join(rootfs, 'etc/up'))
    const out = await place.output([
      '--rootfs',
      rootfs,
      '-v',
      `${volume}:/a/b/c`,
      '-v',
      `${volume}/file:/d/e`,
      '-v',
      `${volume}:/link/one`,
      '-v',
      `${volume}:/etc/up/two`,
      'cat',
      '/a/b/c/file',
      '/d/e',
      '/work/one/file',
      '/work/two/file',
    ])
    t.is(out, 'xxxx')
    t.true(statSync(join(rootfs, 'a/b/c')).isDirectory() && statSync(join(rootfs, 'd/e')).isFile())
  },
)

unless(noBusybox(), asEach, 'a volume may lie in a volume, in the order in which they are given', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const outer = place.make('outer')
  place.make('outer/inner')
  const inner = place.make('inner')
  writeFileSync(join(inner, 'file'), 'inner')
  chmodSync(outer, 0o755)
  t.is(
    await place.output(['--rootfs', rootfs, '-v', `${outer}:/v`, '-v', `${inner}:/v/inner:ro`, 'cat', '/v/inner/file']),
    'inner',
  )
  t.false(existsSync(join(outer, 'inner/file')))
})

unless(noBusybox(), asEach, "a volume wins over a file of nsrs's in /etc", async (t, place) => {
  const rootfs = ['--rootfs', busyboxRoot(place)]
  writeFileSync(join(place.make('volume'), 'file'), 'own\n')
  for (const name of ['hosts', 'hostname', 'resolv.conf']) {
    const volume = ['-v', `${place.dir}/volume/file:/etc/${name}:ro`]
    t.is(await place.output([...rootfs, ...volume, 'cat', `/etc/${name}`]), 'own')
    t.is(await place.output([...volume, 'cat', `/etc/${name}`]), 'own', 'on the tree of the host')
  }
  t.regex(await place.output([...rootfs, 'ls', '-a', '/dev']), /^\.\n\.\.\nfd\n/, 'none of them is seen in /dev')
})

asRoot('a container within a container has files of its own in /etc', async (t, place) => {
  // The host's /tmp, in which it may lie, is not seen there.
  const project = join(cli, '../..')
  const inner = [process.execPath, cli, 'run', '--network', 'none', '-h', 'inner', '--', 'cat', '/etc/hostname']
  t.is(
    await place.output([
      '--cap-add',
      'SYS_ADMIN',
      '--cap-add',
      'NET_ADMIN',
      '-v',
      `${project}:${project}:ro`,
      '--',
      ...inner,
    ]),
    'inner',
  )
})
