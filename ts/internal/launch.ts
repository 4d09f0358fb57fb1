import { commandWords } from '../options/arguments.ts'
import type { AnyOptions, Stdio } from '../options/types.ts'
import { IGNORE, toRequest } from './request.ts'
import { connect, type Listener, listen } from './supervisor.ts'

/** What the addon calls a new pipe. */
const PIPE = -1

/**
 * A container that was asked for, and this side's ends of its pipes (-1 where there is none). They are the addon's until they
 * are taken: a worker may be terminated before.
 */
export interface Launched {
  id: number
  stdin: number
  stdout: number
  stderr: number
}

function number(stdio: Stdio, own: number): number {
  if (stdio === 'pipe') return PIPE
  if (stdio === 'ignore') return IGNORE
  return stdio === 'inherit' ? own : stdio
}

/** Asks for a container. Every outcome, failures too, comes to the listener, later; with `announce` its start too. */
export function launch(
  command: string | undefined,
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
  const request = toRequest(commandWords(command, args), options, { stdio: numbers, pass, passAs, announce })
  const started = connect().start(request)
  listen(started.id, listener)
  const [stdin = -1, stdout = -1, stderr = -1] = started.stdio
  return { id: started.id, stdin, stdout, stderr }
}
