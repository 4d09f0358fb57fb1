// Aborts at any moment of a start.

import test from 'ava'
import { type RunOptions, run } from '../../ts/index.ts'
import { busybox, containers, until } from '../helpers/host.ts'

const box = { rootfs: busybox(), network: 'none' } as const
const kinds: Record<string, RunOptions> = {
  'made from one clone': box,
  'made by a stage': { ...box, monotonic: 100 },
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
