import { Worker } from 'node:worker_threads'
import test from 'ava'
import { run } from '../../ts/index.ts'
import { busybox, containers, openFiles, until } from '../helpers/host.ts'

const root = busybox()
const library = new URL('../../dist/index.js', import.meta.url).href
const box = { rootfs: root, network: 'none' }

/** Runs a program in a worker thread, which posts one message. */
function inWorker(program: string, workerData?: unknown): { worker: Worker; message: Promise<unknown> } {
  const text = `
    import { parentPort } from 'node:worker_threads'
    import { run, spawn } from ${JSON.stringify(library)}
    const options = ${JSON.stringify(box)}
    ${program}
  `
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(text)}`), { execArgv: [], workerData })
  const message = new Promise((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
  })
  return { worker, message }
}

test('several workers and the main thread run containers at once', async (t) => {
  const program = `
    const results = await Promise.all([1, 2, 3].map((number) => run('echo', [String(number)], options)))
    parentPort.postMessage(results.map(({ stdout }) => stdout).join())
  `
  const workers = [1, 2, 3].map(() => inWorker(program).message)
  t.is((await run('echo', ['main'], box)).stdout, 'main')
  t.deepEqual(await Promise.all(workers), ['1,2,3', '1,2,3', '1,2,3'])
})

test('a worker warns of nothing that it closes', async (t) => {
  const program = `
    const warnings = []
    process.on('warning', (warning) => warnings.push(warning.message))
    for (let index = 0; index < 3; index++) await spawn('true', options).wait()
    await run('cat', [], { ...options, input: 'small' })
    await new Promise((resolve) => setTimeout(resolve, 100))
    parentPort.postMessage(warnings)
  `
  t.deepEqual(await inWorker(program).message, [])
})

test('a worker ends by itself when its containers have', async (t) => {
  const { worker, message } = inWorker("await run('true', options); parentPort.postMessage('done')")
  const exit = new Promise((resolve) => worker.once('exit', resolve))
  t.is(await message, 'done')
  t.is(await exit, 0)
})

test('a worker that is terminated takes its containers along', async (t) => {
  const { worker, message } = inWorker(
    "const p = spawn('sleep', ['600'], options); parentPort.postMessage((await p.ready).pid)",
  )
  const pid = await message
  t.is(typeof pid, 'number')
  await worker.terminate()
  t.true(await until(() => !containers().some((line) => line.startsWith(String(pid)))))
  t.is((await run('echo', ['still here'], box)).stdout, 'still here')
})

test('a worker does not wait for a main thread that is busy', async (t) => {
  await run('true', box)
  const flag = new Int32Array(new SharedArrayBuffer(4))
  const { worker, message } = inWorker(
    `
    import { workerData } from 'node:worker_threads'
    await run('true', options)
    Atomics.store(workerData, 0, 1)
    Atomics.notify(workerData, 0)
    parentPort.postMessage('done')
  `,
    flag,
  )
  await new Promise((resolve) => worker.once('online', resolve))
  t.not(Atomics.wait(flag, 0, 0, 30_000), 'timed-out')
  t.is(await message, 'done')
})

test('a worker that is terminated leaves no pipe of a container open', async (t) => {
  await run('true', box)
  const before = openFiles()
  for (let round = 0; round < 3; round++) {
    const { worker, message } = inWorker(
      "for (let n = 0; n < 5; n++) spawn('sleep', ['600'], options).on('error', () => {}); parentPort.postMessage('started')",
    )
    t.is(await message, 'started')
    await worker.terminate()
  }
  t.true(await until(() => openFiles() <= before), `${before} before, ${openFiles()} now`)
})
