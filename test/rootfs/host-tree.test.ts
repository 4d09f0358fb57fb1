// The host's own tree, copy-on-write.

import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { snapshot } from '../helpers/canary.ts'
import {
  asEach,
  asRoot,
  asUser,
  cli,
  exec,
  isRoot,
  type Outcome,
  type Place,
  root,
  unless,
} from '../helpers/product.ts'
import { remove } from '../helpers/remove.ts'

function project(place: Place, name: string): string {
  const dir = place.make(name)
  for (const sub of ['src', 'node_modules']) place.make(`${name}/${sub}`)
  for (const file of ['package.json', 'src/index.js', 'node_modules/.lock']) {
    writeFileSync(join(dir, file), '{}')
    place.own(join(dir, file))
  }
  return dir
}

/** What npm does to a directory, and worse. */
const WRITES =
  'mkdir -p node_modules/a && echo x > node_modules/a/index.js && echo y >> package.json && mv src/index.js src/main.js && rm node_modules/.lock && chmod 700 src && ln -s src link && echo done'

asEach("what a command writes into the caller's directory is gone afterwards", async (t, place) => {
  const dir = project(place, 'project')
  const before = snapshot(dir)
  t.is(await place.output(['sh', '-c', `${WRITES}; cat node_modules/a/index.js`], { cwd: dir }), 'done\nx')
  t.deepEqual(snapshot(dir), before)
})

asRoot("what a command writes anywhere on the host's tree is gone afterwards", async (t, place) => {
  const paths = ['/etc', '/root', '/usr/local/bin', '/var/tmp']
  // Further down others may be at work.
  const names = () => paths.map((path) => readdirSync(path).sort())
  const before = names()
  const script = `for path in ${paths.join(' ')}; do echo x > $path/nsrs-test-$$ || echo "closed $path"; done; rm -rf /usr/share /etc/passwd; ls -d /usr/share /etc/passwd 2>&1 | grep -c 'No such'`
  t.is(await place.output(['sh', '-c', script], { cwd: '/' }), '2')
  t.deepEqual(names(), before)
})

asEach('a read-only tree of the host takes nothing but in /tmp', async (t, place) => {
  const dir = project(place, 'project')
  const out = await place.output(
    [
      '--read-only',
      'sh',
      '-c',
      'touch ./x /var/tmp/x 2>/dev/null && echo wrote; touch /tmp/x && echo tmp; cat package.json',
    ],
    { cwd: dir },
  )
  t.is(out, 'tmp\n{}')
})

asEach("the caller's directory is the working directory, wherever it lies", async (t, place) => {
  const places = [place.dir, project(place, 'deep'), place.make('a b: c,d\\e'), '/', '/usr/share', '/tmp']
  for (const cwd of places) t.is(await place.output(['pwd'], { cwd }), cwd)
  writeFileSync(join(place.dir, 'seen'), 'yes')
  writeFileSync(join(place.dir, '../nsrs-neighbour'), 'hidden')
  t.teardown(async () => (await import('node:fs')).rmSync(join(place.dir, '../nsrs-neighbour')))
  t.is(
    await place.output(['sh', '-c', 'cat seen; cat ../nsrs-neighbour 2>/dev/null; ls /tmp | wc -l']),
    'yes1',
    'of /tmp only the way to it is there',
  )
})

asUser("a hidden directory is visible when it is the caller's own, and its neighbours are not", async (t, place) => {
  const home = place.make('home')
  for (const dir of ['.aws', '.ssh']) {
    mkdirSync(join(home, dir))
    writeFileSync(join(home, dir, 'file'), dir)
    if (isRoot) for (const path of [join(home, dir), join(home, dir, 'file')]) place.own(path)
  }
  const out = await place.output(['sh', '-c', 'cat file; cat ../.ssh/file 2>/dev/null; :'], {
    cwd: join(home, '.aws'),
    env: { HOME: home },
  })
  t.is(out, '.aws')
})

asUser('what is closed to the user stays closed', async (t, place) => {
  const dir = place.make('closed')
  writeFileSync(join(dir, 'file'), 'x')
  place.own(join(dir, 'file'))
  chmodSync(join(dir, 'file'), 0o000)
  const { stdout, stderr } = await place.run(['sh', '-c', 'cat file; cat /etc/shadow'], { cwd: dir })
  t.is(stdout, '')
  t.is(stderr.match(/Permission denied/g)?.length, 2, stderr)
})

/** `nsrs run ARGS…` in a directory that has mounts, which root makes by this script; the directory is its `$1`. */
function mounted(place: Place, dir: string, script: string, args: string[], home = place.as.home): Promise<Outcome> {
  const { uid, gid } = place.as
  const who = uid === 0 ? [] : ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--init-groups']
  const command = [...who, cli, 'run', '--network', 'none', ...args]
  const whole = `set -e; ${script}; cd "$1"; shift; exec "$@"`
  return exec('unshare', ['--mount', 'sh', '-c', whole, 'sh', dir, ...command], {
    as: root,
    env: { HOME: home, NSRS_STATE_DIR: place.state },
  })
}

asEach('the working directory may have mounts below it', async (t, place) => {
  // It takes root to make one.
  if (!isRoot) return t.pass()
  const dir = place.make('above')
  place.make('above/below')
  writeFileSync(join(dir, 'file'), 'seen')
  const command = ['--', 'sh', '-c', 'cat file; ls; touch new && echo made']
  const { stdout, stderr } = await mounted(place, dir, 'mount -t tmpfs below "$1/below"', command)
  t.is(stdout, 'seenbelow\nfile\nmade\n', stderr)
  t.false(existsSync(join(dir, 'new')))
})

asUser('a mount that the caller may not enter takes no mode from the one after it', async (t, place) => {
  // It takes root to make one.
  if (!isRoot) return t.pass()
  const dir = place.make('above')
  for (const sub of ['closed', 'closed/in', 'open']) place.make(`above/${sub}`)
  chownSync(join(dir, 'closed'), 0, 0)
  const script = `mount -t tmpfs -o mode=755 in "$1/closed/in" && mount -t tmpfs -o mode=1777 open "$1/open" &&
    chmod 700 "$1/closed"`
  const { stdout, stderr } = await mounted(place, dir, script, ['--', 'stat', '-c', '%a', 'open'])
  t.is(stdout, '1777\n', stderr)
})

asEach('a file system that no overlay can be made of can be hidden', async (t, place) => {
  // It takes root to make one.
  if (!isRoot) return t.pass()
  // Two overlays on each other are as many as the kernel stacks.
  const script = `mount -t tmpfs stack "$1"; cd "$1"; mkdir low 1 2 3 4 one two; chmod 755 .
    mount -t overlay one -o lowerdir=low,upperdir=1,workdir=2 one
    mount -t overlay two -o lowerdir=one,upperdir=3,workdir=4 two; touch two/file`
  const dir = mkdtempSync('/var/nsrs-test-')
  t.teardown(() => rmdirSync(dir))
  const refused = await mounted(place, dir, script, ['--', 'ls', 'two'])
  t.is(refused.code, 125)
  t.true(refused.stderr.includes(`hint: hide this file system from the container: --hide ${dir}/two\n`), refused.stderr)
  const { stdout, stderr } = await mounted(place, dir, script, ['--hide', `${dir}/two`, '--', 'ls', '.', 'two'])
  t.is(stdout, '.:\n1\n2\n3\n4\nlow\none\ntwo\n\ntwo:\n', stderr)
})

asEach("what is mounted below the caller's directory is seen, wherever that lies", async (t, place) => {
  // It takes root to make one.
  if (!isRoot) return t.pass()
  const { uid, gid } = place.as
  const script = `mkdir -p "$1"; chmod 755 "$1"; cd "$1"; mkdir -p .aws below far/deep closed; touch file
    mount -t tmpfs -o mode=755,uid=${uid},gid=${gid} below below; mkdir -p below/twice below/.ssh
    mount -t tmpfs -o mode=755,uid=${uid},gid=${gid} twice below/twice
    mount -t tmpfs -o mode=755 deep far/deep
    mount -t tmpfs -o mode=755 secret .aws
    for at in below below/twice below/.ssh far/deep .aws; do echo $at > $at/file; done
    echo bound > far/bound; mount --bind far/bound file; chown ${uid}:${gid} below/file below/twice/file
    mount -t tmpfs -o mode=777 closed closed; mount -o remount,ro closed`
  const look = `cat below/file below/twice/file far/deep/file file; ls .aws below/.ssh
    touch closed/x 2>/dev/null && echo wrote; touch file 2>/dev/null && echo wrote
    cd below/twice && echo new > file && mv file gone && cat gone`
  const seen = ['below', 'below/twice', 'far/deep', 'bound', '.aws:', '', 'below/.ssh:', ''].join('\n')
  for (const [parent, below] of [
    ['/run', ''],
    ['/tmp', ''],
    ['/var/tmp', ''],
    ['/var/tmp', '.aws'],
  ] as const) {
    const home = mkdtempSync(`${parent}/nsrs-test-`)
    t.teardown(() => remove(home))
    chmodSync(home, 0o755)
    const dir = join(home, below)
    const hide = ['--hide', 'below/.ssh', ...(dir === home ? [] : ['--hide', '.aws'])]
    const run = (args: string[], more = '') =>
      mounted(place, dir, script, [...hide, ...args, '--', 'sh', '-c', look + more], home)
    const { stdout, stderr } = await run([])
    t.is(stdout, `${seen}new\n`, `${dir}: ${stderr}`)
    const closed = await run(['--read-only'], '; ls')
    t.is(closed.stdout, `${seen}file\n`, `${dir}: ${closed.stderr}`)
  }
})

asEach("what the host forbids on the caller's file system stays forbidden there", async (t, place) => {
  // It takes root to make one.
  if (!isRoot) return t.pass()
  for (const parent of ['/tmp', '/var/tmp']) {
    const dir = mkdtempSync(`${parent}/nsrs-test-`)
    t.teardown(() => remove(dir))
    chmodSync(dir, 0o755)
    for (const more of ['true', 'mkdir below; mount -t tmpfs below below']) {
      const script = `mount -t tmpfs -o nosuid,nodev,noexec,mode=777 closed "$1"; cd "$1"; mkdir in
        cp /bin/true in; mknod -m 666 in/null c 1 3; ${more}`
      const look =
        'cat in/null && echo opened; in/true && echo ran; touch in/new; grep -c nosuid,nodev,noexec /proc/mounts'
      const { stdout, stderr } = await mounted(place, dir, script, ['--', 'sh', '-c', look])
      t.regex(stdout, /^[1-9]\d*\n$/, `${dir} ${more} ${stderr}`)
    }
  }
})

asEach('of what is mounted onto a name of the host only a regular file is taken over', async (t, place) => {
  // It takes root to mount it.
  if (!isRoot) return t.pass()
  const dir = place.make('mounted')
  const listening = createServer((socket) => socket.destroy()).listen(join(place.dir, 'listening'))
  await once(listening, 'listening')
  t.teardown(() => listening.close())
  chmodSync(join(place.dir, 'listening'), 0o777)
  const script = `mount --make-rprivate /; cd "$1"; echo text > ../file; mkfifo -m 666 ../fifo; mknod -m 666 ../zero c 1 5
    for name in file fifo zero listening; do touch $name; mount --bind ../$name $name; done`
  const look = `cat file; for name in fifo zero listening; do [ -f $name ] && [ ! -s $name ] || echo "taken $name"; done
    python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("listening")' 2> /dev/null && echo connected
    true`
  const { stdout, stderr } = await mounted(place, dir, script, ['--', 'sh', '-c', look])
  t.is(stdout, 'text\n', stderr)
})

unless(
  isRoot ? undefined : 'needs root',
  asUser,
  'a current directory that the user could not enter by its path is named',
  async (t, place) => {
    // Who is in it already can stay.
    mkdirSync(join(place.dir, 'closed'), { mode: 0o700 })
    mkdirSync(join(place.dir, 'closed/in'))
    const { uid, gid } = place.as
    const script = `cd closed/in && exec setpriv --reuid=${uid} --regid=${gid} --clear-groups "$@"`
    const command = [process.execPath, cli, 'run', '--network', 'none', '--', 'pwd']
    const { code, stderr } = await place.exec('sh', ['-c', script, 'sh', ...command], { as: root })
    t.is(code, 125, stderr)
    t.regex(stderr, /no permission to enter \S+\/closed\b.*\nhint: /)
  },
)

asRoot('a chroot whose root is no mount point is said to be one', async (t, place) => {
  // A bind mount of the tree, entered by a directory of it that holds all that is needed.
  place.make('all')
  const script = `mount --make-rprivate / && mount -t tmpfs t all && mkdir all/root && cd all/root &&
    for name in /*; do [ -L $name ] && cp -P $name . || { mkdir .$name && mount --rbind $name .$name; }; done 2>/dev/null
    exec chroot . "$0" "$1" run --network none -- true`
  const { code, stderr } = await place.exec('unshare', ['-m', 'sh', '-c', script, process.execPath, cli])
  t.is(code, 125, stderr)
  t.regex(stderr, /not a mount point, as in a chroot.*\nhint: .*mount --bind/)
})
