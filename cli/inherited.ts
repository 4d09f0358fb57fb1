// What the caller hands on to every program, and Node doesn't tell any more: the shell of the bundle's first lines takes it
// down (tsup.config.ts). It is between the shell and us, and no variable of the caller.

/**
 * The descriptors that were open when nsrs was started. Node has opened some of its own by now, and looks the same from
 * inside. `undefined` where Node was started without that shell: there a number of Node's own can't be told from the
 * caller's.
 */
export function inheritedFds(): ReadonlySet<number> | undefined {
  const numbers = process.env.NSRS_CALLER_FDS
  delete process.env.NSRS_CALLER_FDS
  return numbers === undefined ? undefined : new Set(numbers.split(' ').map(Number))
}

/** The signals that were ignored when nsrs was started, as a mask: the lowest bit is signal 1. */
export function ignoredSignals(): number {
  const mask = peekIgnoredSignals()
  delete process.env.NSRS_IGNORED_SIGNALS
  return mask
}

/** The same, and they stay where nsrs-image finds them. */
export function peekIgnoredSignals(): number {
  return maskOf(process.env.NSRS_IGNORED_SIGNALS)
}

function maskOf(text: string | undefined): number {
  const mask = Number(text)
  return Number.isSafeInteger(mask) ? mask : 0
}
