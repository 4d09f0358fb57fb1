import type { ErrorRecord } from '../binding.d.ts'

/**
 * nsrs could not do what it was asked for: a wrong value, a refusal of the kernel, a command that is not there. There
 * was no container, or nothing is left of it.
 */
export class NsrsError extends Error {
  /** `ERR_NSRS_…`, the kind of failure. */
  readonly code: string
  /** What was being done. */
  readonly step: string
  /** What it was done to: a path, an option with its value. */
  declare readonly subject?: string
  /** The kernel's error number, where the kernel refused. Positive, as in errno(3). */
  declare readonly errno?: number
  /** What to do next, where it is known. */
  declare readonly hint?: string
  /** What the CLI exits with: 127 command not found, 126 not executable, else 125. */
  readonly exitCode: number
  /** Every problem of the call, this one first. */
  declare readonly errors: readonly ErrorRecord[]

  constructor(errors: readonly [ErrorRecord, ...ErrorRecord[]], options?: ErrorOptions) {
    const [first] = errors
    super(errors.map((error) => error.message).join('\n'), options)
    this.code = first.code
    this.step = first.step
    if (first.subject !== undefined) this.subject = first.subject
    if (first.errno !== undefined) this.errno = first.errno
    if (first.hint !== undefined) this.hint = first.hint
    this.exitCode = first.exitCode
    Object.defineProperty(this, 'errors', { value: errors, enumerable: errors.length > 1 })
  }
}
NsrsError.prototype.name = 'NsrsError'

/** The error for what the addon told; there is always at least one record. */
export function fromRecords(records: readonly ErrorRecord[]): NsrsError {
  return new NsrsError(records as [ErrorRecord, ...ErrorRecord[]])
}

/** An error of this side of the addon. */
export function ownError(code: string, step: string, detail: string, more: { hint?: string; cause?: unknown } = {}) {
  const record: ErrorRecord = { code, step, message: `${step}: ${detail}`, exitCode: 125 }
  if (more.hint !== undefined) record.hint = more.hint
  return new NsrsError([record], more.cause === undefined ? {} : { cause: more.cause })
}
