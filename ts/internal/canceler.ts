import { connect } from './supervisor.ts'

const SIGKILL = 9
/** The longest delay of a timer; a longer one would be over at once. */
const MAX_DELAY = 2 ** 31 - 1

/** Calls back after this many milliseconds; after more than 24 days, never. */
export function later(callback: () => void, milliseconds: number): NodeJS.Timeout | undefined {
  return milliseconds > MAX_DELAY ? undefined : setTimeout(callback, milliseconds)
}

/** Ends a launched process when an `AbortSignal` is aborted: first by a signal, later by SIGKILL. */
export class Canceler {
  isCanceled = false
  #timer: NodeJS.Timeout | undefined
  readonly #signal: AbortSignal
  readonly #onAbort: () => void

  /** `killSignal`: default the container's own; `forceKillAfter`: milliseconds until SIGKILL, `false` for never. */
  constructor(id: number, signal: AbortSignal, killSignal: number | undefined, forceKillAfter: number | false) {
    this.#signal = signal
    this.#onAbort = () => {
      this.isCanceled = true
      connect().kill(id, killSignal)
      if (forceKillAfter !== false && killSignal !== SIGKILL) {
        this.#timer = later(() => connect().kill(id, SIGKILL), forceKillAfter)
        this.#timer?.unref()
      }
    }
    signal.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** Stops listening, as the process has ended. */
  stop(): void {
    clearTimeout(this.#timer)
    this.#signal.removeEventListener('abort', this.#onAbort)
  }
}
