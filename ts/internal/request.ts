import { resolve } from 'node:path'
import type { AnyEnterOptions, AnyOptions, ContainerOptions, OwnOptions } from '../options/types.ts'
import type { EnterSpec, Spec } from '../spec.d.ts'
import { callerInfo } from './caller-info.ts'

/** The options that the core doesn't take. A new one does not compile until it is listed here. */
const OWN_OPTIONS: Record<OwnOptions, true> = {
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

/** What a call says beside its command and its options. */
type Rest = Partial<Pick<Spec, 'preserveFds' | 'ownPipes' | 'stays' | 'changesForm'>>

/** A call as the JSON of a spec. */
export function toSpec(args: string[], options: ContainerOptions, rest: Rest): string {
  const { rootfs } = options
  const spec: Partial<Record<keyof Spec, unknown>> = { ...core(options), args, caller: callerInfo(options), ...rest }
  if (typeof rootfs === 'object' && 'dir' in rootfs && rootfs.dir !== undefined) spec.rootfs = resolve(rootfs.dir)
  return JSON.stringify(spec)
}

/** A process that enters a container as the JSON of its spec. */
export function toEnterSpec(
  args: string[],
  options: AnyEnterOptions,
  rest: Pick<EnterSpec, 'preserveFds' | 'ownPipes'>,
): string {
  return JSON.stringify({ ...core(options), args, ...rest } satisfies Partial<Record<keyof EnterSpec, unknown>>)
}

/** The options that the core takes, as it takes them. */
function core(options: AnyOptions | AnyEnterOptions): Record<string, unknown> {
  const core: Record<string, unknown> = {}
  const given = options as Readonly<Record<string, unknown>>
  for (const key of Object.keys(given)) {
    if (!Object.hasOwn(OWN_OPTIONS, key)) core[key] = given[key]
  }
  const { timeout, env } = options
  // As in child_process, 0 means no limit.
  if (timeout !== undefined) core.timeout = timeout === 0 ? undefined : Math.ceil(timeout)
  if (env !== undefined) core.env = withNulls(env)
  return core
}

/** JSON has no `undefined`: `null` stands for no value of its own. */
function withNulls(env: Record<string, string | undefined>): Record<string, string | null> {
  // Without a prototype `__proto__` is a name like any other.
  const whole: Record<string, string | null> = Object.create(null)
  for (const [name, value] of Object.entries(env)) whole[name] = value ?? null
  return whole
}
