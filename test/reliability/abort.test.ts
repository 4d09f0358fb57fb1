// Containers that end before their time, and those that must not.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import test from 'ava'
import { type RunOptions, run } from '../../ts/index.ts'
import { busybox, containers, until } from '../helpers/host.ts'
import { cli } from '../helpers/product.ts'

const box = { rootfs: busybox(), network: 'none' } as const
const kinds: Record<string, RunOptions> = {
  'made by one clone': box,
  'made by an intermediate process': { ...box, monotonic: 100 },
  'with an init': { ...box, init: true },
}

for (const [kind, options] of Object.entries(kinds)) {
  test.serial(`an abort at any moment leaves no process: ${kind}`, async (t) => {
    await run('true', options)
    const from = performance.now()
    await run('true', options)
    const whole = performance.now() - from
    for (let round = 0; round < 100; round++) {
      const controller = new AbortController()
      const running = run('sleep', ['1000'], { ...options, signal: controller.signal, killSignal: 'SIGKILL' })
      const aborted = t.throwsAsync(running, { name: 'ExitError' })
      await new Promise((resolve) => setTimeout(resolve, (whole * 1.5 * round) / 100))
      controller.abort()
      await aborted
    }
    t.true(await until(() => containers().length === 0), containers().join())
  })
}

test.serial('another nsrs collects nothing of one that lives', async (t) => {
  const controller = new AbortController()
  const running = run('sleep', ['1000'], { ...box, signal: controller.signal, reject: false })
  t.true(await until(() => containers().length === 1))
  const { stdout } = await promisify(execFile)(cli, ['run', '--network', 'none', '--', 'echo', 'here'])
  t.is(stdout, 'here\n')
  t.is(containers().length, 1)
  controller.abort()
  t.true((await running).isCanceled)
})
