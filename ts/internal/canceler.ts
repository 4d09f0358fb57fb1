import { signalNumber } from '../options/signals.ts'
import type { ProcessOptions } from '../options/types.ts'
import { connect } from './supervisor.ts'

const SIGKILL = 9
const PATIENCE = 5000

/** Ends a container when its `AbortSignal` says so. */
export class Canceler {
  isCanceled = false
  #timer: NodeJS.Timeout | undefined
  readonly #abort: () => void
  readonly #signal: AbortSignal

  constructor(id: number, signal: AbortSignal, options: ProcessOptions) {
    this.#signal = signal
    const { killSignal } = options
    const number = killSignal === undefined ? undefined : signalNumber(killSignal, 'killSignal')
    const patience = options.forceKillAfter ?? PATIENCE
    this.#abort = () => {
      this.isCanceled = true
      connect().kill(id, number)
      if (patience !== false && number !== SIGKILL) {
        this.#timer = setTimeout(() => connect().kill(id, SIGKILL), patience)
        this.#timer.unref()
      }
    }
    signal.addEventListener('abort', this.#abort, { once: true })
  }

  /** Why it was aborted. */
  get reason(): unknown {
    return this.#signal.reason
  }

  /** The container is gone. */
  stop(): void {
    clearTimeout(this.#timer)
    this.#signal.removeEventListener('abort', this.#abort)
  }
}
