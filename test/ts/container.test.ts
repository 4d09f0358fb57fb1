import { readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { Container, type ExitError, NsrsError } from '../../ts/index.ts'
import { busybox, containers, openFiles, temporary, until } from '../helpers/host.ts'

const root = busybox()
const options = { rootfs: { dir: root }, network: 'none' } as const

test('a container is entered again and again, and its commands share it', async (t) => {
  await using box = await Container.create(options)
  await box.exec('sh', ['-c', 'echo kept > /tmp/shared'])
  t.is((await box.exec('cat', ['/tmp/shared'])).stdout, 'kept')
  const namespaces = async () =>
    (await box.exec('sh', ['-c', 'for ns in /proc/self/ns/*; do readlink $ns; done'])).stdout
  const own = await namespaces()
  t.is(await namespaces(), own)
  for (const kind of ['mnt', 'pid', 'ipc', 'uts', 'net', 'cgroup']) {
    t.true(own.includes(readlinkSync(`/proc/${box.pid}/ns/${kind}`)), kind)
    t.false(own.includes(readlinkSync(`/proc/self/ns/${kind}`)), kind)
  }
})

test('its first process is an init that reaps and waits', async (t) => {
  await using box = await Container.create(options)
  await box.exec('sh', ['-c', '(sleep 0.05 &) ; exit 0'])
  const processes = async () => (await box.exec('ps', ['-o', 'pid,stat,comm'])).stdout
  await new Promise((resolve) => setTimeout(resolve, 200))
  const list = await processes()
  t.regex(list, /^ +1 /m)
  t.notRegex(list, / Z /)
})

test('the command that was given is its first process, and its end is the end of all', async (t) => {
  const box = await Container.create('sleep', ['4'], options)
  const inside = box.spawn('sleep', ['60'])
  t.is((await box.exec('sh', ['-c', 'cat /proc/1/comm'])).stdout, 'sleep')
  t.like(await inside.wait(), { signal: 'SIGKILL' })
  t.like(await box.wait(), { exitCode: 0 })
  const error = await t.throwsAsync(box.exec('true'), { instanceOf: NsrsError })
  t.regex(error?.message ?? '', /it has ended/)
})

test('results are those of run()', async (t) => {
  await using box = await Container.create({ ...options, env: { GIVEN: 'to all' } })
  const result = await box.exec('sh', ['-c', 'echo "$GIVEN $MORE"; echo err >&2; pwd; umask'], {
    env: { MORE: 'to one' },
    workdir: '/tmp',
    umask: '0027',
  })
  t.like(result, { stdout: 'to all to one\n/tmp\n0027', stderr: 'err', exitCode: 0, failed: false })
  t.is((await box.exec('sh', ['-c', 'echo "[$GIVEN]"'], { env: { GIVEN: undefined } })).stdout, '[]')
  t.is((await box.exec('cat', { input: 'through' })).stdout, 'through')
  t.deepEqual([...(await box.exec('printf', ['\\377'], { encoding: 'buffer' })).stdout], [255])
  const failed = (await t.throwsAsync(box.exec('sh', ['-c', 'exit 3']))) as ExitError
  t.is(failed.exitCode, 3)
  t.is((await t.throwsAsync<NsrsError>(box.exec('nowhere')))?.code, 'ERR_NSRS_COMMAND_NOT_FOUND')
  t.is((await t.throwsAsync<NsrsError>(box.exec('/etc')))?.code, 'ERR_NSRS_COMMAND_NOT_EXECUTABLE')
})

test('a user, a time limit, an abort, a signal, a terminal, descriptors', async (t) => {
  await using box = await Container.create(options)
  t.is((await box.exec('id', ['-u'], { user: '1000:1000', groups: ['29'] })).stdout, '1000')
  t.true(((await t.throwsAsync(box.exec('sleep', ['60'], { timeout: 50 }))) as ExitError).timedOut)
  const control = new AbortController()
  const aborted = box.exec('sleep', ['60'], { signal: control.signal })
  setTimeout(() => control.abort(), 50)
  t.true(((await t.throwsAsync(aborted)) as ExitError).isCanceled)
  const p = box.spawn('sleep', ['60'])
  await p.ready
  t.true(p.kill('SIGTERM'))
  t.like(await p.wait(), { signal: 'SIGTERM' })
  const tty = await box.exec('sh', ['-c', 'tty; stty size; sleep 0.1'], { tty: { cols: 91, rows: 17 } })
  t.regex(tty.stdout, /\/dev\/pts\/\d+/)
  const { fd } = await import('node:fs').then(({ openSync }) => ({ fd: openSync('/etc/hostname', 'r') }))
  t.is(
    (await box.exec('sh', ['-c', 'cat <&7'], { fds: { 7: fd } })).stdout,
    readFileSync('/etc/hostname', 'utf8').trim(),
  )
  t.regex((await box.exec('ls', ['-l', '/proc/self/fd'])).stdout, /(?!.*(socket|memfd|anon_inode))/)
})

test('what enters has the rights of the container, and no more', async (t) => {
  await using box = await Container.create({ ...options, capDrop: ['ALL'], ulimits: ['nofile=77'] })
  const { stdout } = await box.exec('sh', ['-c', 'grep -E "^(Cap|NoNewPrivs|Seccomp:)" /proc/self/status; ulimit -n'])
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) t.regex(stdout, new RegExp(`${set}:\t0+$`, 'm'))
  t.regex(stdout, /NoNewPrivs:\t1/)
  t.regex(stdout, /Seccomp:\t2/)
  t.regex(stdout, /^77$/m)
})

test('a conversation with a process in it, beside others', async (t) => {
  await using box = await Container.create(options)
  const cat = box.spawn('cat')
  const many = await Promise.all(Array.from({ length: 20 }, (_, index) => box.exec('echo', [String(index)])))
  t.deepEqual(
    many.map(({ stdout }) => stdout),
    Array.from({ length: 20 }, (_, index) => String(index)),
  )
  cat.stdin?.end('one\ntwo\n')
  const lines: string[] = []
  for await (const line of cat) lines.push(line)
  t.deepEqual(lines, ['one', 'two'])
})

test('stop() asks first and kills later', async (t) => {
  const polite = await Container.create(options)
  t.like(await polite.stop(), { exitCode: 0 })
  const deaf = await Container.create('sh', ['-c', 'trap "" TERM; while :; do sleep 0.1; done'], options)
  // The trap is set by the shell.
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.like(await deaf.stop({ timeout: 100 }), { signal: 'SIGKILL' })
})

test('nothing of it is left, whatever was in it', async (t) => {
  const before = openFiles()
  {
    await using box = await Container.create(options)
    for (let index = 0; index < 5; index++) box.spawn('sleep', ['60']).unref()
    await box.exec('sh', ['-c', '(setsid sleep 60 > /dev/null 2>&1 &)'])
  }
  t.true(await until(() => openFiles() <= before + 2), `${openFiles()} files, ${before} before`)
})

test('on every kind of root and network', async (t) => {
  const roots = [{ rootfs: { dir: root } }, { rootfs: 'host' }, { rootfs: { dir: root }, readOnly: true }] as const
  const networks = process.getuid?.() === 0 ? ['none', 'host', 'bridge'] : ['none', 'host']
  for (const kind of roots) {
    for (const network of networks) {
      await using box = await Container.create({ ...kind, network })
      t.is((await box.exec('echo', [network])).stdout, network, JSON.stringify(kind))
      const links = (await box.exec('sh', ['-c', 'ls /sys/class/net 2>/dev/null || cat /proc/net/dev'])).stdout
      t.regex(links, /lo/)
    }
  }
})

test('without a PID namespace of its own what enters and its descendants end with it', async (t) => {
  const mark = `${process.pid}.${Math.floor(Math.random() * 1e9)}`
  {
    await using box = await Container.create({ ...options, pid: 'host' })
    await box.exec('sh', ['-c', `(setsid sleep ${mark} > /dev/null 2>&1 &)`])
    box.spawn('sleep', [mark]).unref()
  }
  const runs = () => containers().some((line) => line.includes(mark))
  t.true(await until(() => !runs()))
})

test('in a worker thread, with which it ends', async (t) => {
  const file = join(temporary(), 'worker.mjs')
  const { writeFileSync } = await import('node:fs')
  writeFileSync(
    file,
    `import { parentPort } from 'node:worker_threads'
     import { Container } from '${join(import.meta.dirname, '../../dist/index.js')}'
     const box = await Container.create({ rootfs: { dir: '${root}' }, network: 'none' })
     parentPort.postMessage([box.pid, (await box.exec('echo', ['in a worker'])).stdout])
     setInterval(() => {}, 1000)`,
  )
  const worker = new Worker(file)
  const [pid, stdout] = await new Promise<[number, string]>((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
  })
  t.is(stdout, 'in a worker')
  await worker.terminate()
  const isThere = () => {
    try {
      return readFileSync(`/proc/${pid}/comm`, 'utf8') !== ''
    } catch {
      return false
    }
  }
  t.true(await until(() => !isThere()))
})

test('mistakes are told in the words of the call', async (t) => {
  await t.throwsAsync(Container.create({ rootfs: { dir: '/nonexistent' } }), { instanceOf: NsrsError })
  await t.throwsAsync(Container.create({ ...options, stdin: 'pipe' } as never), { message: /unknown option stdin/ })
  await using box = await Container.create(options)
  await t.throwsAsync(box.exec('true', { network: 'host' } as never), { message: /unknown option network/ })
  await t.throwsAsync(box.exec('', []), { message: /command must be a non-empty string/ })
  await t.throwsAsync(box.exec('true', { user: 'a b' }), { instanceOf: NsrsError })
  await t.throwsAsync(box.exec('true', { workdir: 'relative' }), { instanceOf: NsrsError })
})
