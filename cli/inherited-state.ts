// State that programs inherit from their caller and that Node hides. The shell in the first lines of the bundle
// (tsup.config.ts) passes it in environment variables, which are private to that shell and this process.

/**
 * The file descriptors that were open when nsrs was started. `undefined` if Node was started without that shell: then the
 * caller's descriptors can't be told from those that Node has opened.
 */
export function inheritedFds(): ReadonlySet<number> | undefined {
  const numbers = process.env.NSRS_CALLER_FDS
  delete process.env.NSRS_CALLER_FDS
  return numbers === undefined ? undefined : new Set(numbers.split(' ').map(Number))
}

/** The signals that were ignored when nsrs was started, as a bit mask whose lowest bit is signal 1. */
export function ignoredSignals(): number {
  const mask = peekIgnoredSignals()
  delete process.env.NSRS_IGNORED_SIGNALS
  return mask
}

/** The same, but leaves the variable for nsrs-image. */
export function peekIgnoredSignals(): number {
  return maskOf(process.env.NSRS_IGNORED_SIGNALS)
}

function maskOf(text: string | undefined): number {
  const mask = Number(text)
  return Number.isSafeInteger(mask) ? mask : 0
}
