import type { ErrorRecord } from '../binding.d.ts'

/**
 * nsrs could not do what was asked: an invalid value, an error from the kernel, a command that doesn't exist. No
 * container was made, or it has been removed.
 */
export class NsrsError extends Error {
  /** The kind of failure: `ERR_NSRS_…`. */
  readonly code: string
  /**
   * The act that failed, such as `resolve` for problems found before anything was touched, `image`, `mounts`, `user` or
   * `exec`. Unlike the wording of `step` it is stable.
   */
  declare readonly id?: string
  /** What was being done. */
  readonly step: string
  /** What it was done to, such as a path or the value of an option. */
  declare readonly subject?: string
  /** The option that caused it, such as `capAdd`. */
  declare readonly option?: string
  /** The error number, if a system call failed. Positive, as in errno(3). */
  declare readonly errno?: number
  /** Why, in words, unless the error number says it all. */
  declare readonly reason?: string
  /** What to do next, if known. */
  declare readonly hint?: string
  /** The exit code of the command line for this failure: 127 command not found, 126 not executable, otherwise 125. */
  readonly exitCode: number
  /** Every problem found in the call, this one first. */
  declare readonly errors: readonly ErrorRecord[]

  constructor(errors: readonly [ErrorRecord, ...ErrorRecord[]], options?: ErrorOptions) {
    const [first] = errors
    super(errors.map((error) => error.message).join('\n'), options)
    this.code = first.code
    this.step = first.step
    if (first.id !== undefined) this.id = first.id
    if (first.subject !== undefined) this.subject = first.subject
    if (first.option !== undefined) this.option = first.option
    if (first.errno !== undefined) this.errno = first.errno
    if (first.reason !== undefined) this.reason = first.reason
    if (first.hint !== undefined) this.hint = first.hint
    this.exitCode = first.exitCode
    Object.defineProperty(this, 'errors', { value: errors, enumerable: errors.length > 1 })
  }
}
NsrsError.prototype.name = 'NsrsError'

/** The error for what the addon reported: at least one record. */
export function fromRecords(records: readonly ErrorRecord[]): NsrsError {
  return new NsrsError(records as [ErrorRecord, ...ErrorRecord[]])
}

/** What is known of an error that arises in JavaScript, not in the addon. */
interface LocalError {
  id: string
  code: string
  step: string
  reason: string
  hint?: string
  cause?: unknown
}

/** An error that arises in JavaScript, not in the addon. */
export function localError({ cause, hint, ...rest }: LocalError): NsrsError {
  const record: ErrorRecord = { ...rest, message: `${rest.step}: ${rest.reason}`, exitCode: 125 }
  if (hint !== undefined) record.hint = hint
  return new NsrsError([record], cause === undefined ? {} : { cause })
}

/** What was asked for could not be set up. `id`: the act that failed, as in {@link NsrsError.id}. */
export function setUpError(id: string, step: string, reason: string, hint?: string): NsrsError {
  return localError({ id, code: 'ERR_NSRS_SETUP_FAILED', step, reason, ...(hint === undefined ? {} : { hint }) })
}
