// Changes that are kept, gone on with, and brought into the real tree.

import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { snapshot } from '../helpers/canary.ts'
import { asEach, asRoot, asUser, type Place } from '../helpers/product.ts'

function project(place: Place): string {
  const dir = place.make('project')
  for (const sub of ['src', 'old']) place.make(`project/${sub}`)
  for (const file of ['a', 'b', 'src/main.js', 'old/file']) {
    writeFileSync(join(dir, file), `${file}\n`)
    chmodSync(join(dir, file), 0o644)
    place.own(join(dir, file))
  }
  return dir
}

const COMMANDS =
  'echo more >> a; chmod 600 b; rm -r old; mv src lib; echo new > new; ln new hard; ln -s a link; truncate -s 1M hole; mkdir -m 700 d; : > d/f'

asEach('kept changes are applied when they have been shown, and their directory goes', async (t, place) => {
  const dir = project(place)
  const before = snapshot(dir)
  t.is((await place.run(['--upper', '../kept', 'sh', '-c', COMMANDS], { cwd: dir })).code, 0)
  t.deepEqual(snapshot(dir), before)
  const shown = await place.nsrs(['apply', '--dry-run', '../kept'], { cwd: dir })
  t.is(shown.code, 0, shown.stderr)
  t.deepEqual(snapshot(dir), before)
  const refused = await place.nsrs(['apply', '../kept'], { cwd: dir })
  t.is(refused.code, 125)
  t.regex(refused.stderr, /not a terminal\n.*--yes/)
  const { code, stdout, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 0, stderr)
  t.is(stdout, shown.stdout)
  t.deepEqual(readdirSync(dir).sort(), ['a', 'b', 'd', 'hard', 'hole', 'lib', 'link', 'new'])
  t.is(readFileSync(join(dir, 'a'), 'utf8'), 'a\nmore\n')
  t.is(statSync(join(dir, 'b')).mode & 0o777, 0o600)
  t.is(statSync(join(dir, 'd')).mode & 0o777, 0o700)
  t.is(statSync(join(dir, 'new')).ino, statSync(join(dir, 'hard')).ino)
  t.true(statSync(join(dir, 'hole')).blocks < 16, 'a hole stays one')
  t.is(statSync(join(dir, 'new')).uid, place.as.uid)
  t.false(existsSync(join(place.dir, 'kept')))
})

asEach('another run goes on with the kept changes, and neither sees where they lie', async (t, place) => {
  const dir = project(place)
  await place.output(['--upper', 'kept', 'sh', '-c', 'echo one > one; rm a'], { cwd: dir })
  t.is(
    await place.output(['--upper', 'kept', 'sh', '-c', 'ls; ls kept; cat one; echo two > two'], { cwd: dir }),
    'b\nkept\nold\none\nsrc\none',
  )
  const { stderr } = await place.run(['--upper', 'kept', '--diff', 'true'], { cwd: dir })
  t.deepEqual(stderr.trimEnd().split('\n'), [`D ${dir}/a`, `A ${dir}/one`, `A ${dir}/two`])
  const elsewhere = await place.run(['--upper', join(dir, 'kept'), 'true'], { cwd: place.make('elsewhere') })
  t.is(elsewhere.code, 125)
  t.regex(elsewhere.stderr, /they belong to another tree/)
})

asEach('what has changed in the real tree meanwhile is left alone unless forced', async (t, place) => {
  const dir = project(place)
  await place.output(['--upper', '../kept', 'sh', '-c', 'echo x > a; rm -r old; echo n > new; echo x > b'], {
    cwd: dir,
  })
  writeFileSync(join(dir, 'a'), 'mine')
  writeFileSync(join(dir, 'old/another'), 'mine')
  writeFileSync(join(dir, 'new'), 'mine')
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 1)
  t.is(stderr.match(/has changed since the command ran/g)?.length, 3, stderr)
  t.deepEqual(
    ['a', 'b', 'new', 'old/another'].map((file) => readFileSync(join(dir, file), 'utf8')),
    ['mine', 'x\n', 'mine', 'mine'],
  )
  const forced = await place.nsrs(['apply', '--yes', '--force', '../kept'], { cwd: dir })
  t.is(forced.code, 0, forced.stderr)
  t.false(/ b$/m.test(forced.stdout), 'what is applied is no change any more')
  t.is(readFileSync(join(dir, 'a'), 'utf8'), 'x\n')
  t.false(existsSync(join(dir, 'old')))
})

asEach('a file that gives rights comes only when told to', async (t, place) => {
  const dir = project(place)
  await place.output(['--upper', '../kept', 'sh', '-c', 'cp /bin/true s; chmod 4755 s; echo x > plain'], { cwd: dir })
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 1)
  t.regex(stderr, /warning: .*\/s runs with its owner's rights/)
  t.false(existsSync(join(dir, 's')))
  t.true(existsSync(join(dir, 'plain')))
  const told = await place.nsrs(['apply', '--yes', '--privileged-files', '../kept'], { cwd: dir })
  t.is(told.code, 0, told.stderr)
  t.is(statSync(join(dir, 's')).mode & 0o7777, 0o4755)
})

asEach('hard links stay what they are, and are parted only when told to', async (t, place) => {
  const dir = project(place)
  await place.exec('ln', ['a', 'a2'], { cwd: dir })
  const script = 'echo more >> a; ln b hard; mkdir sub; ln src/main.js sub/main.js'
  const run = await place.run(['--diff', '--upper', '../kept', 'sh', '-c', script], { cwd: dir })
  t.is(
    run.stderr,
    `C ${dir}/a\nA ${dir}/hard\nA ${dir}/sub\nA ${dir}/sub/main.js\nnsrs: warning: ${dir}/a is a hard link; the file's other name keeps its content\n`,
  )
  const json = await place.nsrs(['apply', '--dry-run', '--format', 'json', '../kept'], { cwd: dir })
  t.is(JSON.parse(json.stdout)[0].otherNames, 1)
  const ino = (name: string) => statSync(join(dir, name)).ino
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 1)
  t.regex(stderr, /a: it is a hard link.*\n.*--force/)
  t.deepEqual([ino('a'), ino('b'), ino('src/main.js')], [ino('a2'), ino('hard'), ino('sub/main.js')])
  const forced = await place.nsrs(['apply', '--yes', '--force', '../kept'], { cwd: dir })
  t.is(forced.code, 0, forced.stderr)
  t.deepEqual(
    ['a', 'a2'].map((name) => readFileSync(join(dir, name), 'utf8')),
    ['a\nmore\n', 'a\n'],
  )
})

asEach('what apply itself did in a part of the changes is no reason to refuse the rest', async (t, place) => {
  const dir = project(place)
  await place.exec('ln', ['a', 'two'], { cwd: dir })
  const script = 'echo x >> a; chmod 4755 a; echo y >> two; mkdir -m 755 new; echo s > new/s; chmod 4755 new/s'
  await place.output(['--upper', '../kept', 'sh', '-c', script], { cwd: dir })
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 1)
  t.regex(stderr, /2 of 4 changes applied/)
  t.is(statSync(join(dir, 'new')).mode & 0o777, 0o755)
  const rest = await place.nsrs(['apply', '--yes', '--privileged-files', '../kept'], { cwd: dir })
  t.is(rest.code, 0, rest.stderr)
  t.deepEqual(
    ['a', 'two', 'new/s'].map((name) => readFileSync(join(dir, name), 'utf8')),
    ['a\nx\n', 'a\ny\n', 's\n'],
  )
})

asEach('kept changes can be thrown away, whoever owns them', async (t, place) => {
  const dir = project(place)
  const before = snapshot(dir)
  const script = 'echo x >> a; mkdir d; echo x > d/f; chmod 000 d'
  await place.output(['--upper', '../kept', 'sh', '-c', script], { cwd: dir })
  const { code, stdout, stderr } = await place.nsrs(['apply', '--discard', '../kept'], { cwd: dir })
  t.deepEqual([code, stdout, stderr], [0, '', ''])
  t.false(existsSync(join(place.dir, 'kept')))
  t.deepEqual(snapshot(dir), before)
  const both = await place.nsrs(['apply', '--discard', '--keep', 'src'], { cwd: dir })
  t.is(both.code, 125)
  t.regex(both.stderr, /--keep.*--discard/)
  const none = await place.nsrs(['apply', '--discard', 'src'], { cwd: dir })
  t.is(none.code, 125)
  t.regex(none.stderr, /no changes are kept here/)
})

asUser('an ordinary user throws away what other users of the container own', async (t, place) => {
  const root = place.make('root')
  for (const sub of ['bin', 'proc', 'sys', 'dev', 'etc']) place.make(`root/${sub}`)
  await place.exec('cp', ['/bin/busybox', join(root, 'bin/busybox')])
  const script = 'busybox mkdir /d; echo x > /d/f; busybox chown -R 5:5 /d; busybox chmod 700 /d; echo y > /mine'
  const run = await place.run(['--rootfs', root, '--upper', 'kept', '/bin/busybox', 'sh', '-c', script])
  t.is(run.code, 0, run.stderr)
  const shown = await place.nsrs(['apply', '--dry-run', 'kept'])
  t.is(shown.stdout, 'A /d\nA /mine\n', shown.stderr)
  const applied = await place.nsrs(['apply', '--yes', 'kept'])
  t.is(applied.code, 1)
  t.regex(applied.stderr, /another user of the container/)
  t.is(readFileSync(join(root, 'mine'), 'utf8'), 'y\n')
  const { code, stderr } = await place.nsrs(['apply', '--discard', 'kept'])
  t.deepEqual([code, stderr], [0, ''])
  t.false(existsSync(join(place.dir, 'kept')))
})

asEach('links that a command leaves lead nothing out of the tree', async (t, place) => {
  const dir = project(place)
  const victim = place.make('victim')
  writeFileSync(join(victim, 'file'), 'safe')
  const script = `rm -r src; ln -s ${victim} src; mkdir deep; echo evil > deep/file; rm a; ln -s ${victim}/file a`
  await place.output(['--upper', '../kept', 'sh', '-c', script], { cwd: dir })
  // The caller's tree turns hostile too: a directory that is to be made is a link by now.
  symlinkSync(victim, join(dir, 'deep'))
  const { stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.regex(stderr, /deep/)
  t.deepEqual(readdirSync(victim), ['file'])
  t.is(readFileSync(join(victim, 'file'), 'utf8'), 'safe')
})

asRoot('root brings changes anywhere, with their owners', async (t, place) => {
  const root = place.make('root')
  for (const sub of ['bin', 'proc', 'sys', 'dev', 'etc']) mkdirSync(join(root, sub))
  await place.exec('cp', ['/bin/busybox', join(root, 'bin/busybox')])
  const script = 'busybox touch /owned /etc/x; busybox chown 7:8 /owned'
  await place.output(['--rootfs', root, '--upper', 'kept', '/bin/busybox', 'sh', '-c', script])
  t.is((await place.nsrs(['apply', '--yes', '--keep', 'kept'])).code, 0)
  const { uid, gid } = statSync(join(root, 'owned'))
  t.deepEqual([uid, gid], [7, 8])
  t.true(existsSync(join(place.dir, 'kept')))
})

asEach('a directory for changes is a new one, an empty one or one of ours', async (t, place) => {
  const dir = project(place)
  for (const [upper, why] of [
    ['src', /not made by --upper/],
    ['.', /working directory lies in it/],
    ['no/such/parent', /ENOENT/],
  ] as const) {
    const { code, stderr } = await place.run(['--upper', upper, 'true'], { cwd: dir })
    t.is(code, 125, upper)
    t.regex(stderr, why)
  }
  const none = await place.nsrs(['apply', '--yes', 'src'], { cwd: dir })
  t.is(none.code, 125)
  t.regex(none.stderr, /no changes are kept here/)
})

asEach('a directory whose mode was changed meanwhile keeps it, and that is told', async (t, place) => {
  const dir = project(place)
  for (const sub of ['src', 'old']) chmodSync(join(dir, sub), 0o755)
  await place.output(['--upper', '../kept', 'sh', '-c', 'chmod 700 src old; echo x > src/new'], { cwd: dir })
  chmodSync(join(dir, 'old'), 0o750)
  writeFileSync(join(dir, 'src/mine'), 'a new entry is no new mode')
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 1)
  t.is(stderr.match(/has changed since the command ran/g)?.length, 1, stderr)
  const modes = () => ['src', 'old'].map((sub) => statSync(join(dir, sub)).mode & 0o777)
  t.deepEqual(modes(), [0o700, 0o750])
  t.true(existsSync(join(dir, 'src/new')))
  const forced = await place.nsrs(['apply', '--yes', '--force', '../kept'], { cwd: dir })
  t.is(forced.code, 0, forced.stderr)
  t.deepEqual(modes(), [0o700, 0o700])
})

asEach('what else lies in the directory of the changes stays, and that is told', async (t, place) => {
  const dir = project(place)
  await place.output(['--upper', '../kept', 'sh', '-c', 'rm a'], { cwd: dir })
  writeFileSync(join(place.dir, 'kept/notes'), 'mine')
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 0)
  t.regex(stderr, /keeping .*kept: it also contains notes\n/)
  t.deepEqual(readdirSync(join(place.dir, 'kept')), ['notes'])
})

asEach('a directory that the command has closed, or opened, is filled all the same', async (t, place) => {
  const dir = project(place)
  chmodSync(join(dir, 'old'), 0o500)
  const script = 'echo x > src/new; chmod 500 src; chmod 700 old; rm old/file; echo x > old/new'
  await place.output(['--upper', '../kept', 'sh', '-c', script], { cwd: dir })
  const { code, stderr } = await place.nsrs(['apply', '--yes', '../kept'], { cwd: dir })
  t.is(code, 0, stderr)
  t.deepEqual(
    ['src', 'old'].map((sub) => statSync(join(dir, sub)).mode & 0o777),
    [0o500, 0o700],
  )
  t.deepEqual([...readdirSync(join(dir, 'src')).sort(), ...readdirSync(join(dir, 'old'))], ['main.js', 'new', 'new'])
  chmodSync(join(dir, 'src'), 0o700)
})

asEach('what a command has put beside a mount, or another one in its place, is brought', async (t, place) => {
  const dir = place.make('root')
  place.make('root/etc')
  const run = ['--rootfs', dir, '--network', 'none', '-v', '/usr:/usr:ro', '-v', '/bin:/bin:ro', '-v', '/lib:/lib:ro']
  const rest = existsSync('/lib64') ? ['-v', '/lib64:/lib64:ro'] : []
  const upper = ['--upper', join(place.dir, 'kept')]
  const volume = ['-v', `${place.make('volume')}:/opt/tool`]
  await place.output([
    ...run,
    ...rest,
    ...upper,
    ...volume,
    'sh',
    '-c',
    'echo beside > /opt/file; echo x > /opt/tool/x',
  ])
  await place.output([...run, ...rest, ...upper, 'sh', '-c', 'echo kept > /opt/tool/kept'])
  const { code, stdout, stderr } = await place.nsrs(['apply', '--yes', join(place.dir, 'kept')])
  t.is(code, 0, stderr)
  t.is(stdout, 'A /opt\nA /opt/file\nA /opt/tool\nA /opt/tool/kept\n')
  t.is(readFileSync(join(dir, 'opt/tool/kept'), 'utf8'), 'kept\n')
  t.true(existsSync(join(place.dir, 'volume/x')))
})

asEach('an apply that keeps the changes is no change to the next one', async (t, place) => {
  const dir = project(place)
  for (const word of ['one', 'two']) {
    await place.output(['--upper', '../kept', 'sh', '-c', `echo ${word} >> a`], { cwd: dir })
    const { code, stderr } = await place.nsrs(['apply', '--yes', '--keep', '../kept'], { cwd: dir })
    t.is(code, 0, stderr)
  }
  t.is(readFileSync(join(dir, 'a'), 'utf8'), 'a\none\ntwo\n')
  t.is((await place.nsrs(['apply', '--discard', '../kept'], { cwd: dir })).code, 0)
})

asRoot("a container's root of other ids keeps changes too, however its ids are mapped", async (t, place) => {
  chmodSync(place.dir, 0o755)
  const maps = ['--userns', 'private', '--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536']
  const dir = project(place)
  // Its directory is another user's before the ids are mapped: a race is lost now and then.
  for (let count = 0; count < 25; count++) {
    const { code, stderr } = await place.run([...maps, '--network', 'none', '--upper', '../kept', 'true'], { cwd: dir })
    t.is(code, 0, stderr)
  }
})
