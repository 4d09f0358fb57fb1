/**
 * The descriptors that were open when nsrs was started. Node has opened some of its own by now, and looks the same from
 * inside; so the shell of the bundle's first lines takes them down (tsup.config.ts). `undefined` where Node was started
 * without it: there a number of Node's own can't be told from the caller's.
 */
export function inherited(): ReadonlySet<number> | undefined {
  const numbers = process.env.NSRS_CALLER_FDS
  // It is between the shell and us, and no variable of the caller.
  delete process.env.NSRS_CALLER_FDS
  return numbers === undefined ? undefined : new Set(numbers.split(' ').map(Number))
}
