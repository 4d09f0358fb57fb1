import { resolve } from 'node:path'
import type { ContainerRequest, ContainerOptions as NativeOptions } from '../binding.d.ts'
import type { AnyOptions, ContainerOptions } from '../options/types.ts'
import { callerInfo } from './caller-info.ts'

/** The options that the addon doesn't take. A new one does not compile until it is listed here. */
const LOCAL_OPTIONS: Record<Exclude<keyof AnyOptions, keyof NativeOptions>, true> = {
  pull: true,
  stdin: true,
  stdout: true,
  stderr: true,
  fds: true,
  signal: true,
  killSignal: true,
  forceKillAfter: true,
  input: true,
  reject: true,
  encoding: true,
  maxBuffer: true,
  stripFinalNewline: true,
}

/** A call as the JSON that the addon takes. Standard streams default to /dev/null. */
export function toRequest(
  args: string[],
  options: ContainerOptions,
  { stdio, pass = [], passAs = [], announce = false }: Partial<Omit<ContainerRequest, 'args' | 'options' | 'caller'>>,
): string {
  const request = {
    args,
    options: toNative(options),
    caller: callerInfo(options),
    stdio: stdio ?? [IGNORE, IGNORE, IGNORE],
    pass,
    passAs,
    announce,
  } satisfies ContainerRequest
  return JSON.stringify(request)
}

/** The addon's number for /dev/null. */
export const IGNORE = -2

/** The options as the addon takes them. */
function toNative(options: ContainerOptions): NativeOptions {
  const native: Record<string, unknown> = {}
  for (const key in options) {
    if (!Object.hasOwn(LOCAL_OPTIONS, key)) native[key] = options[key as keyof ContainerOptions]
  }
  const { rootfs, timeout, env } = options
  if (typeof rootfs === 'object' && 'dir' in rootfs) native.rootfs = resolve(rootfs.dir)
  // As in child_process, 0 means no limit.
  if (timeout !== undefined) native.timeout = timeout === 0 ? undefined : Math.ceil(timeout)
  if (env !== undefined) native.env = withNulls(env)
  return native as NativeOptions
}

/** JSON has no `undefined`: `null` stands for the caller's value. */
function withNulls(env: Record<string, string | undefined>): Record<string, string | null> {
  const whole: Record<string, string | null> = {}
  for (const name in env) whole[name] = env[name] ?? null
  return whole
}
