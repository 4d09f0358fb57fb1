import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import { until } from '../helpers/host.ts'
import { layout } from '../helpers/layout.ts'
import { asEach, cli, isRoot, type Outcome, type Place, unless } from '../helpers/product.ts'
import { noRegistry, publish, pulling, registry, slowed, source } from '../helpers/registry.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

/** A test with an image `app` of BusyBox, whose configuration these instructions change. */
function withImage(title: string, changes: string[], body: (t: ExecutionContext, place: Place) => Promise<unknown>) {
  unless(noBusybox(), asEach, title, async (t, place) => {
    const options = changes.flatMap((change) => ['--change', change])
    await good(t, place.nsrs(['import', ...options, busyboxRoot(place), 'app']))
    await body(t, place)
  })
}

async function good(t: ExecutionContext, outcome: Promise<Outcome>): Promise<string> {
  const { code, stdout, stderr } = await outcome
  t.is(code, 0, stderr)
  return stdout
}

/** `nsrs run ARGS…`, of an image. */
function run(place: Place, ...args: string[]): Promise<Outcome> {
  return place.nsrs(['run', '--network', 'none', '--pull', 'never', ...args])
}

function containers(place: Place): string[] {
  const directory = join(place.images, 'containers')
  return existsSync(directory) ? readdirSync(directory) : []
}

/** What a container wrote is removed a moment after its end was told. */
async function nothingIsLeft(t: ExecutionContext, place: Place): Promise<void> {
  for (let tries = 0; tries < 100 && containers(place).length > 0; tries++) await sleep(50)
  t.deepEqual(containers(place), [])
}

/** A container that goes on until it is killed; resolves when its command runs. */
async function started(place: Place, ...args: string[]) {
  const { child, ended } = begun(place, '--pull', 'never', ...args)
  await new Promise((resolve) => child.stdout.once('data', resolve))
  return { child, ended }
}

/** `nsrs run ARGS…`, as soon as there is a process. */
function begun(place: Place, ...args: string[]) {
  const words = [process.execPath, cli, 'run', '--network', 'none', ...args]
  const { as, dir } = place
  const who = isRoot && as.uid !== 0 ? ['setpriv', `--reuid=${as.uid}`, `--regid=${as.gid}`, '--init-groups'] : []
  const [program = '', ...rest] = [...who, ...words]
  const { PATH, NSRS_NATIVE_DIR, NSRS_TEST_RUN } = process.env
  const own = { NSRS_STATE_DIR: place.state, NSRS_IMAGE_DIR: place.images, HOME: as.home }
  const env = { PATH: `${PATH}:/usr/sbin:/sbin`, NSRS_NATIVE_DIR, NSRS_TEST_RUN, ...own }
  const child = spawn(program, rest, { cwd: dir, env, stdio: ['pipe', 'pipe', 'pipe'] })
  child.stderr.on('data', () => {})
  return { child, ended: new Promise((resolve) => child.once('exit', resolve)) }
}

withImage(
  "an image's configuration is honoured, and what the caller says comes first",
  [
    'ENV A=image',
    'ENV B=image',
    'ENTRYPOINT ["/bin/sh", "-c"]',
    'CMD ["echo $A $B; pwd; id -un"]',
    'USER alice',
    'WORKDIR /made/here',
  ],
  async (t, place) => {
    t.is(await good(t, run(place, '-e', 'B=own', 'app')), 'image own\n/made/here\nalice\n')
    t.is(await good(t, run(place, 'app', 'id -u; echo $0')), '1000\n/bin/sh\n')
    t.is(await good(t, run(place, '-u', '0:0', '-w', '/tmp/a/b', 'app', 'id -u; pwd')), '0\n/tmp/a/b\n')
    t.is(await good(t, run(place, '--entrypoint', '/bin/echo', 'app', 'x')), 'x\n')
    t.is(await good(t, run(place, '--entrypoint', 'pwd', 'app')), '/made/here\n')
    t.is(await good(t, run(place, '--entrypoint', '', 'app', 'echo', 'y')), 'y\n')
    t.regex((await run(place, '--entrypoint', '', 'app')).stderr, /no command is given/)
    t.regex(await good(t, run(place, '--explain', 'app')), /\/bin\/sh -c 'echo \$A/)
    t.regex((await run(place, '--explain', '--entrypoint', '', 'app')).stderr, /no command is given/)
    // By the beginning of its id, too.
    const id = JSON.parse(await good(t, place.nsrs(['inspect', 'app'])))[0].Id.slice(7, 19)
    t.is(await good(t, run(place, id, 'echo by id')), 'by id\n')
    await nothingIsLeft(t, place)
  },
)

withImage('what a container changes is its own, and goes with it', [], async (t, place) => {
  const script = 'touch /x /etc/y; rm -r /work; mkdir -m 700 /d; touch /d/f; chown -R 1000:1000 /d; ls -d /x /etc/y'
  t.is(await good(t, run(place, 'app', 'sh', '-c', script)), '/etc/y\n/x\n')
  t.is(await good(t, run(place, 'app', 'ls', '-d', '/work')), '/work\n')
  t.is((await run(place, 'app', 'ls', '/x')).code, 1)
  const both = await Promise.all(
    [1, 2].map(() => run(place, 'app', 'sh', '-c', 'touch /n; sleep 0.3; ls / | grep -c n$')),
  )
  t.deepEqual(
    both.map(({ code, stderr }) => [code, stderr]),
    [0, 0].map((code) => [code, '']),
  )
  await nothingIsLeft(t, place)
})

// Each that starts collects what those that ended have left, and must leave alone what another is just making.
withImage("many that start and end on one image are in nobody's way", [], async (t, place) => {
  const lane = async () => {
    const outcomes: Outcome[] = []
    for (let round = 0; round < 10; round++) outcomes.push(await run(place, 'app', 'touch', '/x'))
    return outcomes
  }
  const outcomes = (await Promise.all([lane(), lane(), lane(), lane()])).flat()
  t.deepEqual(
    outcomes.filter(({ code }) => code !== 0).map(({ stderr }) => stderr),
    [],
  )
  await nothingIsLeft(t, place)
})

withImage('changes are kept in memory on request, and then nothing is on disk', [], async (t, place) => {
  const { child, ended } = await started(place, '--rootfs-tmpfs', 'app', 'sh', '-c', 'touch /x; ls /x; read go; exit 3')
  t.deepEqual(containers(place), [])
  child.stdin.end()
  t.is(await ended, 3)
})

withImage('changes can not be kept in memory and in a directory', [], async (t, place) => {
  const { code, stderr } = await run(place, '--rootfs-tmpfs', '--upper', 'kept', 'app', 'true')
  t.is(code, 125)
  t.regex(stderr, /combine --rootfs-tmpfs with --upper: .*\nhint: leave one of them out/)
  t.false(existsSync(join(place.dir, 'kept')))
})

withImage(
  'with --read-only only volumes are writable, and they start as they are',
  ['VOLUME /etc', 'VOLUME /data/new'],
  async (t, place) => {
    const script = 'touch /etc/x /data/new/y && ls /etc/passwd /etc/x /data/new; touch /z'
    const { code, stdout, stderr } = await run(place, '--read-only', '-w', '/not/there', 'app', 'sh', '-c', script)
    t.is(stdout, '/etc/passwd\n/etc/x\n\n/data/new:\ny\n')
    t.is(code, 1)
    t.regex(stderr, /z: Read-only/)
    t.is((await run(place, 'app', 'ls', '/etc/x')).code, 1)
    await nothingIsLeft(t, place)
  },
)

for (const [count, path] of [
  [10, ''],
  [140, 'a very long path/'.repeat(20)],
] as const) {
  const title = `${count} layers over each other, with whiteouts${path && ', in a store with a very long path'}`
  unless(noBusybox(), asEach, title, async (t, place) => {
    const env = { NSRS_IMAGE_DIR: join(place.images, path) }
    const layers = [busyboxRoot(place)]
    for (let index = 1; index < count; index++) {
      const layer = place.make(`layer${index}`)
      mkdirSync(join(layer, 'n'))
      writeFileSync(join(layer, 'n', `${index}`), '')
      writeFileSync(join(layer, 'n/top'), `${index}`)
      if (index % 2 === 0) writeFileSync(join(layer, 'n', `.wh.${index - 1}`), '')
      if (index === 5) writeFileSync(join(layer, 'n/.wh..wh..opq'), '')
      layers.push(layer)
    }
    layout(join(place.dir, 'oci'), layers)
    await good(t, place.nsrs(['load', '--name', 'many', join(place.dir, 'oci')], { env }))
    const kept = Array.from({ length: count }, (_, index) => index).filter(
      (index) => index >= 5 && (index === count - 1 || index % 2 === 0),
    )
    const script = 'ls /n | sort -n; cat /n/top'
    const stdout = await good(
      t,
      place.nsrs(['run', '--network', 'none', '--pull', 'never', 'many', 'sh', '-c', script], { env }),
    )
    t.deepEqual(stdout.split('\n'), ['top', ...kept.map(String), `${count - 1}`])
  })
}

unless(noBusybox(), asEach, 'an image that is not unpacked yet is unpacked first', async (t, place) => {
  // The upper layer says nothing of the directory that the lower one closes.
  const [lower, upper] = [busyboxRoot(place), place.make('upper')]
  mkdirSync(join(lower, 'closed'), { mode: 0o700 })
  place.own(join(lower, 'closed'))
  mkdirSync(join(upper, 'closed'))
  writeFileSync(join(upper, 'closed/in'), '')
  layout(join(place.dir, 'oci'), [lower, upper])
  await good(t, place.nsrs(['load', '--no-unpack', '--name', 'app', join(place.dir, 'oci')]))
  const never = await place.batch([
    { command: 'ls', args: ['/closed'], options: { rootfs: { image: 'app' }, pull: 'never' } },
    { command: 'ls', args: ['/closed'], options: { rootfs: { image: 'nope' }, pull: 'never' } },
  ])
  t.deepEqual(
    never.map(({ stdout, code }) => stdout || code),
    ['in', 'ERR_NSRS_IMAGE_NOT_FOUND'],
  )
})

unless(
  noBusybox(),
  asEach,
  'an image that is missing, or not there for the platform, is an error',
  async (t, place) => {
    layout(join(place.dir, 'oci'), [busyboxRoot(place)], {}, ['arm64', 'riscv64'])
    await good(t, place.nsrs(['load', '--name', 'other', join(place.dir, 'oci')]))
    for (const [args, message] of [
      [['othr', 'true'], /library\/othr:latest: not in the store\nhint: .*other.*nsrs run -- othr/],
      [
        ['--platform', 'linux/s390x', 'other', 'true'],
        /no image for linux\/s390x; available: linux\/arm64, linux\/riscv64/,
      ],
      [['--platform', 'a/b/c/d', 'other', 'true'], /invalid --platform "a\/b\/c\/d"/],
      [['UPPER', 'true'], /UPPER/],
    ] as const) {
      const { code, stderr } = await run(place, ...args)
      t.is(code, 125)
      t.regex(stderr, message)
    }
    // Where it could have been pulled, and nobody is there.
    await good(t, place.nsrs(['tag', 'other', '127.0.0.1:1/other']))
    const mistyped = await place.nsrs(['run', '127.0.0.1:1/othr', 'true'])
    t.is(mistyped.code, 125)
    t.regex(mistyped.stderr, /reach the registry[\s\S]*hint: did you mean 127.0.0.1:1\/other\?\nhint: nsrs run -- 127/)
    const explained = await good(t, run(place, '--platform', 'linux/riscv64', '--explain', 'other', 'true'))
    t.regex(explained, /platform +linux\/riscv64/)
  },
)

withImage('what a killed nsrs leaves is removed by the next one', [], async (t, place) => {
  const script = 'mkdir -m 700 /d; touch /d/f; chown -R 1000:1000 /d; echo up; sleep 100'
  const { child, ended } = await started(place, 'app', 'sh', '-c', script)
  t.is(containers(place).length, 1)
  child.kill('SIGKILL')
  await ended
  t.is(containers(place).length, 1)
  await good(t, run(place, 'app', 'true'))
  await nothingIsLeft(t, place)
})

withImage('a container keeps the layers it runs on, whatever is removed meanwhile', [], async (t, place) => {
  const { child, ended } = await started(place, 'app', 'sh', '-c', 'echo up; read go; ls /bin/busybox && exit 7')
  await good(t, place.nsrs(['rmi', 'app']))
  await good(t, place.nsrs(['image', 'prune']))
  t.is((await run(place, 'app', 'true')).code, 125)
  child.stdin.end('go\n')
  t.is(await ended, 7)
  await good(t, place.nsrs(['image', 'prune']))
  t.deepEqual(readdirSync(join(place.images, 'layers')), [])
})

withImage('the library runs an image as the command line does', ['ENV A=b', 'USER alice'], async (t, place) => {
  const job = { command: 'sh', args: ['-c', 'echo $A; id -un; touch /tmp/x'], options: { rootfs: { image: 'app' } } }
  const all = await place.batch([
    job,
    job,
    job,
    { ...job, options: { ...job.options, rootfsTmpfs: true, user: 'root' } },
  ])
  t.deepEqual(
    all.map(({ stdout, message }) => stdout || message),
    ['b\nalice', 'b\nalice', 'b\nalice', 'b\nroot'],
  )
  await nothingIsLeft(t, place)
})

unless(noRegistry(), asEach, 'an image that is missing is pulled', async (t, place) => {
  const reference = `${await registry()}/box:1`
  publish(source(), reference)
  const first = await place.nsrs(['run', '--network', 'none', reference, 'sh', '-c', 'echo $A'])
  t.is(first.stdout, 'b\n')
  t.regex(first.stderr, /sha256:/)
  t.deepEqual(await place.nsrs(['run', '--network', 'none', reference, 'sh', '-c', 'echo $A']), {
    ...first,
    stderr: '',
  })
  const always = await place.nsrs(['run', '--network', 'none', '--pull', 'always', '--quiet', reference])
  t.deepEqual([always.code, always.stderr], [0, ''])
  const [library] = await place.batch(
    [{ command: 'sh', args: ['-c', 'echo $A'], options: { rootfs: { image: reference } } }],
    {
      env: { NSRS_IMAGE_DIR: join(place.dir, 'another') },
    },
  )
  t.is(library?.stdout, 'b')
  const missing = await place.nsrs(['run', `${reference}23`, 'true'])
  t.is(missing.code, 125)
  t.regex(missing.stderr, /hint: nsrs run -- /)
})

asEach('what is wrong with a call is told before its image is pulled', async (t, place) => {
  // Nobody listens there.
  const image = '127.0.0.1:1/nothing:1'
  const long = 'x'.repeat(80)
  const wrong = ['--cap-add', 'FOO', '-v', 'rel', '-h', long]
  const { code, stderr } = await place.run([...wrong, image], { timeout: 20_000 })
  t.is(code, 125)
  for (const what of [/FOO/, /rel/, /hostname/]) t.regex(stderr, what)
  t.notRegex(stderr, /127\.0\.0\.1:1/)
  const options = { rootfs: { image }, capAdd: ['FOO'], hostname: long }
  const [done] = await place.batch([{ command: 'true', options }], { timeout: 20_000 })
  t.is(done?.code, 'ERR_NSRS_INVALID_ARGUMENT')
  t.regex(done?.message ?? '', /hostname.*FOO/s)
})

unless(noRegistry(), asEach, 'whatever ends nsrs run while it pulls ends the pull', async (t, place) => {
  const address = await registry()
  const reference = `${await slowed(address, 1_000_000)}/box:1`
  publish(source(8_000_000), `${address}/box:1`)
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGINT', 'SIGKILL'] as const) {
    const { child, ended } = begun(place, '--progress', 'json', reference, 'true')
    child.stderr.on('data', (text) => String(text).includes('downloading') && child.kill(signal))
    t.is(await ended, null)
    t.is(child.signalCode, signal)
    t.true(await until(() => pulling(reference).length === 0, 1000), signal)
  }
})

withImage(
  'what a command changes of an image is listed and kept, but never applied to its layers',
  ['VOLUME /volume/of/it'],
  async (t, place) => {
    const script = 'echo x > /new; rm /bin/cat'
    const first = await run(place, '--diff', '--upper', 'kept', 'app', 'sh', '-c', script)
    t.is(first.code, 0, first.stderr)
    t.deepEqual(first.stderr.trimEnd().split('\n'), ['D /bin/cat', 'A /new'])
    t.is(await good(t, run(place, '--upper', 'kept', 'app', 'sh', '-c', 'read x < /new; echo $x')), 'x\n')
    const thrown = await run(place, '--diff', 'app', 'sh', '-c', script)
    t.deepEqual(thrown.stderr.trimEnd().split('\n'), ['D /bin/cat', 'A /new'])
    const made = await run(
      place,
      '--diff',
      '-w',
      '/made/for/it',
      'app',
      'sh',
      '-c',
      'echo x > own; mkdir /made/more; echo > /volume/of/it/x',
    )
    t.deepEqual(made.stderr.trimEnd().split('\n'), [
      'A /made',
      'A /made/for',
      'A /made/for/it',
      'A /made/for/it/own',
      'A /made/more',
      'A /volume',
      'A /volume/of',
      'A /volume/of/it',
      'A /volume/of/it/x',
    ])
    const applied = await place.nsrs(['apply', '--yes', 'kept'])
    t.is(applied.code, 125)
    t.regex(applied.stderr, /the layers of an image can.t be changed/)
    t.is(await good(t, run(place, 'app', 'sh', '-c', 'test -e /bin/cat && test ! -e /new && echo clean')), 'clean\n')
    await nothingIsLeft(t, place)
  },
)
