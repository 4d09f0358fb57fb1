import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import test from 'ava'
import { ExitError, NsrsError, run } from '../../ts/index.ts'
import { busybox, containers, openFiles, temporary, until } from '../helpers/host.ts'

const root = busybox()
const box = { rootfs: root, network: 'none' } as const

test('a command runs as PID 1 of its own container', async (t) => {
  const { stdout, exitCode, failed } = await run('sh', ['-c', 'echo $$'], box)
  t.is(stdout, '1')
  t.is(exitCode, 0)
  t.false(failed)
})

test("nothing but the command is needed: the root is the host's tree", async (t) => {
  const { stdout } = await run('sh', ['-c', 'test -d /usr && echo here'], { network: 'none' })
  t.is(stdout, 'here')
})

test('options may stand where the arguments would', async (t) => {
  t.is((await run('pwd', { ...box, workdir: '/etc' })).stdout, '/etc')
})

test('standard output and error are apart', async (t) => {
  const { stdout, stderr } = await run('sh', ['-c', 'echo out; echo err >&2'], box)
  t.deepEqual([stdout, stderr], ['out', 'err'])
})

test('only one newline at the end is left out', async (t) => {
  t.is((await run('printf', ['a\\n\\n'], box)).stdout, 'a\n')
  t.is((await run('printf', ['a\\n'], { ...box, stripFinalNewline: false })).stdout, 'a\n')
})

test('bytes stay bytes', async (t) => {
  const { stdout } = await run('printf', ['\\377\\000'], { ...box, encoding: 'buffer' })
  t.deepEqual([...stdout], [255, 0])
})

for (const [what, size] of [
  ['a few bytes', 10],
  ['more than a pipe holds', 3_000_000],
] as const) {
  test(`${what} go in and come out`, async (t) => {
    const input = 'x'.repeat(size)
    t.true((await run('cat', { ...box, input })).stdout === input)
    t.true((await run('cat', { ...box, input: Buffer.from(input) })).stdout === input)
    t.true((await run('cat', { ...box, input: Readable.from([input.slice(1), 'y']) })).stdout === `${input.slice(1)}y`)
  })
}

test('a command need not read its input', async (t) => {
  t.is((await run('true', { ...box, input: 'x'.repeat(1_000_000) })).exitCode, 0)
})

test('without input standard input is empty', async (t) => {
  t.is((await run('cat', box)).stdout, '')
})

test('an input that fails ends the container', async (t) => {
  const input = new Readable({
    read() {
      this.destroy(new Error('no more'))
    },
  })
  await t.throwsAsync(run('cat', { ...box, input }), { message: 'no more' })
})

test('an input that is closed before its end ends the container', async (t) => {
  const open = () => new Readable({ read() {} })
  t.timeout(20_000)
  const early = open()
  early.destroy()
  await t.throwsAsync(run('cat', { ...box, input: early }), { code: 'ERR_STREAM_PREMATURE_CLOSE' })
  const broken = open()
  broken.on('error', () => {}).destroy(new Error('no more'))
  await t.throwsAsync(run('cat', { ...box, input: broken }), { message: 'no more' })
  const late = open()
  late.push('x')
  setTimeout(() => late.destroy(), 100)
  await t.throwsAsync(run('cat', { ...box, input: late }), { code: 'ERR_STREAM_PREMATURE_CLOSE' })
})

test('an input that is closed when the command takes no more is no failure', async (t) => {
  const input = new Readable({ read() {} })
  input.push('one\n')
  const command = ['-c', 'head -n 1; exec <&-; exec sleep 600']
  const running = run('sh', command, { ...box, input, timeout: 500, reject: false })
  setTimeout(() => input.push('two\n'), 100)
  setTimeout(() => input.destroy(), 200)
  t.like(await running, { stdout: 'one', timedOut: true })
})

test.serial('an input that never ends holds nothing open when the command has ended', async (t) => {
  await run('true', [], { ...box, input: new Readable({ read() {} }) })
  const before = openFiles()
  for (let index = 0; index < 10; index++) await run('true', [], { ...box, input: new Readable({ read() {} }) })
  t.true(await until(() => openFiles() <= before, 3000), `${openFiles()} open files, ${before} before`)
})

test('an exit code that is not 0 rejects with the whole result', async (t) => {
  const error = await t.throwsAsync(run('sh', ['-c', 'echo out; echo why >&2; exit 7'], box), { instanceOf: ExitError })
  t.like(error, { exitCode: 7, signal: undefined, stdout: 'out', stderr: 'why', failed: true, name: 'ExitError' })
  t.is(error.message, "command failed with exit code 7: sh -c 'echo out; echo why >&2; exit 7'\nwhy")
  t.is(typeof error.container?.pid, 'number')
})

test('with reject: false it resolves', async (t) => {
  t.like(await run('false', { ...box, reject: false }), { exitCode: 1, failed: true })
})

test('a signal that ends the command has its name', async (t) => {
  const error = await t.throwsAsync(
    run('sh', ['-c', 'sh -c "kill -9 \\$PPID" & wait'], { ...box, init: true, reject: false }).then((result) => {
      throw Object.assign(new Error('result'), { result })
    }),
  )
  t.is((error as unknown as { result: { signal: string } }).result.signal, 'SIGKILL')
})

test('a time limit ends the command', async (t) => {
  const error = await t.throwsAsync(run('sleep', ['600'], { ...box, timeout: 100 }), { instanceOf: ExitError })
  t.like(error, { timedOut: true, isCanceled: false, exitCode: undefined, signal: 'SIGKILL' })
  t.true(error.durationMs >= 100 && error.durationMs < 60_000)
})

test('a time limit of 0 is none', async (t) => {
  t.is((await run('true', { ...box, timeout: 0 })).exitCode, 0)
})

/** For a command that tells by a file that it is up. */
function abortable() {
  const controller = new AbortController()
  const directory = temporary()
  return {
    controller,
    options: { ...box, signal: controller.signal, volumes: [`${directory}:/up`] },
    whenUp: () => until(() => existsSync(join(directory, 'file'))),
  }
}

test('an abort ends the command', async (t) => {
  const { controller, options, whenUp } = abortable()
  const running = run('sh', ['-c', 'echo > /up/file; exec sleep 600'], options)
  await whenUp()
  controller.abort(new Error('enough'))
  const error = await t.throwsAsync(running, { instanceOf: ExitError })
  t.like(error, { isCanceled: true, signal: 'SIGTERM' })
  t.is((error.cause as Error).message, 'enough')
})

test('an abort right away ends the command, too', async (t) => {
  const controller = new AbortController()
  const promise = run('sleep', ['600'], { ...box, signal: controller.signal, reject: false })
  controller.abort()
  t.true((await promise).isCanceled)
})

test('a command that ignores the signal of an abort is killed', async (t) => {
  const { controller, options, whenUp } = abortable()
  const script = 'trap "" TERM; echo > /up/file; while :; do sleep 1; done'
  const running = run('sh', ['-c', script], { ...options, forceKillAfter: 100, reject: false })
  await whenUp()
  controller.abort()
  const { signal, isCanceled } = await running
  t.deepEqual([signal, isCanceled], ['SIGKILL', true])
})

test('aborted before, nothing is started', async (t) => {
  await t.throwsAsync(run('true', { ...box, signal: AbortSignal.abort() }), { any: true, name: 'AbortError' })
})

test('a command that writes too much is killed', async (t) => {
  const error = await t.throwsAsync(run('yes', { ...box, maxBuffer: 1000 }), { instanceOf: ExitError })
  t.true(error.isMaxBuffer)
  t.is(error.stdout.length, 999)
})

test('usage and report tell what was', async (t) => {
  const { usage, durationMs, container, command } = await run('echo', ["it's", 'a b'], box)
  t.true(usage.maxRss > 0 && usage.userMs >= 0 && durationMs > 0)
  t.like(container, { network: 'none', addresses: [], ports: [] })
  t.is(command, "echo 'it'\\''s' 'a b'")
})

test('a command that is not there has a code of its own', async (t) => {
  const error = await t.throwsAsync(run('/bin/nope', box), { instanceOf: NsrsError })
  t.like(error, { code: 'ERR_NSRS_COMMAND_NOT_FOUND', exitCode: 127, name: 'NsrsError' })
})

test('several mistakes are told together', async (t) => {
  const error = await t.throwsAsync(run('true', { ...box, hostname: 'a b', capAdd: ['NOPE'], umask: '9' }), {
    instanceOf: NsrsError,
  })
  t.is(error.code, 'ERR_NSRS_INVALID_ARGUMENT')
  t.is(error.errors.length, 3)
  for (const wrong of ['a b', 'NOPE', '9']) t.true(error.message.includes(`"${wrong}"`), error.message)
})

test('wrong types are type errors that quote option and value', async (t) => {
  const options = { hostname: 5, envHost: 'yes', netwrok: 'none' } as never
  const error = await t.throwsAsync(run('true', options), { instanceOf: TypeError })
  t.deepEqual(error.message.split('\n'), [
    'option hostname must be a string, got 5',
    'option envHost must be a boolean, got "yes"',
    'unknown option netwrok; did you mean network?',
  ])
  await t.throwsAsync(run('' as never), { message: 'command must be a non-empty string, got ""' })
  await t.throwsAsync(run('true', [1] as never), { message: 'args[0] must be a string, got 1' })
  await t.throwsAsync(run('true', { killSignal: 'SIGTREM' }), {
    message: 'killSignal: unknown signal "SIGTREM"; did you mean SIGTERM?',
  })
  await t.throwsAsync(run('true', { killSignal: 'SIGFOO' }), { message: 'killSignal: unknown signal "SIGFOO"' })
})

test('more descriptors than can be passed are refused, and nothing is lost', async (t) => {
  const fds = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, index) => [index + 3, 1]))
  const error = await t.throwsAsync(run('true', { ...box, fds: fds(251) }))
  t.is((error as NsrsError).code, 'ERR_NSRS_INVALID_ARGUMENT')
  t.regex(error?.message ?? '', /fds.*251.*250/)
  t.is((await run('true', { ...box, fds: fds(250) })).exitCode, 0)
})

test('half a surrogate pair is no text', async (t) => {
  const error = await t.throwsAsync(run('echo', ['\ud800'], box), { instanceOf: NsrsError })
  t.is(error.code, 'ERR_NSRS_INVALID_ARGUMENT')
  t.regex(error.message, /not well-formed Unicode/)
})

test('a number that is larger than its kind is out of range, not another number', async (t) => {
  const error = await t.throwsAsync(run('true', { ...box, oomScoreAdj: 2 ** 32 }), { instanceOf: NsrsError })
  t.regex(error.message, /invalid oomScoreAdj/)
})

test("variables: a value, the caller's, and no other", async (t) => {
  process.env.NSRS_TEST_TOKEN = 'secret'
  const print = ['-c', 'echo "$A|$NSRS_TEST_TOKEN"']
  t.is((await run('sh', print, { ...box, env: { A: 'b=c' } })).stdout, 'b=c|')
  t.is((await run('sh', print, { ...box, env: { NSRS_TEST_TOKEN: undefined } })).stdout, '|secret')
  t.is((await run('sh', print, { ...box, envHost: true })).stdout, '|secret')
})

test('with a terminal, what the command writes is its output', async (t) => {
  const { stdout } = await run('sh', ['-c', 'tty; stty size'], { ...box, tty: { cols: 97, rows: 31 } })
  t.deepEqual(stdout.split('\r\n'), ['/dev/pts/0', '31 97'])
})

test("with a terminal and a user, the terminal is the user's", async (t) => {
  const script = 'stat -c %u "$(tty)" && echo by name > "$(tty)"'
  // For an ordinary user there may be no id but one.
  for (const user of process.getuid?.() === 0 ? ['0', '1000'] : ['0']) {
    const { stdout } = await run('sh', ['-c', script], { ...box, tty: { cols: 80, rows: 24 }, user })
    t.deepEqual(String(stdout).split(/\r?\n/), [user, 'by name'])
  }
})

test.serial('what somebody put into Object.prototype is no option and no variable', async (t) => {
  const polluted = Object.prototype as Record<string, unknown>
  polluted.user = 'nobody'
  polluted.timeout = 1
  polluted.POLLUTED = 'yes'
  let running: ReturnType<typeof run>
  try {
    running = run('env', [], { ...box, env: { OWN: 'own' } })
  } finally {
    delete polluted.user
    delete polluted.timeout
    delete polluted.POLLUTED
  }
  const { stdout } = await running
  t.regex(stdout, /^OWN=own$/m)
  t.notRegex(stdout, /POLLUTED/)
})

test('a directory that is named host is a directory', async (t) => {
  const error = await t.throwsAsync(run('true', { network: 'none', rootfs: { dir: 'host' } }), {
    instanceOf: NsrsError,
  })
  t.regex(error.message, /\/host/)
})

test('a root is one directory or one image, and what is undefined is not given', async (t) => {
  const of = (rootfs: object) => run('true', { network: 'none', pull: 'never', rootfs: rootfs as { dir: string } })
  for (const wrong of [{}, { dir: '' }, { image: '' }, { image: 'x:1', dir: '' }, { image: 'x:1', dir: root }])
    await t.throwsAsync(of(wrong), { instanceOf: TypeError, message: /^option rootfs must be .*one of/ })
  t.is((await of({ dir: root, image: undefined })).exitCode, 0)
  await t.throwsAsync(of({ image: 'nope.invalid/x:1', dir: undefined }), { code: 'ERR_NSRS_IMAGE_NOT_FOUND' })
})

test.serial('two hundred at once neither fail nor leak', async (t) => {
  await run('true', box)
  const before = openFiles()
  const results = await Promise.all(Array.from({ length: 200 }, (_, index) => run('echo', [`${index}`], box)))
  t.deepEqual(
    results.map(({ stdout }) => stdout),
    Array.from({ length: 200 }, (_, index) => `${index}`),
  )
  t.true(await until(() => openFiles() <= before), `${openFiles()} files are open, ${before} were before`)
  t.true(await until(() => containers().length === 0), containers().join())
})

test.serial('calls that fail leak nothing', async (t) => {
  await run('true', box)
  const before = openFiles()
  for (let index = 0; index < 20; index++) {
    await t.throwsAsync(run('/bin/nope', box))
    await t.throwsAsync(run('true', { ...box, hostname: ' ' }))
    await t.throwsAsync(run('true', { ...box, fds: { 3: 9999 } }))
  }
  t.true(await until(() => openFiles() <= before), `${openFiles()} files are open, ${before} were before`)
})
