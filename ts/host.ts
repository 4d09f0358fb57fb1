import type { HostFinding } from './binding.d.ts'
import { ask } from './internal/ask.ts'
import { native } from './native/load.ts'

export type { HostFinding }

/**
 * Finds out, by trying, what containers can do on this host. A finding with the verdict `failure` means that they can't
 * run; each that is not `ok` says what to do.
 */
export function checkHost(): Promise<HostFinding[]> {
  return ask(
    (supervisor) => supervisor.examine(),
    (event) => event.examined,
  )
}

/** Whether this platform has what nsrs needs to be called at all: Linux, and the addon. {@link checkHost} tells more. */
export function isSupported(): boolean {
  try {
    native()
    return true
  } catch {
    return false
  }
}
