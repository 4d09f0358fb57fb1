// Errors about images name options and calls as their caller knows them.

import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { images, NsrsError } from '../../ts/index.ts'
import { nsrs } from '../helpers/cli.ts'
import { temporary, until } from '../helpers/host.ts'
import { imageStore } from '../helpers/store.ts'

test.serial('a wrong value of an option', async (t) => {
  const env = imageStore(t)
  Object.assign(process.env, env)
  const tree = join(temporary(), 'tree')
  mkdirSync(tree)
  const error = await t.throwsAsync(Promise.resolve(images.import(tree, { changes: ['NONSENSE x'] })), {
    instanceOf: NsrsError,
  })
  t.like(error, { id: 'image', option: 'changes', step: 'invalid changes' })
  t.truthy(error?.reason)
  t.is(error?.message, `invalid changes "NONSENSE x": ${error?.reason}`)
  const { stderr } = nsrs(['import', '--change', 'NONSENSE x', tree])
  t.true(stderr.startsWith(`nsrs: invalid --change "NONSENSE x": ${error?.reason}\n`), stderr)
})

test.serial('what to do next', async (t) => {
  Object.assign(process.env, imageStore(t))
  const error = await t.throwsAsync(Promise.resolve(images.inspect('none')), { instanceOf: NsrsError })
  t.is(error?.hint, 'images.list() lists what is in the store; images.pull() fetches an image')
  const hint = 'nsrs images lists what is in the store; nsrs pull fetches an image'
  t.true(nsrs(['inspect', 'none']).stderr.endsWith(`hint: ${hint}\n`))
})

test('events of the command line are in its words', (t) => {
  const { stderr } = nsrs(['pull', '--progress', 'json', '--jobs', 'many', 'x'], { env: imageStore(t) })
  const message = 'invalid --jobs "many": give a number from 1 to 16'
  t.like(JSON.parse(stderr), { event: 'error', id: 'image', option: 'jobs', message })
})

test.serial('an abort does not wait for a credential helper that hangs', async (t) => {
  t.timeout(20_000)
  const dir = temporary()
  Object.assign(process.env, imageStore(t), { PATH: `${dir}:${process.env.PATH}` })
  const [helper, authFile, started] = ['docker-credential-slow', 'auth.json', 'started'].map((name) => join(dir, name))
  writeFileSync(helper as string, `#!/bin/sh\necho $$ > ${started}; exec sleep 30`, { mode: 0o755 })
  writeFileSync(authFile as string, '{"credsStore":"slow"}')
  const controller = new AbortController()
  const logout = images.logout({ registry: 'localhost:1', authFile, signal: controller.signal })
  t.true(await until(() => existsSync(started as string)))
  controller.abort(new Error('enough'))
  await t.throwsAsync(Promise.resolve(logout), { message: 'enough' })
})
