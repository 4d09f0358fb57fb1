import type { HostFinding } from './binding.d.ts'
import { ask } from './internal/ask.ts'
import { native } from './native/load.ts'

export type { HostFinding }

/**
 * Tries out what containers can do on this host. A finding with the verdict `failure` means that they can't run; one that
 * is not `ok` usually has a `fix`.
 */
export function checkHost(): Promise<HostFinding[]> {
  return ask(
    (supervisor) => supervisor.examine(),
    (event) => event.examined,
  )
}

/** Whether nsrs can be called on this platform: it is Linux, and the addon loads. {@link checkHost} finds out more. */
export function isSupported(): boolean {
  try {
    native()
    return true
  } catch {
    return false
  }
}
