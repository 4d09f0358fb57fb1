import { resolve } from 'node:path'
import type { ContainerOptions as NativeOptions } from './binding.d.ts'
import { caller } from './caller.ts'
import type { AnyOptions, ContainerOptions, Stdio } from './options.ts'
import { connect, type Listener, listen } from './supervisor.ts'

/** What the addon calls a new pipe and /dev/null. */
const PIPE = -1
const IGNORE = -2

/** A container that was asked for, and this side's ends of its pipes (-1 where there is none). */
export interface Launched {
  id: number
  stdin: number
  stdout: number
  stderr: number
}

/** The options as the addon takes them. Keys that are not its own do not disturb it. */
export function toNative(options: ContainerOptions): NativeOptions {
  const { rootfs, timeout, env } = options
  if (typeof rootfs !== 'object' && timeout === undefined && env === undefined) return options as NativeOptions
  const native = { ...options } as NativeOptions
  if (typeof rootfs === 'object') native.rootfs = resolve(rootfs.dir)
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

function number(stdio: Stdio, own: number): number {
  if (stdio === 'pipe') return PIPE
  if (stdio === 'ignore') return IGNORE
  return stdio === 'inherit' ? own : stdio
}

/** Asks for a container. Every outcome, failures too, comes to the listener, later; with `announce` its start too. */
export function launch(
  command: string,
  args: readonly string[],
  options: AnyOptions,
  stdio: readonly [Stdio, Stdio, Stdio],
  listener: Listener,
  announce: boolean,
): Launched {
  const pass: number[] = []
  const passAs: number[] = []
  if (options.fds !== undefined) {
    for (const as in options.fds) {
      passAs.push(Number(as))
      pass.push(options.fds[as] as number)
    }
  }
  const numbers = options.tty
    ? [IGNORE, IGNORE, IGNORE]
    : [number(stdio[0], 0), number(stdio[1], 1), number(stdio[2], 2)]
  const started = connect().start(
    [command, ...args],
    toNative(options),
    caller(options),
    { stdio: numbers, pass, passAs },
    announce,
  )
  listen(started.id, listener)
  const [stdin = -1, stdout = -1, stderr = -1] = started.stdio
  return { id: started.id, stdin, stdout, stderr }
}
