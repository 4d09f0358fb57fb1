import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { constants } from 'node:os'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import type { ErrorRecord } from '../binding.d.ts'
import { fromRecords, type NsrsError, ownError } from '../errors/nsrs-error.ts'
import { lines } from '../io/lines.ts'
import { native } from '../native/load.ts'
import { version } from '../native/version.ts'
import type { ImageEvent } from './progress.ts'

/** What nsrs-image can do. */
export type Verb =
  | 'export'
  | 'history'
  | 'images'
  | 'import'
  | 'inspect'
  | 'load'
  | 'login'
  | 'logout'
  | 'prepare'
  | 'prune'
  | 'pull'
  | 'push'
  | 'rmi'
  | 'save'
  | 'tag'

/** One call of nsrs-image. */
export interface Call {
  verb: Verb
  /** What follows the verb: options first, then `--`, then names. */
  args: readonly string[]
  /** What it reads from its standard input. Default: nothing. */
  input?: string | Uint8Array | Readable | undefined
  /** Where its standard output goes. Default: it is returned. */
  output?: Writable | undefined
  /** Kills it. The store stays consistent, and what came whole stays for the next call. */
  signal?: AbortSignal | undefined
  /** Hears what happens, in order. */
  hear?: ((event: ImageEvent) => void) | undefined
}

/**
 * Calls nsrs-image and returns what it wrote to its standard output.
 *
 * Unlike containers it is started by Node itself: next to what images take, the fork is nothing.
 *
 * @throws {@link NsrsError} it could not do what it was asked for; the signal's reason, where it was aborted.
 */
export async function execute({ verb, args, input, output, signal, hear }: Call): Promise<string> {
  signal?.throwIfAborted()
  const child = start(['--progress', 'json', ...args], verb, [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'])
  const kill = () => child.kill('SIGKILL')
  signal?.addEventListener('abort', kill, { once: true })
  const fed = input === undefined ? undefined : feed(child, input)
  const records: ErrorRecord[] = []
  try {
    const [end, written] = await Promise.all([
      ended(child),
      output === undefined ? text(child.stdout as Readable) : passOn(child, output),
      listen(child.stderr as Readable, records, hear),
    ])
    signal?.throwIfAborted()
    // What the input failed of says more than what its reader makes of half of it.
    const failure = await fed
    if (failure !== undefined) throw failure
    if (end !== 0) throw failed(records, verb, end)
    return written
  } catch (error) {
    kill()
    signal?.throwIfAborted()
    throw error
  } finally {
    signal?.removeEventListener('abort', kill)
  }
}

/**
 * Calls nsrs-image so that it tells its progress and its failure to our own standard error: on a terminal, live. Its
 * standard output is dropped. Returns its exit code, for a signal as shells have it. Whatever ends this process ends it too:
 * the kernel sees to that, also where we have no time to. It goes by threads, so the caller's must be one that stays.
 */
export async function executeAloud(verb: Verb, args: readonly string[]): Promise<number> {
  return ended(start([`--parent=${process.pid}`, ...args], verb, ['inherit', 'ignore', 'inherit']))
}

function start(args: readonly string[], verb: Verb, stdio: StdioOptions): ChildProcess {
  return spawn(native().image, [version, verb, ...args], { stdio })
}

/** The exit code, once all of its output has been read; for a signal as shells have it. */
function ended(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.on('error', (cause) => {
      reject(
        ownError('ERR_NSRS_SUPERVISOR_LOST', 'start nsrs-image', cause.message, { cause, hint: 'install nsrs again' }),
      )
    })
    child.on('close', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])))
  })
}

/** Writes the input; what it failed of, if not of a reader that has enough, is returned. */
async function feed(child: ChildProcess, input: string | Uint8Array | Readable): Promise<Error | undefined> {
  const stdin = child.stdin as Writable
  stdin.on('error', () => {})
  if (typeof input === 'string' || input instanceof Uint8Array) {
    stdin.end(input)
    return undefined
  }
  let isBroken = input.destroyed && !input.readableEnded
  // Heard before the pipeline hears of it, and takes the other end down.
  const over = () => {
    isBroken ||= !input.readableEnded && !stdin.destroyed
    if (isBroken) child.kill('SIGKILL')
  }
  input.once('error', over).once('close', over)
  try {
    await pipeline(input, stdin)
  } catch (error) {
    if (isBroken) {
      child.kill('SIGKILL')
      return input.errored ?? (error as Error)
    }
  }
  return undefined
}

/** Gives the output to a stream, which it ends; a stream that fails ends the call. */
async function passOn(child: ChildProcess, output: Writable): Promise<string> {
  try {
    await pipeline(child.stdout as Readable, output)
  } catch (error) {
    throw output.errored ?? error
  }
  return ''
}

/** Reads the lines of progress: events are told, errors kept. */
async function listen(stderr: Readable, records: ErrorRecord[], hear: Call['hear']): Promise<void> {
  for await (const line of lines(stderr)) {
    const told = parse(line)
    if (told === undefined) continue
    if (told.event !== 'error') hear?.(told)
    else records.push(toRecord(told))
  }
}

/** What a line of nsrs-image says of a failure. */
interface Told extends Omit<ErrorRecord, 'exitCode'> {
  event: 'error'
}

function parse(line: string): ImageEvent | Told | undefined {
  try {
    return JSON.parse(line) as ImageEvent | Told
  } catch {
    // A credential helper may have something to say; it is not for programs.
    return undefined
  }
}

function toRecord({ code, message, step, subject, errno, hint }: Told): ErrorRecord {
  const record: ErrorRecord = { code, message, step, exitCode: 125 }
  if (subject !== undefined) record.subject = subject
  if (errno !== undefined) record.errno = errno
  if (hint !== undefined) record.hint = hint
  return record
}

function failed(records: readonly ErrorRecord[], verb: Verb, code: number): NsrsError {
  if (records.length > 0) return fromRecords(records)
  return ownError('ERR_NSRS_SETUP_FAILED', `${verb} images`, `nsrs-image ended with exit code ${code} without a word`)
}
