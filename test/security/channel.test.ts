// A command that may trace its init has that one's end of the channel to the supervisor.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { Container, type Process, run, spawn } from '../../ts/index.ts'
import { compile } from '../helpers/compile.ts'
import { busybox } from '../helpers/host.ts'
import { has, isRoot } from '../helpers/product.ts'
import { skip } from '../helpers/skips.ts'

/** What a promise comes to in time. */
const within = <T>(ms: number, promise: Promise<T>) =>
  Promise.race([promise, sleep(ms).then(() => Promise.reject(new Error(`nothing came within ${ms} ms`)))])

/** The first thing that a process writes. */
const firstOutput = (process: Process) =>
  new Promise<string>((resolve) => process.stdout?.once('data', (data) => resolve(String(data))))

const attacks = {
  linger: 'a descriptor that takes long to close holds up no other container',
  stall: 'memory that never comes holds up no other container',
}

for (const [attack, title] of Object.entries(attacks)) {
  if (!has('cc')) skip(title, 'cc is missing')
  else if (attack === 'stall' && !isRoot) skip(title, 'needs root')
  else
    test.serial(title, async (t) => {
      const rootfs = busybox()
      compile('channel', join(rootfs, 'bin/channel'))
      const options = { rootfs: { dir: rootfs }, network: 'none' } as const

      const other = spawn('sleep', ['60'], { ...options, timeout: 3000 })
      await other.ready
      const box = await Container.create({ ...options, capAdd: ['SYS_PTRACE'] })
      const hostile = box.spawn('channel', [attack], { stdin: 'ignore', stderr: 'inherit' })
      const taken = await within(10_000, firstOutput(hostile))
      t.true(Number(taken) > 0, 'else this would have shown nothing')
      await sleep(200)

      t.is((await within(10_000, run('echo', ['new'], options))).stdout, 'new')
      t.like(await within(10_000, other.wait()), { timedOut: true })
      box.kill()
      // It may have been ended before, for what it wrote.
      await within(
        10_000,
        box.wait().catch(() => undefined),
      )
    })
}
