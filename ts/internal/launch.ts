import { commandWords } from '../options/arguments.ts'
import type { AnyOptions, Stdio } from '../options/types.ts'
import { IGNORE, toRequest } from './request.ts'
import { connect, type Listener, listen } from './supervisor.ts'

/** The addon's number for a new pipe. */
const PIPE = -1

/**
 * A process that was asked for, and our ends of its pipes (-1 if there is none). The addon owns them until they are taken, as
 * a worker may be terminated before.
 */
export interface Launched {
  /** Its number in events and requests. */
  id: number
  stdin: number
  stdout: number
  stderr: number
}

/** The addon's number for what a standard stream is to be. */
function stdioNumber(stdio: Stdio, own: number): number {
  if (stdio === 'pipe') return PIPE
  if (stdio === 'ignore') return IGNORE
  return stdio === 'inherit' ? own : stdio
}

/**
 * Asks for a container. Its events come to the listener in later turns of the event loop: the end or a failure, and with
 * `announce` the start too.
 */
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
    : [stdioNumber(stdio[0], 0), stdioNumber(stdio[1], 1), stdioNumber(stdio[2], 2)]
  const request = toRequest(commandWords(command, args), options, { stdio: numbers, pass, passAs, announce })
  const started = connect().start(request)
  listen(started.id, listener)
  const [stdin = -1, stdout = -1, stderr = -1] = started.stdio
  return { id: started.id, stdin, stdout, stderr }
}
