import type { Result } from './result.ts'

/** A command that exited with a code other than 0, or was ended by a signal, its time limit or its `AbortSignal`. */
export interface ExitError<Output = string> extends Result<Output> {}

/** The error for a command that failed, with every field of its {@link Result}. */
export class ExitError<Output = string> extends Error {
  /** The message without the command's standard error. */
  declare readonly shortMessage: string

  constructor(shortMessage: string, result: Result<Output>, options?: ErrorOptions) {
    const stderr = typeof result.stderr === 'string' ? result.stderr : ''
    super(stderr === '' ? shortMessage : `${shortMessage}\n${stderr}`, options)
    Object.assign(this, result)
    Object.defineProperty(this, 'shortMessage', { value: shortMessage })
  }
}
ExitError.prototype.name = 'ExitError'
