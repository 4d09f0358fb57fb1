import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import test from 'ava'
import { Container, type ExitError, type NsrsError, run } from '../../ts/index.ts'
import { busybox, until } from '../helpers/host.ts'

const root = busybox()
const options = { rootfs: { dir: root }, network: 'none' } as const
const isRoot = process.getuid?.() === 0

/** What a process of a container is and may do. */
const CREDENTIALS = 'grep -E "^(Uid|Gid|Groups|Umask|NoNewPrivs|Cap...):" /proc/self/status; ulimit -n; env | sort'

test('a container that was prewarmed is entered as its own request says, not as another’s of its kind', async (t) => {
  const others = {
    env: { SECRET_OF_ANOTHER: 'x' },
    umask: '000',
    groups: ['7'],
    ulimits: ['nofile=77'],
    allowNewPrivileges: true,
  }
  for (let index = 0; index < 4; index++) {
    await run('true', { ...options, ...others })
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
  const own = { user: '1000:1000', umask: '077', groups: ['9'], env: { MINE: '1' }, ulimits: ['nofile=99'] }
  await using box = await Container.create(
    'sh',
    ['-c', `{ ${CREDENTIALS}; } > /tmp/part; mv /tmp/part /tmp/first; exec sleep 60`],
    {
      ...options,
      ...own,
      tmpfs: ['/tmp'],
    },
  )
  await using other = await Container.create('sleep', ['60'], { ...options, ...own })
  const first = await box.exec('sh', ['-c', 'until [ -e /tmp/first ]; do sleep 0.05; done; cat /tmp/first'])
  const plain = (text: string) => text.replace(/^(_|SHLVL|PWD|OLDPWD)=.*\n?/gm, '').trim()
  const expected = plain(first.stdout)
  t.regex(expected, /^MINE=1$/m)
  const entered = plain((await other.exec('sh', ['-c', CREDENTIALS])).stdout)
  t.is(entered, expected)
  t.regex(entered, /^NoNewPrivs:\t1$/m)
  t.regex(entered, /^99$/m)
  t.notRegex(entered, /SECRET/)
})

test('a time limit ends what the command has started, too', async (t) => {
  await using box = await Container.create(options)
  const start = performance.now()
  const limited = box.exec('sh', ['-c', 'echo out; sleep 61; true'], { timeout: 200 })
  const error = (await t.throwsAsync(limited)) as ExitError
  t.true(error.timedOut)
  t.is(error.stdout, 'out')
  t.true(performance.now() - start < 5000)
  t.notRegex((await box.exec('ps', ['-o', 'args'])).stdout, /sleep 61/)
})

test('a time limit and an abort hold for an output that others keep open', async (t) => {
  await using box = await Container.create(options)
  const lingering = ['-c', 'setsid sleep 62 & echo started']
  t.true(((await t.throwsAsync(box.exec('sh', lingering, { timeout: 300 }))) as ExitError).timedOut)
  const signal = AbortSignal.timeout(300)
  t.true(((await t.throwsAsync(box.exec('sh', lingering, { signal }))) as ExitError).isCanceled)
  const killed = box.exec('sh', ['-c', 'setsid sleep 63 & yes'], { maxBuffer: 1000 })
  t.true(((await t.throwsAsync(killed)) as ExitError).isMaxBuffer)
})

test('an input that fails ends the command, whoever else holds its output', async (t) => {
  t.timeout(20_000)
  await using box = await Container.create(options)
  const failing = (milliseconds: number) => {
    const input = new Readable({ read() {} })
    setTimeout(() => input.destroy(new Error('bad input')), milliseconds)
    return input
  }
  const running = box.exec('sh', ['-c', 'setsid sleep 64 & sleep 65; true'], { input: failing(200) })
  await t.throwsAsync(running, { message: 'bad input' })
  const over = box.exec('sh', ['-c', 'setsid sleep 66 & echo done'], { input: failing(500) })
  t.is((await over).stdout, 'done')
})

test('stop() asks what has entered, and lets nothing more in', async (t) => {
  const box = await Container.create(options)
  const asked = box.spawn('sh', ['-c', 'trap "echo bye; exit 3" TERM; echo ready; while :; do sleep 0.05; done'])
  const lines: string[] = []
  for await (const line of asked) {
    lines.push(line)
    if (line === 'ready') {
      const stopped = box.stop()
      const late = await t.throwsAsync<NsrsError>(box.exec('true'))
      t.is(late?.code, 'ERR_NSRS_CONTAINER_ENDED')
      t.like(await asked.wait(), { exitCode: 3 })
      t.like(await stopped, { exitCode: 0 })
    }
  }
  t.deepEqual(lines, ['ready', 'bye'])
})

test('whoever enters a container that has ended is told so, whatever step met it', async (t) => {
  for (const how of ['kill', 'stop'] as const) {
    const box = await Container.create(options)
    const all = Array.from({ length: 40 }, () =>
      box.exec('true').then(
        () => 'done',
        (error) => error.code ?? error.name,
      ),
    )
    if (how === 'kill') box.kill()
    else void box.stop()
    for (const outcome of await Promise.all(all)) {
      t.true(['done', 'ExitError', 'ERR_NSRS_CONTAINER_ENDED'].includes(outcome), `${how}: ${outcome}`)
    }
    await box.wait()
    const error = await t.throwsAsync<NsrsError>(box.exec('true'))
    t.is(error?.code, 'ERR_NSRS_CONTAINER_ENDED')
    t.regex(error?.hint ?? '', /create/)
  }
})

/** The numbers of the children of a process that have ended and that nobody has waited for. */
const zombies = (pid: string) =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter((child) => child !== '' && / Z /.test(readFileSync(`/proc/${child}/stat`, 'utf8')))

test('a container that ends while many enter it ends whole, and leaves no zombie', async (t) => {
  for (let index = 0; index < 12; index++) {
    const box = await Container.create(options)
    const all = Array.from({ length: 40 }, () => box.exec('true').catch(() => {}))
    if (index % 2) box.kill()
    else void box.stop()
    await Promise.all(all)
    await box.wait()
  }
  await using box = await Container.create(options)
  const supervisor = /^PPid:\t(\d+)/m.exec(readFileSync(`/proc/${box.pid}/status`, 'utf8'))?.[1] ?? ''
  t.true(await until(() => zombies(supervisor).length === 0), zombies(supervisor).join(' '))
})

test('a low limit of open files is the command’s, and not in the way of its start', async (t) => {
  await using box = await Container.create(options)
  const others = Array.from({ length: 30 }, () => box.spawn('sleep', ['60']))
  await Promise.all(others.map(({ ready }) => ready))
  const low = { ...options, ulimits: ['nofile=12'], user: 'root', init: true }
  t.is((await run('sh', ['-c', 'ulimit -n'], low)).stdout, '12')
  await using limited = await Container.create(low)
  t.is((await limited.exec('sh', ['-c', 'ulimit -n'], { user: 'root' })).stdout, '12')
})

test('in a joined PID namespace an init ends what comes of a command', async (t) => {
  await using a = await Container.create(options)
  // An ordinary user may join only what a user namespace of theirs owns.
  const users = isRoot ? {} : { userns: `ns:${a.pid}` }
  await using b = await Container.create({ ...options, ...users, pid: `ns:${a.pid}` })
  const sleeping = b.spawn('sleep', ['64'])
  t.truthy((await sleeping.ready).pid)
  b.kill()
  await b.wait()
  t.notRegex((await a.exec('ps', ['-o', 'args'])).stdout, /sleep 64/)
})

test('an entrypoint is a command', async (t) => {
  const error = await t.throwsAsync<NsrsError>(Container.create({ ...options, entrypoint: ['sleep', '60'] }))
  // Without an image there is no entrypoint to replace.
  t.is(error?.option, 'entrypoint')
})

test('the report of a command names the container', async (t) => {
  await using box = await Container.create(options)
  t.is((await box.exec('true')).container?.pid, box.pid)
})

test('wrong arguments are type errors', async (t) => {
  const create = Container.create as (...args: unknown[]) => Promise<Container>
  for (const args of [
    [null, options],
    [undefined, options],
    ['sleep', ['1'], null],
    [options, { user: 'ann' }],
    [{ tty: { cols: 1, rows: 1 } }],
    [{ rootfs: { dir: '' } }],
  ])
    await t.throwsAsync(create(...args), { instanceOf: TypeError }, JSON.stringify(args))
  await using box = await Container.create(options)
  const stop = box.stop.bind(box) as (options: unknown) => Promise<unknown>
  for (const wrong of [
    null,
    5000,
    { timeout: Number.NaN },
    { timeout: -1 },
    { timeout: 'x' },
    { timeout: 5n },
    { timout: 1 },
  ])
    await t.throwsAsync(stop(wrong), { instanceOf: TypeError })
  await t.throwsAsync(box.exec('cat', { stdin: 'pipe' as 'ignore' }), { instanceOf: TypeError, message: /input/ })
  const p = box.spawn('sleep', ['60'], { tty: { cols: 80, rows: 24 } })
  for (const size of [
    null,
    { cols: 0, rows: 1 },
    { cols: 80, rows: 'x' },
    { cols: 70_000, rows: 1 },
    { cols: 1.5, rows: 1 },
  ])
    t.throws(() => p.resize(size as never), { instanceOf: TypeError })
  p.kill('SIGKILL')
  await p.wait()
})

test('the time that stop() waits may be without an end', async (t) => {
  const box = await Container.create(options)
  t.like(await box.stop({ timeout: Number.POSITIVE_INFINITY }), { exitCode: 0 })
})

test('an abort while it is created is the abort', async (t) => {
  for (let index = 0; index < 5; index++) {
    const control = new AbortController()
    const created = Container.create({ ...options, signal: control.signal })
    const reason = new Error('enough')
    control.abort(reason)
    t.is(await t.throwsAsync(created), reason)
  }
  // None of these is prewarmed, and to make one takes more than a millisecond nearly always.
  const outcomes = await Promise.all(
    Array.from({ length: 10 }, (_, index) =>
      Container.create({ ...options, hostname: `late-${index}`, timeout: 1 }).then(
        (box) => box[Symbol.asyncDispose](),
        (error) => String(error.message),
      ),
    ),
  )
  t.true(outcomes.some((outcome) => /time limit/.test(outcome ?? '')))
})

const sparse = isRoot ? test : test.skip
sparse('a file of users without an end costs nobody more than a moment', async (t) => {
  await using box = await Container.create({ ...options, tmpfs: ['/etc'] })
  await box.exec('sh', ['-c', 'truncate -s 20G /etc/passwd'])
  const start = performance.now()
  await box.exec('true', { user: '5' })
  t.true(performance.now() - start < 5000)
})
