import type { ContainerReport, ExitReport, NativeEvent } from '../binding.d.ts'
import { fromRecords } from '../errors/nsrs-error.ts'
import type { Terminal } from '../io/terminal.ts'
import { signalNumber } from '../options/signals.ts'
import type { ProcessOptions } from '../options/types.ts'
import { Canceler } from './canceler.ts'
import type { Launched } from './launch.ts'
import { connect, hold, type Listener, release } from './supervisor.ts'

const SIGTERM = 15
/** Milliseconds from an abort's signal to SIGKILL. */
const FORCE_KILL_AFTER = 5000

/** What a task does. */
export interface TaskSetup {
  /** Prepares what the launch needs, such as an image. `undefined`: it can be launched at once. */
  prepare: ((signal: AbortSignal) => Promise<void>) | undefined
  /** Asks for the process, in a container of its own or in another; its events go to the listener. */
  launch: (listener: Listener) => Launched
  /** The near side of its terminal, if it is given one. */
  terminal: Terminal | undefined
  options: Pick<ProcessOptions, 'signal' | 'killSignal' | 'forceKillAfter'>
}

/** A process that has ended. */
export interface Ended {
  /** `killed`: it was killed before its launch, and never ran. */
  kind: 'exited' | 'killed'
  exit: ExitReport
  /** The list of changes, as JSON. */
  changes: string | undefined
  /** What its container was given, if its start was not announced. */
  report: ContainerReport | undefined
  /** Its `AbortSignal` was aborted. */
  isCanceled: boolean
}

/** How a task ended. `failed`: an error of its preparation or start, or the reason of an abort before its launch. */
export type Outcome = Ended | { kind: 'failed'; error: unknown }

/** Receives the events of a task. */
export interface TaskObserver {
  /** The process was asked for; its pipes exist. */
  launched(launched: Launched): void
  /** The command runs, if the launch asked for the announcement. */
  started(report: ContainerReport): void
  /** The last call, made exactly once. */
  ended(outcome: Outcome): void
}

type State =
  | { name: 'created' }
  | { name: 'preparing'; control: AbortController; since: number }
  | { name: 'launched'; id: number; canceler: Canceler | undefined }
  | { name: 'ended' }

const ENDED: State = { name: 'ended' }

/** The reason to abort the preparation of a task that was killed. */
class Killed {
  constructor(readonly outcome: Outcome) {}
}

/** One process from the request to its end: prepared, launched, cancelled, ended. `run()` and `spawn()` stand on it. */
export class Task {
  #state: State = { name: 'created' }
  #isHeld = true
  readonly #killSignal: number | undefined
  readonly #setup: TaskSetup
  readonly #observer: TaskObserver

  /** @throws `TypeError` the option `killSignal` is not a signal. */
  constructor(setup: TaskSetup, observer: TaskObserver) {
    const { killSignal } = setup.options
    this.#killSignal = killSignal === undefined ? undefined : signalNumber(killSignal, 'killSignal')
    this.#setup = setup
    this.#observer = observer
  }

  /** Prepares and launches the process. Throws what the launch throws, if there is nothing to prepare. */
  begin(): void {
    const { prepare } = this.#setup
    if (prepare === undefined) this.#launch()
    else void this.#prepare(prepare)
  }

  /**
   * Sends a signal, by default `killSignal`; before the launch any signal but 0 ends the task. Returns false if it has ended.
   */
  kill(signal = this.#killSignal): boolean {
    const state = this.#state
    switch (state.name) {
      case 'launched':
        connect().kill(state.id, signal)
        return true
      case 'preparing':
        if (signal !== 0) state.control.abort(new Killed(killedBefore(signal ?? SIGTERM, state.since)))
        return true
      default:
        return false
    }
  }

  /** Keeps the event loop alive until the process ends; this is the default. */
  hold(): void {
    this.#isHeld = true
    if (this.#state.name === 'launched') hold(this.#state.id)
  }

  /** Lets the event loop end before the process does. */
  release(): void {
    this.#isHeld = false
    if (this.#state.name === 'launched') release(this.#state.id)
  }

  async #prepare(prepare: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const control = new AbortController()
    this.#state = { name: 'preparing', control, since: performance.now() }
    const { signal } = this.#setup.options
    const abort = () => control.abort(signal?.reason)
    signal?.addEventListener('abort', abort, { once: true })
    try {
      await prepare(control.signal)
      control.signal.throwIfAborted()
      this.#launch()
    } catch (error) {
      this.#end(error instanceof Killed ? error.outcome : { kind: 'failed', error })
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  #launch(): void {
    const { launch, options } = this.#setup
    const launched = launch((event) => this.#onEvent(event))
    const { signal, forceKillAfter = FORCE_KILL_AFTER } = options
    const canceler = signal && new Canceler(launched.id, signal, this.#killSignal, forceKillAfter)
    this.#state = { name: 'launched', id: launched.id, canceler }
    if (!this.#isHeld) release(launched.id)
    this.#observer.launched(launched)
  }

  #onEvent(event: NativeEvent): void {
    const state = this.#state
    if (state.name !== 'launched') return
    if (event.exited !== undefined) {
      this.#end({
        kind: 'exited',
        exit: event.exited,
        changes: event.changes,
        report: event.started,
        isCanceled: state.canceler?.isCanceled === true,
      })
    } else if (event.failed !== undefined) this.#end({ kind: 'failed', error: fromRecords(event.failed) })
    else if (event.terminal !== undefined) this.#setup.terminal?.attach(event.terminal)
    else if (event.started !== undefined) this.#observer.started(event.started)
  }

  #end(outcome: Outcome): void {
    const state = this.#state
    if (state.name === 'ended') return
    this.#state = ENDED
    if (state.name === 'launched') state.canceler?.stop()
    try {
      this.#observer.ended(outcome)
    } finally {
      this.#setup.terminal?.over()
    }
  }
}

/** The outcome of a task that is killed before its launch. */
function killedBefore(signal: number, since: number): Ended {
  const durationMs = performance.now() - since
  const exit = { signal, timedOut: false, durationMs, usage: { userMs: 0, systemMs: 0, maxRss: 0 } }
  return { kind: 'killed', exit, changes: undefined, report: undefined, isCanceled: false }
}
