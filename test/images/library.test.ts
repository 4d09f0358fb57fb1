import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, createWriteStream, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import test, { type ExecutionContext } from 'ava'
import { ImageTask } from '../../ts/images/image-task.ts'
import { type ImageEvent, images, NsrsError } from '../../ts/index.ts'
import { temporary, until } from '../helpers/host.ts'
import {
  checkBlobs,
  digestOf,
  noRegistry,
  PASSWORD,
  publish,
  pulling,
  registry,
  slowed,
  source,
  tool,
  USER,
} from '../helpers/registry.ts'
import { skip } from '../helpers/skips.ts'
import { imageStore } from '../helpers/store.ts'

const missing = noRegistry()
let [address, slow, locked] = ['', '', '']

test.before(async () => {
  if (missing) return
  address = await registry()
  slow = await slowed(address, 2_000_000)
  locked = await registry({ isPrivate: true })
  publish(source(4_000_000, 3000), `${address}/box:1`)
})

/** A test with a store of its own; one after the other, for the store is named by the environment. */
function each(title: string, body: (t: ExecutionContext, store: string) => Promise<unknown>): void {
  if (missing) {
    skip(title, missing)
    return
  }
  test.serial(title, async (t) => {
    const { NSRS_IMAGE_DIR, HOME } = imageStore(t)
    Object.assign(process.env, { NSRS_IMAGE_DIR, HOME })
    await body(t, NSRS_IMAGE_DIR)
  })
}

async function collect(events: AsyncIterable<ImageEvent>): Promise<ImageEvent[]> {
  const all: ImageEvent[] = []
  for await (const event of events) all.push(event)
  return all
}

each('a pull is a promise of its result and tells what happens, in order', async (t) => {
  const reference = `${slow}/box:1`
  const pull = images.pull(reference)
  const events = await collect(pull)
  const { digest, image, present } = await pull
  t.deepEqual([digest, image, present], [digestOf(`${address}/box:1`), digest, false])
  t.deepEqual(events[0], { event: 'resolving', reference })
  const last = events.at(-1)
  t.true(last?.event === 'done' && last.digest === digest && last.milliseconds > 500)

  const layers = events.filter((event) => event.event === 'layer')
  const big = layers.filter(({ total }) => total > 4_000_000)
  t.is(new Set(layers.map(({ digest }) => digest)).size, 3)
  t.deepEqual([big[0]?.phase, big.at(-1)?.phase], ['waiting', 'done'])
  const loading = big.filter(({ phase }) => phase === 'downloading').map(({ current }) => current)
  t.true(loading.length > 3, 'it is told while it happens')
  t.deepEqual(
    loading,
    [...loading].sort((a, b) => a - b),
  )
  t.is((await images.pull(reference)).present, true)
})

each('everyone who iterates a pull hears all of it, also after its end', async (t) => {
  const pull = images.pull(`${slow}/box:1`)
  const all: ImageEvent[][] = await Promise.all([collect(pull), collect(pull), collect(pull)])
  all.push(await collect(pull), await collect(pull))
  for (const events of all) {
    t.deepEqual([events[0]?.event, events.at(-1)?.event], ['resolving', 'done'])
    const layers = events.filter((event) => event.event === 'layer')
    t.is(layers.filter(({ phase }) => phase === 'done').length, 3)
    const big = layers.filter(({ phase, total }) => phase === 'downloading' && total > 4_000_000)
    t.true(big.length > 0 && big.every(({ current }, at) => current >= (big[at - 1]?.current ?? 0)))
  }
  t.deepEqual(all[1], all[0], 'those who listen all along hear the same')
  t.deepEqual(all[4], all[3])
})

test('what is kept of a pull stays small, however long it takes', async (t) => {
  const task = new ImageTask(async (hear) => {
    for (let current = 0; current <= 10_000; current += 1) {
      hear({ event: 'layer', digest: 'a', phase: 'downloading', current, total: 10_000 })
      hear({ event: 'layer', digest: 'b', phase: 'downloading', current, total: 10_000 })
    }
    hear({ event: 'layer', digest: 'a', phase: 'done', current: 0, total: 0 })
    throw new Error('enough')
  })
  const heard: string[] = []
  const listen = async () => {
    for await (const event of task) if (event.event === 'layer') heard.push(`${event.digest} ${event.phase}`)
  }
  await t.throwsAsync(listen, { message: 'enough' })
  await t.throwsAsync(listen, { message: 'enough' })
  const once = ['a downloading', 'b downloading', 'a done']
  t.deepEqual(heard, [...once, ...once])
})

each('an abort ends a pull at once, and the store is as it should be', async (t, store) => {
  const controller = new AbortController()
  const pull = images.pull(`${slow}/box:1`, { signal: controller.signal })
  const reason = new Error('enough')
  await t.throwsAsync(
    async () => {
      for await (const event of pull) {
        if (event.event === 'layer' && event.phase === 'downloading' && event.current > 500_000)
          controller.abort(reason)
      }
    },
    { is: reason },
  )
  await t.throwsAsync(Promise.resolve(pull), { is: reason })
  t.deepEqual(await images.list(), [])
  checkBlobs(store)
  await images.pull(`${address}/box:1`)
  t.is((await images.inspect(`${address}/box:1`)).Unpacked, true)
  await t.throwsAsync(Promise.resolve(images.list({ signal: controller.signal })), { is: reason }, 'nothing is started')
})

each('kill -9 of Node ends its pull', async (t, store) => {
  const program = `import { images } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)}
    for await (const { event, phase } of images.pull('${slow}/box:1')) if (phase === 'downloading') console.log(event)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout, 'data')
  t.is(pulling(`${slow}/box:1`).length, 1)
  child.kill('SIGKILL')
  t.true(await until(() => pulling(`${slow}/box:1`).length === 0, 1000))
  t.deepEqual(await images.list(), [])
  checkBlobs(store)
})

each('images are listed, inspected, named, pushed and removed', async (t) => {
  const reference = `${address}/box:1`
  const { digest } = await images.pull(reference)
  await images.tag(reference, ['box', `${address}/other:2`])
  const list = await images.list()
  t.is(list.length, 3)
  t.deepEqual(
    (await images.list({ name: 'box' })).map(({ repository, tag, layers }) => [repository, tag, layers]),
    [['box', 'latest', 3]],
  )
  const details = await images.inspect('box')
  t.deepEqual([details.Digest, details.Config, details.Unpacked], [digest, { Env: ['A=b'], Cmd: ['/bin/sh'] }, true])
  t.true((await images.history('box')).filter(({ diffId }) => diffId !== null).length === 3)
  t.deepEqual(await images.push('box', { to: `${address}/third:3` }), { reference: `${address}/third:3`, digest })
  t.is(digestOf(`${address}/third:3`), digest)
  const error = await t.throwsAsync(Promise.resolve(images.remove(['nope', reference, 'neither'])), {
    instanceOf: NsrsError,
  })
  t.deepEqual(
    error?.errors.map(({ code }) => code),
    ['ERR_NSRS_IMAGE_NOT_FOUND', 'ERR_NSRS_IMAGE_NOT_FOUND'],
  )
  await images.tag('box', reference)
  t.deepEqual((await images.remove([reference, 'box'])).untagged, [reference, 'docker.io/library/box:latest'])
  t.deepEqual((await images.prune()).layers, 0)
  t.true((await images.prune({ all: true })).bytes > 4_000_000)
  t.deepEqual(await images.list(), [])
})

each('archives and trees come and go by streams and by paths', async (t) => {
  const directory = temporary()
  const at = (name: string) => join(directory, name)
  const reference = `${address}/box:1`
  await images.pull(reference)
  await images.save(reference, createWriteStream(at('docker.tar')))
  await images.save([reference], at('oci.tar'), { format: 'oci' })
  t.is(
    tool('skopeo', 'inspect', '--format', '{{.Architecture}}', `docker-archive:${at('docker.tar')}`).length > 0,
    true,
  )
  const [{ id } = { id: '' }] = await images.list()
  for (const source of [at('oci.tar'), createReadStream(at('docker.tar')), readFileSync(at('oci.tar'))]) {
    await images.prune({ all: true })
    const [loaded] = await images.load(source)
    t.deepEqual([loaded?.name, loaded?.id], [reference, id])
  }
  const through = new PassThrough()
  const [flat] = await Promise.all([buffer(through), images.export(reference, through)])
  await images.export(reference, at('flat.tar'))
  t.true(flat.equals(readFileSync(at('flat.tar'))))
  const imported = await images.import(flat, { name: 'flat', changes: ['CMD ["sh"]'], message: 'again' })
  t.is(imported.name, 'docker.io/library/flat:latest')
  t.deepEqual((await images.inspect('flat')).Config, { Cmd: ['sh'] })

  const broken = new Error('the disk is on fire')
  const failing = Readable.from(
    (async function* () {
      yield flat.subarray(0, 100_000)
      throw broken
    })(),
  )
  await t.throwsAsync(Promise.resolve(images.import(failing, { name: 'half' })), { is: broken })
  t.deepEqual(await images.list({ name: 'half' }), [])
  await t.throwsAsync(Promise.resolve(images.load(createReadStream(at('missing.tar')))), { code: 'ENOENT' })
  await t.throwsAsync(Promise.resolve(images.save(reference, createWriteStream(at('no/where')))), { code: 'ENOENT' })
})

each('login verifies, logout forgets', async (t) => {
  const login = { registry: locked, username: USER, password: PASSWORD }
  await t.throwsAsync(Promise.resolve(images.login({ ...login, password: 'wrong' })), { instanceOf: NsrsError })
  const kept = join(process.env.HOME ?? '', '.docker/config.json')
  t.false(existsSync(kept))
  t.deepEqual(await images.login(login), { registry: locked, user: USER, kept })
  t.is(await images.logout({ registry: locked }), true)
  t.is(await images.logout({ registry: locked }), false)
})

each('a failure is an NsrsError with what to do, told by the iterator too', async (t) => {
  await images.pull(`${address}/box:1`)
  await images.tag(`${address}/box:1`, 'toolbox')
  const error = await t.throwsAsync(Promise.resolve(images.inspect('tolbox')), { instanceOf: NsrsError })
  t.like(error, { code: 'ERR_NSRS_IMAGE_NOT_FOUND', step: 'find the image', exitCode: 125 })
  t.regex(error?.hint ?? '', /did you mean toolbox/)
  await t.throwsAsync(collect(images.pull('UPPER')), { message: /must be in lower case/ })
  const directory = temporary()
  writeFileSync(join(directory, 'no.tar'), 'this is no archive')
  await t.throwsAsync(Promise.resolve(images.load(join(directory, 'no.tar'))), { instanceOf: NsrsError })
})

test('wrong arguments are type errors that quote them', async (t) => {
  const wrong: [() => PromiseLike<unknown>, RegExp][] = [
    [() => images.pull(7 as unknown as string), /name of an image must be a non-empty string, got 7/],
    [() => images.pull('x', { platfrom: 'y' } as object), /unknown option platfrom; did you mean platform\?/],
    [
      () => images.pull('x', { jobs: 'many', unpack: 1 } as object),
      /option jobs must be an integer from 1 to 16, got "many"\noption unpack/,
    ],
    [() => images.pull('a\0b'), /name of an image must be a string without null characters, got "a\\u0000b"/],
    [() => images.pull('x', { platform: 'a\0b' }), /option platform must be a string without null characters, got/],
    [() => images.load('a\0b'), /source must be a path without null characters/],
    [() => images.save('x', 'a\0b'), /target must be a path without null characters/],
    [
      () => images.import('x', { changes: ['a', 'b\0'], name: '\0' }),
      /option changes must be an array of strings without null characters, got .*\noption name must be a string without/,
    ],
    [() => images.logout({ registry: '\0' }), /option registry must be a string without null characters/],
    ...[0, 17, 1.5, 99].map((jobs): [() => PromiseLike<unknown>, RegExp] => [
      () => images.push('x', { jobs }),
      new RegExp(`option jobs must be an integer from 1 to 16, got ${jobs}`),
    ]),
    [() => images.save('x', 7 as unknown as string), /target must be a path or a Writable, got 7/],
    [() => images.load(undefined as unknown as string), /source must be a path/],
    [() => images.login({ username: 'a', password: 'b\nc' }), /option password must be a line of text/],
    [() => images.login({ username: 'a' } as { username: string; password: string }), /option password must be/],
  ]
  for (const [call, message] of wrong) await t.throwsAsync(Promise.resolve(call()), { instanceOf: TypeError, message })
})
