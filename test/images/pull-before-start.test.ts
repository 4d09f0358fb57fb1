// Containers on images that are pulled first.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { explain, images, run, spawn } from '../../ts/index.ts'
import { temporary, until } from '../helpers/host.ts'
import { noRegistry, publish, registry, slowed, source, tool } from '../helpers/registry.ts'
import { skip } from '../helpers/skips.ts'

const missing = noRegistry()
process.env.NSRS_IMAGE_DIR = join(temporary('nsrs-images-'), 'images')
let [address, slow] = ['', '']

test.before(async () => {
  if (missing) return
  address = await registry()
  slow = await slowed(address, 1_000_000)
  const image = source()
  tool('umoci', 'config', '--image', image.replace('oci:', ''), '--config.cmd', '-c', '--config.cmd', 'echo own $A')
  tool('umoci', 'config', '--image', image.replace('oci:', ''), '--config.entrypoint', '/bin/sh')
  publish(image, `${address}/own:1`)
  publish(image, `${address}/own:2`)
  publish(source(), `${address}/box:1`)
})

const network = 'none' as const
const box = () => ({ rootfs: { image: `${address}/box:1` }, network })
/** An image that takes a second or more to pull. */
const late = () => ({ rootfs: { image: `${slow}/box:1` }, network })

/** A test with an empty store; one after the other, for the store is one. */
function each(title: string, body: (t: ExecutionContext) => Promise<unknown>): void {
  if (missing) {
    skip(title, missing)
    return
  }
  test.serial(title, async (t) => {
    const there = (await images.list()).flatMap(({ name }) => name ?? [])
    if (there.length > 0) await images.remove(there)
    await body(t)
  })
}

each('run() pulls an image that is missing, and runs the command that is its own', async (t) => {
  const own = { rootfs: { image: `${address}/own:1` }, network }
  const { stdout, command } = await run(own)
  t.deepEqual([stdout, command], ['own b', `${address}/own:1`])
  t.deepEqual(Buffer.from((await run({ ...own, encoding: 'buffer' })).stdout).toString(), 'own b')
  t.is((await run({ ...own, entrypoint: ['/bin/busybox', 'echo', 'mine'] })).stdout, 'mine')
  t.is((await run('-c', ['echo $0 other', 'x'], own)).stdout, 'x other')
  t.regex((await explain(own)).text, /echo own/)
})

each('without an image there has to be a command, and an image has to have one', async (t) => {
  await t.throwsAsync(run({ network } as never), { message: /^command must be a non-empty string, got \{/ })
  t.throws(() => spawn({ rootfs: '/' } as never), { message: /^command must be/ })
  await t.throwsAsync(run({ ...box(), entrypoint: [] }), { message: /no command is given/ })
})

each('spawn() pulls an image that is missing, and what was said to the command meanwhile reaches it', async (t) => {
  const child = spawn('/bin/busybox', ['sh', '-c', 'echo up; read a; echo $a >&2; cat'], late())
  t.is(child.pid, undefined)
  child.stdin?.end('early\nlater\n')
  const [out, err] = await Promise.all(
    [child.stdout, child.stderr].map(async (stream) => Buffer.concat((await stream?.toArray()) ?? []).toString()),
  )
  t.deepEqual([out, err], ['up\nlater\n', 'early\n'])
  t.is((await child.wait()).exitCode, 0)
  t.true((await child.ready).pid > 0)
  const lines: string[] = []
  await images.remove(late().rootfs.image)
  for await (const line of spawn('sh', ['-c', 'echo a; echo b; exit 3'], late())) lines.push(line)
  t.deepEqual(lines, ['a', 'b'])
})

each('spawn() of an image alone runs its command, with a terminal too', async (t) => {
  const own = { rootfs: { image: `${address}/own:2` }, network }
  const child = spawn({ ...own, tty: { cols: 80, rows: 24 } })
  const text: Buffer[] = []
  child.terminal?.on('data', (chunk: Buffer) => text.push(chunk))
  t.is((await child.wait()).exitCode, 0)
  t.true(await until(() => Buffer.concat(text).toString() === 'own b\r\n'))
})

each('with pull: never nothing is fetched, with always the name is looked up again', async (t) => {
  await t.throwsAsync(spawn({ ...box(), pull: 'never' }).wait(), { code: 'ERR_NSRS_IMAGE_NOT_FOUND' })
  const moved = { rootfs: { image: `${address}/moved:1` }, network }
  publish(source(), `${address}/moved:1`)
  t.is((await run('/bin/busybox', ['echo', 'one'], moved)).stdout, 'one')
  publish(source(1), `${address}/moved:1`)
  const look = ['sh', '-c', 'ls /noise0 || echo old'] as const
  t.is((await run('/bin/busybox', look, moved)).stdout, 'old')
  const child = spawn('/bin/busybox', look, { ...moved, pull: 'always' })
  const lines: string[] = []
  for await (const line of child) lines.push(line)
  t.deepEqual(lines, ['/noise0'])
})

each('what can not be pulled is told as an error of the process, and its streams end', async (t) => {
  const child = spawn({ ...box(), rootfs: { image: `${address}/nope:1` } })
  const output = child.stdout?.toArray()
  await t.throwsAsync(child.wait(), { code: 'ERR_NSRS_IMAGE_NOT_FOUND' })
  t.deepEqual(await output, [])
  const heard = new Promise<Error>((resolve) => spawn({ rootfs: { image: `${address}/nope:2` } }).on('error', resolve))
  t.regex((await heard).message, /nope:2/)
})

each('an abort, a kill or a disposal ends the pull', async (t) => {
  const since = performance.now()
  const aborted = spawn({ ...late(), signal: AbortSignal.timeout(100) })
  await t.throwsAsync(aborted.wait(), { any: true, name: 'TimeoutError' })
  const killed = spawn(late())
  await sleep(50)
  t.true(killed.kill(0))
  t.true(killed.kill())
  const { exitCode, signal, isCanceled } = await killed.wait()
  t.deepEqual([exitCode, signal, isCanceled], [undefined, 'SIGTERM', false])
  await t.throwsAsync(killed.ready, { code: 'ERR_NSRS_SETUP_FAILED', message: /interrupted by SIGTERM/ })
  t.false(killed.kill())
  {
    await using disposed = spawn(late())
    t.is(disposed.pid, undefined)
  }
  const deaf = spawn(late())
  deaf.kill()
  await sleep(300)
  t.true(performance.now() - since < 1500)
  t.deepEqual(await images.list(), [])
})
