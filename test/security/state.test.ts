// The state directory is its owner's alone.

import { chmodSync, chownSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { asEach, asRoot, asUser, batchDriver, cli, isRoot } from '../helpers/product.ts'

asEach('the state directory is 0700, and empty after the last container', async (t, place) => {
  await place.output(['true'])
  const stat = statSync(place.state)
  t.is(stat.mode & 0o7777, 0o700)
  t.is(stat.uid, place.as.uid)
  const files = readdirSync(place.state, { recursive: true, withFileTypes: true }).filter(
    (entry) => !entry.isDirectory(),
  )
  t.deepEqual(
    files.map(({ name }) => name),
    [],
  )
})

asEach("a state directory that is not its user's alone is refused", async (t, place) => {
  const cases: [string, (path: string) => void, RegExp][] = [
    [
      'open',
      (path) => {
        mkdirSync(path)
        chmodSync(path, 0o755)
      },
      /open to other users/,
    ],
    [
      'group',
      (path) => {
        mkdirSync(path)
        chmodSync(path, 0o770)
      },
      /open to other users/,
    ],
    ['file', (path) => writeFileSync(path, ''), /not a directory/],
    [
      'link',
      (path) => {
        place.make('target')
        chmodSync(join(place.dir, 'target'), 0o700)
        symlinkSync(join(place.dir, 'target'), path)
      },
      /not a directory/,
    ],
    ['deep/er', () => {}, /ENOENT/],
  ]
  if (isRoot)
    cases.push([
      'other',
      (path) => {
        mkdirSync(path, { mode: 0o700 })
        chownSync(path, place.as.uid + 7, 0)
      },
      /another user/,
    ])
  for (const [name, make, why] of cases) {
    const path = join(place.dir, name)
    make(path)
    if (isRoot && name !== 'other' && name !== 'link' && !name.includes('/'))
      chownSync(path, place.as.uid, place.as.gid)
    const { code, stderr } = await place.run(['true'], { env: { NSRS_STATE_DIR: path } })
    t.is(code, 125, name)
    t.regex(stderr, why)
    t.true(stderr.includes(path), stderr)
    t.regex(stderr, /hint: .*NSRS_STATE_DIR/)
  }
})

asRoot('the place in /tmp that another user took first is refused', async (t, place) => {
  // An id that is nobody's: the place of whoever runs the tests may be in use.
  const uid = '54321'
  const path = `/tmp/nsrs-${uid}`
  t.teardown(() => rmSync(path, { recursive: true }))
  mkdirSync(path, { mode: 0o700 })
  chownSync(path, 12345, 12345)
  const env = { NSRS_STATE_DIR: undefined, XDG_RUNTIME_DIR: undefined }
  const nobody = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--']
  const run = [process.execPath, cli, 'run', '--network', 'none', '--', 'true']
  const { code, stderr } = await place.exec('setpriv', [...nobody, ...run], { env, cwd: '/' })
  t.is(code, 125, stderr)
  t.regex(stderr, /belongs to another user/)
  t.true(stderr.includes(path), stderr)
})

asRoot("a runtime directory that is gone or another user's is not used", async (t, place) => {
  const uid = '54322'
  const path = `/tmp/nsrs-${uid}`
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  const nobody = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--']
  const run = [process.execPath, cli, 'run', '--network', 'none', '--', 'true']
  for (const runtime of ['/nowhere', place.make('others'), '/']) {
    const env = { NSRS_STATE_DIR: undefined, NSRS_IMAGE_DIR: '/nowhere/images', XDG_RUNTIME_DIR: runtime }
    const { code, stderr } = await place.exec('setpriv', [...nobody, ...run], { env, cwd: '/' })
    t.is(code, 0, `${runtime}: ${stderr}`)
    t.is(statSync(path).mode & 0o7777, 0o700)
  }
})

asUser('the root of a user namespace has a state directory of its own', async (t, place) => {
  const env = { NSRS_STATE_DIR: '' }
  const words = ['--user', '--map-root-user', process.execPath, cli, 'run', '--network', 'none', '--', 'echo', 'up']
  const { stdout, stderr } = await place.exec('unshare', words, { env })
  t.is(stdout, 'up\n', stderr)
})

asRoot('users who are root in namespaces of their own have a state directory each', async (t, place) => {
  const env = { NSRS_STATE_DIR: undefined, XDG_RUNTIME_DIR: undefined, NSRS_IMAGE_DIR: '/nowhere/images' }
  const namespaced = [
    'unshare',
    '--user',
    '--map-root-user',
    process.execPath,
    cli,
    'run',
    '--network',
    'none',
    '--',
    'true',
  ]
  for (const uid of ['54323', '54324']) {
    t.teardown(() => rmSync(`/tmp/nsrs-${uid}-0`, { recursive: true, force: true }))
    const nobody = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--', ...namespaced]
    const { code, stderr } = await place.exec('setpriv', nobody, { env, cwd: '/' })
    t.is(code, 0, stderr)
  }
})

asRoot('a state directory without room is an error, and leaves no process', async (t, place) => {
  // As much as is there is taken when the state directory stands: what fails is the journal.
  const full = `mount --make-rprivate / && mount -t tmpfs -o size=8k,mode=1777 t full && mkdir -m 700 full/s full/s/supervisors &&
    { cat /dev/zero >full/filler 2>/dev/null; NSRS_STATE_DIR=$PWD/full/s timeout -k 1 20 "$@"; }`
  const without = (args: string[], input = '') =>
    place.exec('unshare', ['-m', 'sh', '-c', full, 'sh', process.execPath, ...args], { input })
  place.make('full')
  const mark = `${600_000 + process.pid}`
  const { code, stderr } = await without([cli, 'run', '--network', 'none', '--', 'sleep', mark])
  t.is(code, 125, stderr)
  t.regex(stderr, /write the journal \S+\/full\/s\/supervisors\/.*ENOSPC/)
  const job = { command: 'sleep', args: [mark], options: { network: 'none' } }
  const { stdout } = await without([batchDriver], JSON.stringify({ together: 1, jobs: [job, job] }))
  for (const { code, message } of JSON.parse(stdout)) {
    t.is(code, 'ERR_NSRS_SETUP_FAILED')
    t.regex(message, /write the journal .*ENOSPC/)
  }
  t.false((await place.exec('pgrep', ['-f', `sleep ${mark}`])).stdout !== '')
})
