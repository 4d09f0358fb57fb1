// The states of a task, without a container: what is launched is a parameter.

import test from 'ava'
import type { NativeEvent } from '../../ts/binding.d.ts'
import type { Launched } from '../../ts/internal/launch.ts'
import { type Outcome, Task, type TaskSetup } from '../../ts/internal/task.ts'

const LAUNCHED: Launched = { id: 1, stdin: -1, stdout: -1, stderr: -1 }
const EXITED: NativeEvent = {
  id: 1,
  exited: { exitCode: 3, timedOut: false, durationMs: 1, usage: { userMs: 0, systemMs: 0, maxRss: 0 } },
}

/** A task that records what it calls, and that is sent events by hand. */
function record(setup: Partial<TaskSetup>) {
  const calls: string[] = []
  const outcomes: Outcome[] = []
  let send = (_: NativeEvent): void => {}
  let onEnd = () => {}
  const end = new Promise<void>((resolve) => {
    onEnd = resolve
  })
  const launch: TaskSetup['launch'] = (listener) => {
    send = listener
    return LAUNCHED
  }
  const task = new Task(
    { prepare: undefined, launch, terminal: undefined, options: {}, ...setup },
    {
      launched: () => calls.push('launched'),
      started: () => calls.push('started'),
      ended: (outcome) => {
        calls.push('ended')
        outcomes.push(outcome)
        onEnd()
      },
    },
  )
  return { task, calls, outcomes, end, send: (event: NativeEvent) => send(event) }
}

/** A preparation that only an abort ends. */
const forever = (signal: AbortSignal) =>
  new Promise<void>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))

test('a task is launched, started and ended, once', (t) => {
  const { task, calls, outcomes, send } = record({})
  t.false(task.kill(9), 'before it has begun there is nothing to kill')
  task.begin()
  send({ id: 1, started: { pid: 7, network: 'none', addresses: [], ports: [], notes: [] } })
  send(EXITED)
  send(EXITED)
  send({ id: 1, failed: [{ code: 'x', message: 'x', step: 'x', exitCode: 125 }] })
  t.deepEqual(calls, ['launched', 'started', 'ended'])
  t.like(outcomes[0], { kind: 'exited', exit: { exitCode: 3 }, isCanceled: false })
  t.false(task.kill(9))
})

test('what the launch throws is thrown, or is the outcome if something was prepared before', async (t) => {
  const launch = () => {
    throw new Error('no addon')
  }
  const direct = record({ launch })
  t.throws(() => direct.task.begin(), { message: 'no addon' })
  const prepared = record({ launch, prepare: async () => {} })
  prepared.task.begin()
  await prepared.end
  t.like(prepared.outcomes, [{ kind: 'failed', error: { message: 'no addon' } }])
  t.deepEqual([direct.calls, prepared.calls], [[], ['ended']])
})

test('a preparation that fails is the outcome', async (t) => {
  const { task, calls, outcomes, end } = record({ prepare: () => Promise.reject(new Error('no image')) })
  task.begin()
  await end
  t.deepEqual(calls, ['ended'])
  t.like(outcomes, [{ kind: 'failed', error: { message: 'no image' } }])
})

test('a task that is killed while it is prepared is not launched', async (t) => {
  const { task, calls, outcomes, end } = record({ prepare: forever, options: { killSignal: 'SIGINT' } })
  task.begin()
  t.true(task.kill(0), 'which ends nothing')
  t.true(task.kill())
  t.true(task.kill(9), 'the first signal counts')
  await end
  t.deepEqual(calls, ['ended'])
  t.like(outcomes, [{ kind: 'killed', exit: { signal: 2 } }])
  t.false(task.kill())
})

test('a kill at the end of the preparation still prevents the launch', async (t) => {
  const { task, calls, outcomes, end } = record({ prepare: async () => void task.kill(15) })
  task.begin()
  await end
  t.deepEqual(calls, ['ended'])
  t.like(outcomes, [{ kind: 'killed', exit: { signal: 15 } }])
})

test('an abort during the preparation is the outcome, with its reason', async (t) => {
  const control = new AbortController()
  const { task, calls, outcomes, end } = record({ prepare: forever, options: { signal: control.signal } })
  task.begin()
  control.abort(new Error('enough'))
  await end
  t.deepEqual(calls, ['ended'])
  t.like(outcomes, [{ kind: 'failed', error: { message: 'enough' } }])
})

test('a killSignal that is no signal is refused before anything is done', (t) => {
  t.throws(() => record({ options: { killSignal: 'SIGTREM' } }), { message: /did you mean SIGTERM\?/ })
})
