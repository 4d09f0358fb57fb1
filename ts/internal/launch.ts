import type { StartedContainer } from '../binding.d.ts'
import { commandWords } from '../options/arguments.ts'
import type { AnyEnterOptions, AnyOptions, Stdio } from '../options/types.ts'
import { toEnterSpec, toSpec } from './request.ts'
import { connect, type Listener, listen } from './supervisor.ts'

/** The addon's number for a new pipe. */
const PIPE = -1
/** The addon's number for /dev/null. */
const IGNORE = -2

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

/** The streams and the further descriptors of a call, as the addon numbers them. */
interface Streams {
  stdio: number[]
  pass: number[]
  preserveFds: number[]
  /** Which of the command's output streams are new pipes. */
  ownPipes: number[]
}

function streams({ fds, tty }: Pick<AnyOptions, 'fds' | 'tty'>, stdio: readonly [Stdio, Stdio, Stdio]): Streams {
  const pass: number[] = []
  const preserveFds: number[] = []
  if (fds !== undefined) {
    for (const [number, fd] of Object.entries(fds)) {
      preserveFds.push(Number(number))
      pass.push(fd)
    }
  }
  const numbers = tty
    ? [IGNORE, IGNORE, IGNORE]
    : [stdioNumber(stdio[0], 0), stdioNumber(stdio[1], 1), stdioNumber(stdio[2], 2)]
  const ownPipes = [1, 2].filter((number) => numbers[number] === PIPE)
  return { stdio: numbers, pass, preserveFds, ownPipes }
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
  const { stdio: numbers, pass, preserveFds, ownPipes } = streams(options, stdio)
  const spec = toSpec(commandWords(command, args), options, { preserveFds, ownPipes, stays })
  return launched(connect().start(spec, numbers, pass, announce), listener)
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
  const { stdio: numbers, pass, preserveFds, ownPipes } = streams(options, stdio)
  const spec = toEnterSpec(commandWords(command, args), options, { preserveFds, ownPipes })
  return launched(connect().enter(container, spec, numbers, pass, announce), listener)
}
