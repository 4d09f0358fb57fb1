import { resolve } from 'node:path'
import type {
  ContainerRequest,
  EnterRequest,
  EnterOptions as NativeEnterOptions,
  ContainerOptions as NativeOptions,
} from '../binding.d.ts'
import type { AnyEnterOptions, AnyOptions, ContainerOptions } from '../options/types.ts'
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
  {
    stdio,
    pass = [],
    passAs = [],
    announce = false,
    stays = false,
  }: Partial<Omit<ContainerRequest, 'args' | 'options' | 'caller'>>,
): string {
  const request = {
    args,
    options: toNative(options),
    caller: callerInfo(options),
    stdio: stdio ?? [IGNORE, IGNORE, IGNORE],
    pass,
    passAs,
    announce,
    stays,
  } satisfies ContainerRequest
  return JSON.stringify(request)
}

/** The options of a process that enters a container, as the addon takes them. A new one does not compile until it is listed. */
const ENTER_OPTIONS: Record<keyof NativeEnterOptions, true> = {
  env: true,
  workdir: true,
  user: true,
  groups: true,
  umask: true,
  tty: true,
  timeout: true,
}

/** A process that enters a container, as the JSON that the addon takes. */
export function toEnterRequest(
  args: string[],
  options: AnyEnterOptions,
  streams: Omit<EnterRequest, 'args' | 'options'>,
): string {
  const native: Record<string, unknown> = {}
  for (const key in options) {
    if (Object.hasOwn(ENTER_OPTIONS, key)) native[key] = options[key as keyof AnyEnterOptions]
  }
  return JSON.stringify({ args, options: Object.assign(native, limits(options)), ...streams } satisfies EnterRequest)
}

/** The options whose values the addon takes in another form. */
function limits({ timeout, env }: Pick<ContainerOptions, 'timeout' | 'env'>): Record<string, unknown> {
  const native: Record<string, unknown> = {}
  // As in child_process, 0 means no limit.
  if (timeout !== undefined) native.timeout = timeout === 0 ? undefined : Math.ceil(timeout)
  if (env !== undefined) native.env = withNulls(env)
  return native
}

/** The addon's number for /dev/null. */
export const IGNORE = -2

/** The options as the addon takes them. */
function toNative(options: ContainerOptions): NativeOptions {
  const native: Record<string, unknown> = {}
  for (const key in options) {
    if (!Object.hasOwn(LOCAL_OPTIONS, key)) native[key] = options[key as keyof ContainerOptions]
  }
  const { rootfs } = options
  if (typeof rootfs === 'object' && 'dir' in rootfs) native.rootfs = resolve(rootfs.dir)
  return Object.assign(native, limits(options)) as NativeOptions
}

/** JSON has no `undefined`: `null` stands for no value of its own. */
function withNulls(env: Record<string, string | undefined>): Record<string, string | null> {
  const whole: Record<string, string | null> = {}
  for (const name in env) whole[name] = env[name] ?? null
  return whole
}
