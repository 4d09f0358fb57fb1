import { connect } from './supervisor.ts'

const SIGKILL = 9

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
        this.#timer = setTimeout(() => connect().kill(id, SIGKILL), forceKillAfter)
        this.#timer.unref()
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
