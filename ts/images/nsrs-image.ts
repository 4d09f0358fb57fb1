import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { constants } from 'node:os'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import type { ErrorRecord } from '../binding.d.ts'
import { fromRecords, localError, type NsrsError, setUpError } from '../errors/nsrs-error.ts'
import { lines } from '../io/lines.ts'
import { native } from '../native/load.ts'
import { version } from '../native/version.ts'
import type { ImageEvent } from './progress.ts'

/** The subcommands of nsrs-image. */
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
  /** The arguments after the verb: options, then `--`, then names. */
  args: readonly string[]
  /** Its standard input. Default: empty. */
  input?: string | Uint8Array | Readable | undefined
  /** Where its standard output goes. Default: {@link execute} returns it. */
  output?: Writable | undefined
  /** Kills it when aborted. The store stays consistent, and the next call continues from what is complete. */
  signal?: AbortSignal | undefined
  /** Receives its events, in order. */
  onEvent?: ((event: ImageEvent) => void) | undefined
}

/**
 * Runs nsrs-image and returns its standard output.
 *
 * Unlike containers it is started by Node itself: compared to the work on images, the fork is cheap.
 *
 * @throws {@link NsrsError} it failed; or the signal's reason, if that was aborted.
 */
export async function execute({ verb, args, input, output, signal, onEvent }: Call): Promise<string> {
  signal?.throwIfAborted()
  const flags = ['--progress=json', '--for-javascript']
  const child = start([...flags, ...args], verb, [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'])
  const kill = () => {
    child.kill('SIGKILL')
    // A credential helper may hold its output for longer than anybody waits.
    if (child.exitCode === null && child.signalCode === null) child.once('exit', () => closeOutput(child))
    else closeOutput(child)
  }
  signal?.addEventListener('abort', kill, { once: true })
  const feeding = input === undefined ? undefined : feed(child, input)
  const records: ErrorRecord[] = []
  try {
    const [code, written] = await Promise.all([
      exitCode(child),
      output === undefined ? text(child.stdout as Readable) : pipeOutput(child, output),
      readEvents(child.stderr as Readable, records, onEvent),
    ])
    signal?.throwIfAborted()
    // An error of the input says more than what nsrs-image makes of truncated input.
    const inputError = await feeding
    if (inputError !== undefined) throw inputError
    if (code !== 0) throw failure(records, verb, code)
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
 * Runs nsrs-image so that it reports progress and failures on our own standard error. Its standard output is discarded.
 * Returns its exit code, which is 128 plus the number for a signal.
 *
 * The kernel kills it when the calling thread ends (PR_SET_PDEATHSIG), so that thread must outlive the call.
 */
export async function executeVisibly(verb: Verb, args: readonly string[]): Promise<number> {
  return exitCode(start([`--parent=${process.pid}`, ...args], verb, ['inherit', 'ignore', 'inherit']))
}

function start(args: readonly string[], verb: Verb, stdio: StdioOptions): ChildProcess {
  return spawn(native().image, [version, verb, ...args], { stdio })
}

function closeOutput(child: ChildProcess): void {
  child.stdout?.destroy()
  child.stderr?.destroy()
}

/** Resolves with the exit code once its output has been read; 128 plus the number for a signal. */
function exitCode(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.on('error', (cause) => {
      reject(
        localError({
          id: 'image',
          code: 'ERR_NSRS_SUPERVISOR_LOST',
          step: 'start nsrs-image',
          reason: cause.message,
          hint: 'reinstall nsrs',
          cause,
        }),
      )
    })
    child.on('close', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])))
  })
}

/** Writes the input. Returns its error, if any; that nsrs-image stopped reading is none. */
async function feed(child: ChildProcess, input: string | Uint8Array | Readable): Promise<Error | undefined> {
  const stdin = child.stdin as Writable
  stdin.on('error', () => {})
  if (typeof input === 'string' || input instanceof Uint8Array) {
    stdin.end(input)
    return undefined
  }
  let isBroken = input.destroyed && !input.readableEnded
  // Registered before the pipeline, which destroys the other end.
  const onEnd = () => {
    isBroken ||= !input.readableEnded && !stdin.destroyed
    if (isBroken) child.kill('SIGKILL')
  }
  input.once('error', onEnd).once('close', onEnd)
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

/** Pipes the output to a stream, which is ended. If the stream fails, so does the call. */
async function pipeOutput(child: ChildProcess, output: Writable): Promise<string> {
  try {
    await pipeline(child.stdout as Readable, output)
  } catch (error) {
    throw output.errored ?? error
  }
  return ''
}

/** Reads the events and collects the errors, one JSON object per line. */
async function readEvents(stderr: Readable, records: ErrorRecord[], onEvent: Call['onEvent']): Promise<void> {
  for await (const line of lines(stderr)) {
    const event = parse(line)
    if (event === undefined) continue
    if (event.event !== 'error') onEvent?.(event)
    else records.push(toRecord(event))
  }
}

/** A failure, as nsrs-image reports it. */
interface ErrorEvent extends Omit<ErrorRecord, 'exitCode'> {
  event: 'error'
}

function parse(line: string): ImageEvent | ErrorEvent | undefined {
  try {
    return JSON.parse(line) as ImageEvent | ErrorEvent
  } catch {
    // Output of a credential helper.
    return undefined
  }
}

function toRecord(event: ErrorEvent): ErrorRecord {
  const { code, id, message, step, subject, option, errno, reason, hint, suggestions } = event
  const record: ErrorRecord = { code, message, step, exitCode: 125 }
  if (id !== undefined) record.id = id
  if (subject !== undefined) record.subject = subject
  if (option !== undefined) record.option = option
  if (errno !== undefined) record.errno = errno
  if (reason !== undefined) record.reason = reason
  if (hint !== undefined) record.hint = hint
  if (suggestions !== undefined) record.suggestions = suggestions
  return record
}

function failure(records: readonly ErrorRecord[], verb: Verb, code: number): NsrsError {
  if (records.length > 0) return fromRecords(records)
  return setUpError('image', `${verb} images`, `nsrs-image exited with code ${code} and no error`)
}
