// What a command changed, listed at its end.

import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { snapshot } from '../helpers/canary.ts'
import { asEach, asRoot, asUser, type Place } from '../helpers/product.ts'

/** A project as programs leave it. */
function project(place: Place): string {
  const dir = place.make('project')
  for (const sub of ['src', 'old', 'old/deep', 'again']) place.make(`project/${sub}`)
  for (const file of ['a', 'mode', 'touched', 'src/main.js', 'old/deep/file', 'again/x']) {
    writeFileSync(join(dir, file), `${file}\n`)
    place.own(join(dir, file))
  }
  chmodSync(join(dir, 'mode'), 0o644)
  return dir
}

const COMMANDS = `echo more >> a; chmod 600 mode; touch touched; rm -r old; mv src lib; rm -r again; mkdir again; echo y > again/y
echo new > new; ln new hard; ln -s /etc/passwd link; mkfifo fifo; mkdir -p node_modules/b; echo '{}' > node_modules/b/package.json
printf x > "$(printf 'odd\\n\\377')"; echo out; exit 3`

const LIST = [
  'C a',
  'D again/x',
  'A again/y',
  'A fifo',
  'A hard',
  'A lib',
  'A lib/main.js',
  'A link',
  'C mode',
  'A new',
  'A node_modules',
  'A node_modules/b',
  'A node_modules/b/package.json',
  'A odd\\x0a\\xff',
  'D old',
  'D src',
]

const inside = (list: readonly string[], dir: string) =>
  list.map((line) => `${line.slice(0, 2)}${dir}/${line.slice(2)}`)

asEach('a run with --diff lists what the command changed, and changes nothing', async (t, place) => {
  const dir = project(place)
  const before = snapshot(dir)
  const { code, stdout, stderr } = await place.run(['--diff', 'sh', '-c', COMMANDS], { cwd: dir })
  t.is(code, 3, "the exit code is the command's")
  t.is(stdout, 'out\n')
  t.deepEqual(stderr.trimEnd().split('\n'), inside(LIST, dir))
  t.deepEqual(snapshot(dir), before)
})

asEach('a command that changes nothing has an empty list, whatever the runtime had to mount', async (t, place) => {
  const dir = project(place)
  const args = [
    '--diff',
    '-v',
    `${dir}:/srv/new/place`,
    '--tmpfs',
    '/srv/memory',
    '--hostname',
    'other',
    '--hide',
    'src',
  ]
  const { code, stderr } = await place.run([...args, 'cat', 'a'], { cwd: dir })
  t.is(code, 0)
  t.is(stderr, '')
  const json = await place.run(['--diff', '--format', 'json', 'true'], { cwd: dir })
  t.is(json.stderr, '[]\n')
  const host = await place.run(['--diff', '--network', 'host', 'true'], { cwd: dir })
  t.is(host.stderr, '', 'where there may be no /sys')
})

asRoot('changes all over the tree of the host are listed, sorted, and not those in /tmp', async (t, place) => {
  const script = 'touch /etc/nsrs-new /tmp/x /run/y; mkdir /nsrs-new; echo x >> /etc/hostname; rm /etc/passwd'
  const { stderr } = await place.run(['--diff', 'sh', '-c', script], { cwd: '/' })
  t.deepEqual(stderr.trimEnd().split('\n'), ['C /etc/hostname', 'A /etc/nsrs-new', 'D /etc/passwd', 'A /nsrs-new'])
  t.false(existsSync('/etc/nsrs-new'))
})

asEach('JSON tells of what kind a change is, and in what a file differs', async (t, place) => {
  const dir = project(place)
  const script = 'chmod 600 mode; rm a; mkdir d; echo x > s; chmod 4755 s'
  const { stderr } = await place.run(['--diff', '--format', 'json', 'sh', '-c', script], { cwd: dir })
  t.deepEqual(JSON.parse(stderr), [
    { kind: 'deleted', path: `${dir}/a`, type: 'file' },
    { kind: 'added', path: `${dir}/d`, type: 'directory' },
    { kind: 'modified', path: `${dir}/mode`, type: 'file', differs: ['mode'] },
    { kind: 'added', path: `${dir}/s`, type: 'file', hazards: ['set-user-id'] },
  ])
})

asEach('a directory as the root is copy-on-write', async (t, place) => {
  const root = place.make('root')
  const dirs = ['bin', 'etc', 'proc', 'sys', 'dev']
  for (const dir of dirs) place.make(`root/${dir}`)
  await place.exec('cp', ['/bin/busybox', join(root, 'bin/busybox')])
  const before = snapshot(root)
  const script = 'echo x > /etc/new; busybox mkdir /d; busybox rm /bin/busybox'
  const { stderr, code } = await place.run(['--rootfs', root, '--diff', '/bin/busybox', 'sh', '-c', script])
  t.is(code, 0, stderr)
  t.deepEqual(stderr.trimEnd().split('\n'), ['D /bin/busybox', 'A /d', 'A /etc/new'])
  t.deepEqual(snapshot(root), before)
})

asEach('the library gives the list with the result', async (t, place) => {
  const dir = project(place)
  const [done] = await place.batch(
    [{ command: 'sh', args: ['-c', 'rm a; for n in $(seq 2000); do : > "n$n"; done'], options: { diff: true } }],
    { cwd: dir },
  )
  t.is(done?.changes?.length, 2001, done?.message)
  t.deepEqual(done?.changes?.[0], { kind: 'deleted', path: `${dir}/a`, type: 'file' })
  t.is(readdirSync(dir).includes('n1'), false)
})

asUser('what the command has closed to its own user is listed too', async (t, place) => {
  const dir = project(place)
  const script = 'mkdir closed; touch closed/file; chmod 000 closed'
  const { stderr } = await place.run(['--diff', 'sh', '-c', script], { cwd: dir })
  t.deepEqual(stderr.trimEnd().split('\n'), [`A ${dir}/closed`, `A ${dir}/closed/file`])
})

asRoot('a list of a hundred thousand changes arrives whole', async (t, place) => {
  const dir = project(place)
  mkdirSync(join(dir, 'many'))
  const script = 'seq 100000 | (cd many && xargs touch)'
  const [done] = await place.batch([{ command: 'sh', args: ['-c', script], options: { diff: true } }], { cwd: dir })
  t.is(done?.changes?.length, 100_000)
})

asEach('no changes can be listed where nothing is copied on write', async (t, place) => {
  const { code, stderr } = await place.run(['--diff', '--mountns', 'host', 'true'])
  t.is(code, 125)
  t.regex(stderr, /combine --diff/)
})
