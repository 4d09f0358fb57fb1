// Prewarmed containers on images.

import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { images, run } from '../../ts/index.ts'
import { busybox, prewarmed, temporary, until } from '../helpers/host.ts'
import { layout } from '../helpers/layout.ts'
import { number, prewarm } from '../helpers/prewarm.ts'

const store = join(temporary('nsrs-images-'), 'images')
process.env.NSRS_IMAGE_DIR = store
const box = { rootfs: { image: 'app' }, network: 'none', pull: 'never' } as const

/** An image `app` of two layers, the upper one with a file that says so. */
async function image(text: string): Promise<void> {
  const upper = temporary()
  writeFileSync(join(upper, 'text'), text)
  mkdirSync(join(upper, 'tmp'))
  const directory = temporary()
  layout(join(directory, 'oci'), [busybox(), upper])
  await images.load(join(directory, 'oci'), { name: 'app' })
}

/** A test with that image; one after the other, for there is one store. */
function each(title: string, body: (t: ExecutionContext) => Promise<unknown>): void {
  test.serial(title, async (t) => {
    await image('first')
    await body(t)
  })
}

each('a container on an image is prewarmed, and what one has changed no other finds', async (t) => {
  for (let times = 0; times < 3; times++) {
    const pid = await prewarm(box)
    const { stdout, container } = await run('sh', ['-c', 'cat /text; echo changed > /text; touch /new'], box)
    t.deepEqual([stdout, container?.pid], ['first', pid])
    t.is((await run('sh', ['-c', 'cat /text; ls /'], box)).stdout.includes('new'), false)
  }
})

each('it starts where the request says, in a directory that is made where there is none', async (t) => {
  const pid = await prewarm({ ...box, workdir: '/made/here' })
  const { stdout, container } = await run('pwd', [], { ...box, workdir: '/made/here' })
  t.deepEqual([stdout, container?.pid], ['/made/here', pid])
  await prewarm(box)
  t.is((await run('pwd', [], { ...box, workdir: '/another' })).stdout, '/another')
})

each('read-only and in memory it is as it must be', async (t) => {
  const options = { ...box, readOnly: true, rootfsTmpfs: true, tmpfs: ['/data'] }
  const pid = await prewarm(options)
  const { stdout, container } = await run('sh', ['-c', 'touch /new; touch /data/x && ls /data'], options)
  t.deepEqual([stdout, container?.pid], ['x', pid])
})

each('a name that leads to another image leads there at once', async (t) => {
  await prewarm(box)
  await image('second')
  t.is((await run('cat', ['/text'], box)).stdout, 'second')
})

each('an image that is removed leaves nothing behind, though the next container on it was made', async (t) => {
  const pid = await prewarm(box)
  await images.remove('app')
  t.deepEqual(readdirSync(join(store, 'layers')), [])
  t.true(await until(() => !prewarmed().map(number).includes(pid)))
  t.true(await until(() => readdirSync(join(store, 'containers')).length === 0))
  await t.throwsAsync(run('true', box), { code: 'ERR_NSRS_IMAGE_NOT_FOUND' })
})

each('layers that somebody takes away are missed at once', async (t) => {
  await run('true', { ...box, hostname: 'once' })
  for (const name of readdirSync(join(store, 'layers'))) rmSync(join(store, 'layers', name), { recursive: true })
  // Unpacked again, for the packed ones are still there.
  t.is((await run('cat', ['/text'], { ...box, hostname: 'again' })).stdout, 'first')
})
