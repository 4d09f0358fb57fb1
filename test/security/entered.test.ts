// Commands that enter a container and will not end as they should: the supervisor is their parent, and nobody else can be.

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { Container, type ExitError } from '../../ts/index.ts'
import { compile } from '../helpers/compile.ts'
import { busybox, until } from '../helpers/host.ts'

const root = busybox()
for (const name of ['sibling', 'traced']) compile(name, join(root, 'bin', name))
const options = { rootfs: { dir: root }, network: 'none' } as const

/** What settles within so many milliseconds; else an error, so that the test ends. */
async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T> {
  const late = sleep(milliseconds, undefined, { ref: false }).then(() => {
    throw new Error(`not settled after ${milliseconds} ms`)
  })
  return Promise.race([promise, late])
}

/** The lines of ps about the children of this process's supervisor. */
function children(): string[] {
  const list = (pid: string) => {
    try {
      const args = ['-o', 'pid=,stat=,comm=', '--ppid', pid]
      return execFileSync('ps', args, { encoding: 'utf8' }).trim().split('\n').filter(Boolean)
    } catch {
      return []
    }
  }
  const supervisor = list(String(process.pid)).find((line) => line.includes('nsrs'))
  return supervisor === undefined ? [] : list(supervisor.trim().split(' ')[0] ?? '')
}

test.serial(
  'a command that makes siblings leaves no zombies, and does not hold up the end of its container',
  async (t) => {
    const box = await Container.create(options)
    for (let index = 0; index < 20; index++) {
      const { stdout } = await within(5000, box.exec('sibling', [index % 2 ? 'now' : 'last']))
      t.is(stdout, 'made')
    }
    t.true(await until(() => children().every((line) => !/^ *\d+ Z/.test(line)), 3000), children().join('\n'))
    t.is(children().filter((line) => line.endsWith('sibling')).length, 10, 'those that wait live on')
    const start = performance.now()
    await within(8000, box.stop({ timeout: 1000 }))
    t.true(performance.now() - start < 3000)
    t.true(await until(() => children().every((line) => !line.endsWith('sibling')), 3000), children().join('\n'))
  },
)

test.serial('the end of the first process ends a container in which nothing but siblings are left', async (t) => {
  const box = await Container.create('sleep', ['2'], options)
  await within(5000, box.exec('sibling', ['last']))
  const { exitCode } = await within(8000, box.wait())
  t.is(exitCode, 0)
})

test.serial('a command that is traced by its own child settles with its exit code', async (t) => {
  await using box = await Container.create(options)
  for (const user of process.getuid?.() === 0 ? ['0', '1000'] : ['0']) {
    const error = (await t.throwsAsync(within(5000, box.exec('traced', { user, timeout: 3000 })))) as ExitError
    t.is(error.exitCode, 7, error.message)
    t.is(error.stdout, 'traced')
  }
  const spawned = box.spawn('traced')
  await spawned.ready
  t.is((await within(5000, spawned.wait())).exitCode, 7)
  // A supervisor that is told of an end again and again would be at work all the time.
  const cpu = () => execFileSync('ps', ['-o', 'cputimes=,comm=', '--ppid', String(process.pid)], { encoding: 'utf8' })
  const before = cpu()
  await sleep(2500)
  t.is(cpu(), before)
})

test.serial('a signal that kills a command kills what it has started', async (t) => {
  await using box = await Container.create(options)
  // What was killed takes its time to end on a busy machine.
  const isLeft = async (marker: string) => {
    for (let look = 0; look < 100; look++) {
      if (!(await box.exec('ps', ['-o', 'args'])).stdout.includes(marker)) return false
      await sleep(20)
    }
    return true
  }
  const killed = box.spawn('sh', ['-c', 'echo up; sleep 771; true'])
  await killed.ready
  await sleep(100)
  killed.kill('SIGKILL')
  await within(5000, killed.wait())
  t.false(await isLeft('sleep 771'))
  const controller = new AbortController()
  const aborted = box.exec('sh', ['-c', 'sleep 772; true'], { signal: controller.signal, killSignal: 'SIGKILL' })
  await sleep(100)
  controller.abort()
  await t.throwsAsync(within(5000, aborted))
  t.false(await isLeft('sleep 772'))
})

test.serial('nothing enters a container whose command was asked to end', async (t) => {
  const box = await Container.create(
    'sh',
    ['-c', 'trap "sleep 1; exit 3" TERM; echo up; while :; do sleep 0.1; done'],
    options,
  )
  await sleep(200)
  const stopped = box.stop()
  await t.throwsAsync(within(5000, box.exec('true')), { code: 'ERR_NSRS_CONTAINER_ENDED' })
  t.is((await within(8000, stopped)).exitCode, 3)
})
