// What an image's configuration asks of the host: ports, signals, volumes; and images where the kernel overlays nothing.

import { spawn } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { HOST, hostnet, noHostnet } from '../helpers/hostnet.ts'
import {
  asEach,
  asRoot,
  cli,
  exec,
  type Outcome,
  ok,
  type Place,
  place,
  project,
  root,
  unless,
} from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

async function image(place: Place, ...changes: string[]): Promise<void> {
  const options = changes.flatMap((change) => ['--change', change])
  const { code, stderr } = await place.nsrs(['import', ...options, busyboxRoot(place), 'app'])
  if (code !== 0) throw new Error(stderr)
}

const offline = ['run', '--network', 'none', '--pull', 'never']

unless(noBusybox() ?? noHostnet(), asRoot, '-P publishes what the image exposes, each on a free port', async (t) => {
  const net = hostnet(t)
  const box = place(t, root, net.host)
  await image(box, 'EXPOSE 80', 'EXPOSE 81/udp 82')
  const program = `
    import { run, spawn } from ${JSON.stringify(`${project}/dist/index.js`)}
    const options = { rootfs: { image: 'app' }, network: 'bridge', publishAll: true, publish: ['8082:82'] }
    const server = spawn('sh', ['-c', 'echo hello > /work/index.html; httpd -h /work -p 80; httpd -f -h /work -p 82'], options)
    const { ports } = await server.ready
    console.log(JSON.stringify(ports))
    await new Promise((resolve) => process.stdin.once('data', resolve))
    await server[Symbol.asyncDispose]()
    process.exit()`
  const inside = [`--net=/run/netns/${net.host}`, process.execPath, '--input-type=module', '-e', program]
  const child = spawn('nsenter', inside, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { PATH: process.env.PATH, NSRS_STATE_DIR: box.state, NSRS_IMAGE_DIR: box.images },
  })
  t.teardown(() => child.kill('SIGKILL'))
  const [line] = await new Promise<string[]>((resolve) =>
    createInterface({ input: child.stdout }).once('line', (...lines) => resolve(lines)),
  )
  const ports = JSON.parse(line ?? '[]') as string[]
  const [, first] = /(\d+):80\/tcp/.exec(line ?? '') ?? []
  t.is(ports.length, 3, line)
  t.regex(line ?? '', /81\/udp/)
  for (const port of [first, '8082']) {
    const fetch = `for try in 1 2 3 4 5 6 7 8 9; do busybox wget -qO- http://${HOST}:${port}/ && exit; sleep 0.1; done; exit 1`
    t.is(await ok('sh', ['-c', fetch], { netns: net.internet, as: root }), 'hello', `${port} of ${line}`)
  }
  child.stdin.end('over\n')
  await new Promise((resolve) => child.once('exit', resolve))
})

unless(
  noBusybox() ?? noHostnet(),
  asRoot,
  'the command line tells which ports were chosen, and no others',
  async (t) => {
    const net = hostnet(t)
    const box = place(t, root, net.host)
    await image(box, 'EXPOSE 80', 'EXPOSE 81/udp')
    const bridge = (...args: string[]) => box.nsrs(['run', '--network', 'bridge', ...args])
    const all = await bridge('-P', '-p', '8082:82', 'app', 'sh', '-c', 'sleep 0.3; echo own >&2')
    t.regex(all.stderr, /^nsrs: published [1-9]\d*:80\/tcp, [1-9]\d*:81\/udp\nown\n$/)
    const one = await bridge('-p', '127.0.0.1::80', '-p', '8081:81', 'app', 'true')
    t.regex(one.stderr, /^nsrs: published 127\.0\.0\.1:[1-9]\d*:80\/tcp\n$/)
    t.is((await bridge('-p', '8080:80', 'app', 'true')).stderr, '')
    t.is((await box.nsrs(['run', '-P', '--network', 'none', 'app', 'true'])).code, 125)
  },
)

unless(
  noBusybox(),
  asEach,
  'paths of the configuration that lead upwards are cleaned as docker does',
  async (t, place) => {
    await image(place, 'WORKDIR /../../made/./here/../there', 'VOLUME /../data')
    const { stdout, stderr } = await place.nsrs([...offline, 'app', 'sh', '-c', 'pwd; ls -d /data'])
    t.is(stdout, '/made/there\n/data\n', stderr)
    t.is((await place.nsrs([...offline, '-w', '/../own/../b', 'app', 'pwd'])).stdout, '/b\n')
  },
)

unless(
  noBusybox(),
  asEach,
  "what ends a command is the image's signal, unless the caller names one",
  async (t, place) => {
    await image(place, 'STOPSIGNAL SIGUSR1')
    const program = `
    import { spawn } from ${JSON.stringify(`${project}/dist/index.js`)}
    const trap = 'trap "echo usr1; exit" USR1; trap "echo term; exit" TERM; trap "echo int; exit" INT; echo up; while :; do sleep 0.01; done'
    for (const end of [(child) => child.kill(), (child) => child.kill('SIGINT'), (_, control) => control.abort()]) {
      const control = new AbortController()
      const child = spawn('sh', ['-c', trap], { rootfs: { image: 'app' }, network: 'none', signal: control.signal })
      for await (const line of child) {
        if (line === 'up') end(child, control)
        else console.log(line)
      }
    }`
    const env = { NSRS_STATE_DIR: place.state, NSRS_IMAGE_DIR: place.images }
    const args = ['--input-type=module', '-e', program]
    t.is(await ok(process.execPath, args, { as: place.as, cwd: place.dir, env }), 'usr1\nint\nusr1')
  },
)

unless(
  noBusybox(),
  asEach,
  'volumes of the image are there, writable, and may be taken by mounts',
  async (t, place) => {
    await image(place, 'VOLUME /data/new', 'VOLUME /etc')
    const own = place.make('own')
    writeFileSync(join(own, 'file'), 'own')
    const run = (...args: string[]): Promise<Outcome> => place.nsrs([...offline, ...args])
    const both = await run('app', 'sh', '-c', 'touch /data/new/x /etc/y && ls /data/new && head -n1 /etc/passwd')
    t.is(both.stdout, 'x\nroot:x:0:0:root:/root:/bin/sh\n', both.stderr)
    t.is((await run('app', 'ls', '/data/new')).stdout, '')
    const mounted = await run(
      '--read-only',
      '-v',
      `${own}:/data/new:ro`,
      'app',
      'sh',
      '-c',
      'cat /data/new/file; touch /data/new/x',
    )
    t.is(mounted.stdout, 'own')
    t.regex(mounted.stderr, /Read-only/)
  },
)

// On an overlay nothing can be overlaid that is to be written to.
unless(
  noBusybox(),
  asRoot,
  'where the kernel overlays nothing, an image is copied, and that is said',
  async (t, place) => {
    await image(place)
    for (const name of ['lower', 'over']) mkdirSync(join(place.dir, name))
    const script = `
    mount -t tmpfs tmpfs "$1/over" && mkdir "$1/over/upper" "$1/over/work"
    mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/over/upper,workdir=$1/over/work" "$1/lower"
    cp -a "$NSRS_IMAGE_DIR" "$1/lower/images" && export NSRS_IMAGE_DIR="$1/lower/images"
    node="$2" cli="$3" driver="$4"; shift 4
    "$node" "$cli" run --network none app sh -c 'echo changed > /etc/hostname; touch /new; ls /new /bin/busybox'
    "$node" "$cli" run --network none --read-only app sh -c 'ls /new || touch /new'
    "$node" "$cli" run --network none --diff app touch /listed
    "$node" "$cli" run --network none --diff --rootfs-tmpfs app touch /listed
    "$node" --input-type=module -e "$driver"
    sleep 0.5; ls -A "$NSRS_IMAGE_DIR/containers"`
    const driver = `
    import { run } from ${JSON.stringify(`${project}/dist/index.js`)}
    for (let times = 0; times < 4; times++) {
      const { stdout, container } = await run('sh', ['-c', 'ls /new; echo $$; touch /new'], { rootfs: { image: 'app' }, network: 'none', reject: false })
      console.log(stdout, container.notes.filter((note) => note.includes('copied')).length)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }`
    const env = { NSRS_STATE_DIR: place.state, NSRS_IMAGE_DIR: place.images }
    const args = ['-m', 'sh', '-c', script, 'sh', place.dir, process.execPath, cli, driver]
    const { code, stdout, stderr } = await exec('unshare', args, { env })
    t.is(code, 0, stderr)
    t.is(stdout, `/bin/busybox\n/new\n${'1 1\n'.repeat(4)}`, stderr)
    t.is(stderr.split('\n').filter((line) => /^nsrs: the image was copied, .*overlay/.test(line)).length, 2, stderr)
    t.regex(stderr, /touch: \/new: Read-only/)
    t.regex(stderr, /not supported as upperdir.*\nhint: --rootfs-tmpfs keeps the changes in memory.*\nA \/listed\n/)
    t.deepEqual(readdirSync(join(place.images, 'layers')).length, 1)
  },
)
