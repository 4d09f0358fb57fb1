// What a hostile command leaves among its changes, and what an ordinary user can't apply.

import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { asEach, asRoot, asUser, cli, exec, isRoot, unless } from '../helpers/product.ts'
import { onTerminal } from '../helpers/terminal.ts'

asEach('a link in the place of a parent is replaced, never followed', async (t, place) => {
  const dir = place.make('project')
  const victim = place.make('victim')
  place.make('project/sub')
  writeFileSync(join(dir, 'sub/file'), 'old')
  place.own(join(dir, 'sub/file'))
  await place.output(['--upper', '../kept', 'sh', '-c', 'echo evil > sub/file'], { cwd: dir })
  await place.exec('sh', ['-c', `rm -r sub; ln -s ${victim} sub`], { cwd: dir })
  const refused = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(refused.code, 1, refused.stderr)
  t.true(lstatSync(join(dir, 'sub')).isSymbolicLink())
  t.deepEqual(readdirSync(victim), [])
  const forced = await place.nsrs(['apply', '--yes', '--force', '../kept'], { cwd: dir })
  t.is(forced.code, 0, forced.stderr)
  t.true(lstatSync(join(dir, 'sub')).isDirectory())
  t.is(readFileSync(join(dir, 'sub/file'), 'utf8'), 'evil\n')
  t.deepEqual(readdirSync(victim), [])
})

asEach('a name with terminal escapes is listed escaped', async (t, place) => {
  const dir = place.make('project')
  const script = 'touch "$(printf \'\\033]0;owned\\007\\033[2J\')"'
  const { stderr } = await place.run(['--diff', '--upper', '../kept', 'sh', '-c', script], { cwd: dir })
  t.is(stderr, `A ${dir}/\\x1b]0;owned\\x07\\x1b[2J\n`)
  const { stdout } = await place.nsrs(['apply', '--dry-run', '../kept'], { cwd: dir })
  t.is(stdout, stderr)
})

asEach('a fifo is applied as one, and nobody waits for its other end', async (t, place) => {
  const dir = place.make('project')
  await place.output(['--upper', '../kept', 'mkfifo', 'fifo'], { cwd: dir })
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 0, stderr)
  t.true(lstatSync(join(dir, 'fifo')).isFIFO())
})

asRoot('a device and file capabilities among the changes are told, and left out', async (t, place) => {
  const dir = place.make('project')
  await place.output(['--upper', '../kept', 'sh', '-c', 'echo x > plain; cp /bin/true able'], { cwd: dir })
  const changes = await place.exec('find', ['kept/layers', '-name', 'plain'])
  const upper = join(place.dir, changes.stdout.trim(), '..')
  t.is((await place.exec('mknod', [join(upper, 'disk'), 'b', '7', '0'])).code, 0)
  // cap_setuid=ep, as setcap(8) writes it.
  const set = 'import os,sys; os.setxattr(sys.argv[1], "security.capability", bytes.fromhex("0100000280" + "0"*30))'
  t.is((await place.exec('python3', ['-c', set, join(upper, 'able')])).code, 0)
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 1)
  t.regex(stderr, /warning: .*\/disk is a device/)
  t.regex(stderr, /warning: .*\/able has file capabilities/)
  t.deepEqual(readdirSync(dir), ['plain'])
  t.true(existsSync(join(upper, 'disk')) && existsSync(join(upper, 'able')), 'what was left out stays')
  t.is((await place.nsrs(['apply', '--yes', '--privileged-files', '../kept'], { cwd: dir })).code, 0)
  const disk = lstatSync(join(dir, 'disk'))
  t.deepEqual([disk.isBlockDevice(), disk.rdev], [true, 0x700])
  const get = 'import os,sys; print(os.getxattr(sys.argv[1], "security.capability").hex())'
  t.regex((await place.exec('python3', ['-c', get, join(dir, 'able')])).stdout, /^0100000280/)
})

asEach('what the command has closed to its own user is applied, and closed again', async (t, place) => {
  const dir = place.make('project')
  place.make('project/shut')
  place.make('project/dir')
  chmodSync(join(dir, 'shut'), 0)
  const script =
    'mkdir closed; echo x > closed/x; chmod 000 closed; chmod 000 dir; echo y > none; chmod 000 none; chmod 700 shut; echo z > shut/z; chmod 000 shut'
  const run = await place.run(['--upper', '../kept', 'sh', '-c', script], { cwd: dir })
  t.is(run.code, 0, run.stderr)
  const { code, stdout, stderr } = await place.nsrs(['apply', '--yes', '--keep', '../kept'], { cwd: dir })
  t.is(code, 0, stderr)
  t.is(stdout.split('\n').length, 6, stdout)
  const again = await place.nsrs(['apply', '--dry-run', '../kept'], { cwd: dir })
  t.deepEqual([again.code, again.stdout], [0, ''], again.stderr)
  const paths = ['closed', 'dir', 'none', 'shut'].map((name) => join(dir, name))
  t.deepEqual(
    paths.map((path) => statSync(path).mode & 0o777),
    [0, 0, 0, 0],
  )
  for (const path of paths) chmodSync(path, 0o700)
  t.deepEqual(
    ['closed/x', 'none', 'shut/z'].map((name) => readFileSync(join(dir, name), 'utf8')),
    ['x\n', 'y\n', 'z\n'],
  )
})

const title = 'what a user may not write is told and stays kept, and the rest is applied'
unless(isRoot ? undefined : 'needs root', asUser, title, async (t, place) => {
  const dir = place.make('project')
  const closed = place.make('project/closed')
  await place.output(['--upper', '../kept', 'sh', '-c', 'echo a > mine; echo b > closed/theirs'], { cwd: dir })
  chownSync(closed, 0, 0)
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 1)
  t.regex(stderr, /closed\/theirs.*EACCES|closed\/theirs: permission denied/)
  t.regex(stderr, /1 of 2 changes applied; the others stay in/)
  t.is(readFileSync(join(dir, 'mine'), 'utf8'), 'a\n')
  t.deepEqual(readdirSync(closed), [])
  const left = await place.nsrs(['apply', '--dry-run', '../kept'], { cwd: dir })
  t.is(left.stdout, `A ${closed}/theirs\n`)
  chownSync(closed, place.as.uid, place.as.uid)
  const again = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(again.code, 0, again.stderr)
  t.is(readFileSync(join(closed, 'theirs'), 'utf8'), 'b\n')
})

asEach('on a terminal apply asks, and does nothing unless the answer is yes', async (t, place) => {
  const dir = place.make('project')
  await place.output(['--upper', '../kept', 'sh', '-c', 'echo x > new'], { cwd: dir })
  const { as, state, images } = place
  const who = isRoot && as.uid !== 0 ? ['setpriv', `--reuid=${as.uid}`, `--regid=${as.gid}`, '--init-groups'] : []
  const words = [...who, process.execPath, cli, 'apply', join(place.dir, 'kept')]
  const env = { ...process.env, NSRS_STATE_DIR: state, NSRS_IMAGE_DIR: images, HOME: as.home }
  const question = 'Apply 1 change to the real tree? [y/N] '
  for (const answer of ['n\r', '\r']) {
    const { status, left } = await onTerminal(words, [[question, answer]], env)
    t.deepEqual([status, left], [1, []])
    t.deepEqual(readdirSync(dir), [])
  }
  const { status, text } = await onTerminal(words, [[question, 'y\r']], env)
  t.is(status, 0, text)
  t.is(readFileSync(join(dir, 'new'), 'utf8'), 'x\n')
  t.false(existsSync(join(place.dir, 'kept')))
})

asEach('no mount lets the command write to what says of which tree its changes are', async (t, place) => {
  const dir = place.make('project')
  place.make('kept')
  symlinkSync(place.dir, join(place.dir, 'link'))
  for (const mount of [`${place.dir}:/all`, `${place.dir}/kept:/kept`, `${place.dir}/link:/all`]) {
    const { code, stderr } = await place.run(['--upper', '../kept', '-v', mount, 'true'], { cwd: dir })
    t.is(code, 125)
    t.regex(stderr, /could write to it through a mount/)
  }
  const readOnly = await place.run(['--upper', '../kept', '-v', `${place.dir}/kept:/kept:ro`, 'true'], { cwd: dir })
  t.is(readOnly.code, 0, readOnly.stderr)
})

asRoot("the container's root, who is another on the host, has no part in the record", async (t, place) => {
  const dir = place.make('project')
  chmodSync(place.dir, 0o755)
  const maps = ['--uidmap', '0:400000:65536', '--gidmap', '0:400000:65536']
  chownSync(dir, 400_000, 400_000)
  await place.output(['--upper', '../kept', ...maps, 'sh', '-c', 'echo x > new; chmod 700 .'], { cwd: dir })
  for (const path of ['kept', 'kept/changes.json']) {
    const { uid, mode } = statSync(join(place.dir, path))
    t.deepEqual([uid, mode & 0o077], [0, 0], path)
  }
  await place.output(['--upper', '../kept', ...maps, 'sh', '-c', 'cat new; echo y > other'], { cwd: dir })
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 0, stderr)
  t.deepEqual(
    ['.', 'new', 'other'].map((name) => statSync(join(dir, name)).uid),
    [400_000, 400_000, 400_000],
  )
  t.is(statSync(dir).mode & 0o777, 0o700)
})

unless(
  isRoot ? undefined : 'needs root',
  asUser,
  'root applies nothing of another before taking it over',
  async (t, place) => {
    const dir = place.make('project')
    await place.output(['--upper', '../kept', 'sh', '-c', 'echo x > new'], { cwd: dir })
    const apply = () => exec(process.execPath, [cli, 'apply', '--yes', join(place.dir, 'kept')])
    const { code, stderr } = await apply()
    t.is(code, 125)
    t.regex(stderr, /owned by user \d+.*\n.*chown 0/)
    t.deepEqual(readdirSync(dir), [])
    for (const path of ['kept', 'kept/changes.json']) chownSync(join(place.dir, path), 0, 0)
    t.is((await apply()).code, 0)
    t.is(statSync(join(dir, 'new')).uid, place.as.uid)
  },
)
