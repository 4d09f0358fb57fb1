import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { NsrsError, type Process, spawn } from '../../ts/index.ts'
import { busybox, openFiles, temporary, until } from '../helpers/host.ts'

const root = busybox()
const box = { rootfs: root, network: 'none' } as const

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const item of items) list.push(item)
  return list
}

test('a conversation', async (t) => {
  const p = spawn('cat', box)
  p.stdin?.write('one\n')
  const lines = p.lines()
  t.is((await lines.next()).value, 'one')
  p.stdin?.end('two\nlast')
  t.deepEqual(await collect(lines), ['two', 'last'])
  t.like(await p.wait(), { exitCode: 0, signal: undefined })
})

test('lines of both streams', async (t) => {
  const p = spawn('sh', ['-c', 'echo out; echo err >&2'], box)
  t.deepEqual((await collect(p.lines({ from: 'all' }))).sort(), ['err', 'out'])
  t.deepEqual(await collect(spawn('sh', ['-c', 'echo ä; echo b >&2'], box).lines({ from: 'stderr' })), ['b'])
})

test('a process is iterated by lines', async (t) => {
  t.deepEqual(await collect(spawn('seq', ['3'], box)), ['1', '2', '3'])
})

test('leaving the loop closes the stream', async (t) => {
  const p = spawn('yes', box)
  for await (const line of p) {
    t.is(line, 'y')
    break
  }
  t.true(p.stdout?.destroyed)
  await p.wait()
})

test('the events', async (t) => {
  const p = spawn('true', box)
  const seen: string[] = []
  p.on('spawn', (report) => seen.push(`spawn ${report.pid === p.pid}`))
  p.on('exit', (exit) => seen.push(`exit ${exit.exitCode}`))
  await p.wait()
  t.deepEqual(seen, ['spawn true', 'exit 0'])
  t.is((await p.ready).pid, p.pid as number)
})

test('a signal by name and by number', async (t) => {
  for (const [signal, name] of [
    ['SIGINT', 'SIGINT'],
    ['TERM', 'SIGTERM'],
    [9, 'SIGKILL'],
  ] as const) {
    const p = spawn('sleep', ['600'], box)
    await p.ready
    t.true(p.kill(signal))
    t.is((await p.wait()).signal, name)
    t.false(p.kill())
  }
})

test('a signal that the command handles', async (t) => {
  const p = spawn('sh', ['-c', 'trap "echo got; exit 3" USR1; echo up; while :; do sleep 0.1; done'], box)
  const lines = p.lines()
  await lines.next()
  p.kill('SIGUSR1')
  t.deepEqual(await collect(lines), ['got'])
  t.is((await p.wait()).exitCode, 3)
})

test('an error that somebody waits for', async (t) => {
  const p = spawn('/bin/nope', box)
  await t.throwsAsync(p.wait(), { instanceOf: NsrsError, code: 'ERR_NSRS_COMMAND_NOT_FOUND' })
  await t.throwsAsync(p.ready, { instanceOf: NsrsError })
  await t.throwsAsync(collect(spawn('/bin/nope', box)), { instanceOf: NsrsError })
})

test('an error that somebody listens to', async (t) => {
  const p = spawn('/bin/nope', box)
  const error = await new Promise<Error>((resolve) => p.on('error', resolve))
  t.is((error as NsrsError).exitCode, 127)
})

test('disposal kills and waits', async (t) => {
  let kept: Process
  {
    await using p = spawn('sleep', ['600'], box)
    kept = p
    await p.ready
  }
  t.is((await kept.wait()).signal, 'SIGKILL')
})

test('an abort', async (t) => {
  const controller = new AbortController()
  const p = spawn('sleep', ['600'], { ...box, signal: controller.signal })
  await p.ready
  controller.abort()
  t.like(await p.wait(), { isCanceled: true, signal: 'SIGTERM' })
})

test('streams to files, and further descriptors', async (t) => {
  const directory = temporary()
  writeFileSync(join(directory, 'in'), 'from a file')
  const [input, output, extra] = ['in', 'out', 'extra'].map((name) =>
    openSync(join(directory, name), name === 'in' ? 'r' : 'w'),
  ) as [number, number, number]
  const options = { ...box, stdin: input, stdout: output, stderr: 'ignore', fds: { 7: extra } } as const
  const p = spawn('sh', ['-c', 'cat; echo seven >&7; ls /proc/self/fd'], options)
  t.deepEqual([p.stdin, p.stdout, p.stderr], [null, null, null])
  await p.wait()
  for (const fd of [input, output, extra]) closeSync(fd)
  t.is(readFileSync(join(directory, 'extra'), 'utf8'), 'seven\n')
  t.deepEqual(readFileSync(join(directory, 'out'), 'utf8').split('\n'), ['from a file0', '1', '2', '3', '7', ''])
})

test('a descriptor that is not open is named', async (t) => {
  for (const streams of [{ stdin: 9999 }, { stdout: 9999 }, { stderr: 9999 }, { fds: { 3: 9999 } }]) {
    const error = await t.throwsAsync(spawn('true', { ...box, ...streams }).wait(), { instanceOf: NsrsError })
    t.is(error.code, 'ERR_NSRS_INVALID_ARGUMENT')
    t.is(error.message, 'pass the file descriptor 9999: it is not open: bad file number (EBADF)')
  }
})

test('a terminal: size, input, resize, hang-up', async (t) => {
  const p = spawn(
    'sh',
    ['-c', 'trap "stty size" WINCH; echo up; while read -r line; do echo "<$line>"; done; echo end'],
    {
      ...box,
      tty: { cols: 80, rows: 24 },
    },
  )
  t.is(p.stdout, p.terminal)
  t.is(p.stderr, null)
  let text = ''
  p.terminal?.on('data', (chunk) => {
    text += chunk
  })
  p.terminal?.write('early\n')
  t.true(await until(() => text.includes('<early>')), text)
  p.resize({ cols: 100, rows: 40 })
  p.terminal?.write('next\n')
  t.true(await until(() => text.includes('40 100')), text)
  p.terminal?.end()
  t.is((await p.wait()).exitCode, 0)
  t.true(await until(() => text.includes('end')), text)
  t.true(await until(() => p.terminal?.destroyed === true || p.terminal?.readableEnded === true))
})

test('Ctrl-C on a terminal', async (t) => {
  const p = spawn('sh', ['-c', 'trap "exit 42" INT; echo up; while :; do sleep 0.1; done'], {
    ...box,
    tty: { cols: 80, rows: 24 },
  })
  for await (const line of p) if (line === 'up') break
  t.pass()
  await p[Symbol.asyncDispose]()
})

test('wrong arguments throw at once', (t) => {
  t.throws(() => spawn('true', { stdin: 'nope' } as never), {
    instanceOf: TypeError,
    message: "option stdin must be 'pipe', 'inherit', 'ignore' or a file descriptor, got \"nope\"",
  })
  t.throws(() => spawn('true', { signal: AbortSignal.abort() }), { any: true, name: 'AbortError' })
})

test.serial('streams that nobody asked for are closed', async (t) => {
  await spawn('true', box).wait()
  const before = openFiles()
  for (let index = 0; index < 20; index++) {
    await spawn('true', box).wait()
    const p = spawn('echo', box)
    t.truthy(p.stdout)
    await p.wait()
  }
  t.true(await until(() => openFiles() <= before), `${openFiles()} files are open, ${before} were before`)
})

test('what the command changed is in the exit, where it was asked for', async (t) => {
  const kept = join(temporary(), 'kept')
  const change = () => spawn('sh', ['-c', 'echo x > /changed'], { ...box, diff: true, upper: kept })
  t.deepEqual((await change().wait()).changes, [{ kind: 'added', path: '/changed', type: 'file' }])
  const again = spawn('cat', ['/changed'], { ...box, upper: kept })
  t.deepEqual(await collect(again.lines()), ['x'])
  t.is((await again.wait()).changes, undefined)
})
