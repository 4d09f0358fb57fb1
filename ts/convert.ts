import { resolve } from 'node:path'
import type { ContainerOptions as NativeOptions } from './binding.d.ts'
import type { ContainerOptions } from './options.ts'

/** The options as the addon takes them. Keys that are not its own do not disturb it. */
export function toNative(options: ContainerOptions): NativeOptions {
  const { rootfs, timeout, env } = options
  if (typeof rootfs !== 'object' && timeout === undefined && env === undefined) return options as NativeOptions
  const native = { ...options } as NativeOptions
  if (typeof rootfs === 'object' && 'dir' in rootfs) native.rootfs = resolve(rootfs.dir)
  // As with child_process, a limit of 0 is none.
  if (timeout) native.timeout = Math.ceil(timeout)
  else delete native.timeout
  if (env !== undefined) native.env = withNulls(env)
  return native
}

/** The addon does not see a variable that is `undefined`; `null` is what takes the caller's value there. */
function withNulls(env: Record<string, string | undefined>): Record<string, string> {
  const whole: Record<string, string | null> = {}
  for (const name in env) whole[name] = env[name] ?? null
  return whole as Record<string, string>
}
