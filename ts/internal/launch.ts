import type { StartedContainer } from '../binding.d.ts'
import { commandWords } from '../options/arguments.ts'
import type { AnyEnterOptions, AnyOptions, Stdio } from '../options/types.ts'
import { IGNORE, toEnterRequest, toRequest } from './request.ts'
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

/** What both kinds of request take of a call: its streams and further descriptors, as the addon numbers them. */
function descriptors({ fds, tty }: Pick<AnyOptions, 'fds' | 'tty'>, stdio: readonly [Stdio, Stdio, Stdio]) {
  const pass: number[] = []
  const passAs: number[] = []
  if (fds !== undefined) {
    for (const as in fds) {
      passAs.push(Number(as))
      pass.push(fds[as] as number)
    }
  }
  const numbers = tty
    ? [IGNORE, IGNORE, IGNORE]
    : [stdioNumber(stdio[0], 0), stdioNumber(stdio[1], 1), stdioNumber(stdio[2], 2)]
  return { stdio: numbers, pass, passAs }
}

/** Passes a request's events to the listener; its ends of pipes are the result. */
function launched(started: StartedContainer, listener: Listener): Launched {
  listen(started.id, listener)
  const [stdin = -1, stdout = -1, stderr = -1] = started.stdio
  return { id: started.id, stdin, stdout, stderr }
}

/**
 * Asks for a container. Its events come to the listener in later turns of the event loop: the end or a failure, and with
 * `announce` the start too. `stays`: it needs no command, and stays until it is ended.
 */
export function launch(
  command: string | undefined,
  args: readonly string[],
  options: AnyOptions,
  stdio: readonly [Stdio, Stdio, Stdio],
  listener: Listener,
  announce: boolean,
  stays = false,
): Launched {
  const request = toRequest(commandWords(command, args), options, { ...descriptors(options, stdio), announce, stays })
  return launched(connect().start(request), listener)
}

/** Asks for a process in the container of this number, which runs. Its events are those of {@link launch}. */
export function launchIn(
  container: number,
  command: string,
  args: readonly string[],
  options: AnyEnterOptions,
  stdio: readonly [Stdio, Stdio, Stdio],
  listener: Listener,
  announce: boolean,
): Launched {
  const request = toEnterRequest(commandWords(command, args), options, { ...descriptors(options, stdio), announce })
  return launched(connect().enter(container, request), listener)
}
