import type { Readable, Writable } from 'node:stream'
import { ExitError } from './exit-error.ts'
import { later } from './internal/canceler.ts'
import type { Launched } from './internal/launch.ts'
import { type Listener, take } from './internal/supervisor.ts'
import { type Ended, type Outcome, Task, type TaskObserver, type TaskSetup } from './internal/task.ts'
import { Collector } from './io/collector.ts'
import { readable, writable } from './io/pipe-streams.ts'
import { Terminal } from './io/terminal.ts'
import { watchInput, writeSmallInput } from './io/write-input.ts'
import type { CollectOptions, ContainerOptions, Stdio, StreamOptions } from './options/types.ts'
import { commandLine, type Result, toExit } from './result.ts'

const MAX_BUFFER = 100 * 1024 * 1024
const SIGKILL = 9
/** Milliseconds for what a killed command has left in its pipes, where others hold these. */
const LAST_OUTPUT = 100

/** Asks for the process of a call, with these standard streams. */
export type Start = (stdio: readonly [Stdio, Stdio, Stdio], listener: Listener) => Launched

/** A command whose output is to be collected. */
export interface Call {
  /** The command, for messages. */
  command: string
  args: readonly string[]
  options: StreamOptions & CollectOptions & Pick<ContainerOptions, 'tty' | 'timeout'>
  prepare: TaskSetup['prepare']
  start: Start
  /** It runs in a container that goes on without it. */
  entered?: boolean
}

/** One command whose output is collected: its task, and what it writes and reads. */
export class CollectedRun implements TaskObserver {
  readonly #task: Task
  readonly #terminal: Terminal | undefined
  #stdout: Collector | undefined
  #stderr: Collector | undefined
  #input: Readable | undefined
  #stdin: Writable | undefined
  /** The ends that have yet to come: that of the task, and those of its output streams. */
  #pending = 1
  #ended: Ended | undefined
  #failure: unknown
  #isFull = false
  #stopWatching: (() => void) | undefined

  constructor(
    readonly call: Call,
    readonly resolve: (result: Result<string | Uint8Array>) => void,
    readonly reject: (error: unknown) => void,
  ) {
    const { options, prepare, start } = call
    const stdin: Stdio = options.input === undefined ? (options.stdin ?? 'ignore') : 'pipe'
    const stdio = [stdin, options.stdout ?? 'pipe', options.stderr ?? 'pipe'] as const
    this.#terminal = options.tty && new Terminal(options.tty)
    this.#task = new Task(
      {
        prepare,
        launch: (listener) => start(stdio, listener),
        terminal: this.#terminal,
        options,
      },
      this,
    )
  }

  begin(): void {
    this.#task.begin()
  }

  // The supervisor makes the container now, so the work here costs no time.
  launched({ stdin, stdout, stderr }: Launched): void {
    const max = this.call.options.maxBuffer ?? MAX_BUFFER
    const [onEnd, onFull] = [() => this.#settle(), () => this.#overflow()]
    if (this.#terminal !== undefined) {
      this.#pending++
      this.#stdout = new Collector(this.#terminal, max, onEnd, onFull)
      this.#send(this.call.options.input ?? '', this.#terminal)
    }
    if (stdout >= 0) {
      this.#pending++
      this.#stdout = new Collector(readable(take(stdout)), max, onEnd, onFull)
    }
    if (stderr >= 0) {
      this.#pending++
      this.#stderr = new Collector(readable(take(stderr)), max, onEnd, onFull)
    }
    if (stdin >= 0) this.#feed(take(stdin))
  }

  started(): void {}

  ended(outcome: Outcome): void {
    if (outcome.kind === 'failed') this.#failure ??= outcome.error
    else this.#ended = outcome
    // With a container of its own every process is gone that could hold a pipe. In one that goes on, its output ends with
    // the last of those that it has started.
    if (this.call.entered && this.#pending > 1) {
      if (this.#isKilled(outcome)) this.#abandonOutput()
      else this.#watchOutput()
    }
    this.#settle()
  }

  #isKilled(outcome: Outcome): boolean {
    if (outcome.kind === 'failed' || outcome.exit.timedOut || outcome.isCanceled) return true
    return this.#isFull || this.#failure !== undefined
  }

  /** The command was killed, and nobody waits for others that hold its pipes: only what is in these is read. */
  #abandonOutput(): void {
    // Timers come before what can be read, and this after it.
    const timer = setTimeout(() => setImmediate(() => this.#close()), LAST_OUTPUT)
    this.#stopWatching = () => clearTimeout(timer)
  }

  /** The command is gone and its output still open: time limit and abort hold for that too. */
  #watchOutput(): void {
    const { timeout, signal } = this.call.options
    const abandon = (how: { isCanceled: true } | { timedOut: true }) => {
      if (this.#ended === undefined) return
      const { exit } = this.#ended
      this.#ended = { ...this.#ended, exit: { ...exit, timedOut: 'timedOut' in how }, isCanceled: 'isCanceled' in how }
      this.#close()
    }
    const onAbort = () => abandon({ isCanceled: true })
    signal?.addEventListener('abort', onAbort, { once: true })
    const left = timeout ? timeout - (this.#ended?.exit.durationMs ?? 0) : undefined
    const timer = left === undefined ? undefined : later(() => abandon({ timedOut: true }), Math.max(left, 0))
    this.#stopWatching = () => {
      signal?.removeEventListener('abort', onAbort)
      clearTimeout(timer)
    }
  }

  /** Reads no more output, whoever may still write. */
  #close(): void {
    this.#terminal?.destroy()
    this.#stdout?.close()
    this.#stderr?.close()
  }

  #feed(fd: number): void {
    const input = this.call.options.input as string | Uint8Array | Readable
    const bytes = typeof input === 'string' ? Buffer.from(input) : input
    if (bytes instanceof Uint8Array && writeSmallInput(fd, bytes)) return
    this.#stdin = writable(fd)
    this.#send(bytes, this.#stdin)
  }

  #send(input: string | Uint8Array | Readable, stream: Writable): void {
    if (typeof input === 'string' || input instanceof Uint8Array) {
      stream.on('error', () => {})
      stream.end(input)
      return
    }
    this.#input = input
    stream.on('error', () => input.unpipe(stream))
    watchInput(input, stream, (error) => this.#fail(error))
    input.pipe(stream)
  }

  /** The input broke off: the command is killed. If it has ended, that counts, and nobody waits for who holds its output. */
  #fail(error: unknown): void {
    if (this.#pending <= 0) return
    if (this.#ended !== undefined) {
      this.#close()
      return
    }
    this.#failure ??= error
    this.#task.kill(SIGKILL)
  }

  #overflow(): void {
    this.#isFull = true
    this.#task.kill(SIGKILL)
  }

  #settle(): void {
    if (--this.#pending > 0) return
    this.#stopWatching?.()
    this.#input?.unpipe()
    this.#stdin?.destroy()
    if (this.#ended === undefined || this.#failure !== undefined) {
      this.reject(this.#failure)
      return
    }
    const result = this.#result(this.#ended)
    if (result.failed && this.call.options.reject !== false) {
      const options = result.isCanceled ? { cause: this.call.options.signal?.reason } : undefined
      this.reject(new ExitError(this.#message(result), result, options))
    } else {
      this.resolve(result)
    }
  }

  #result(ended: Ended): Result<string | Uint8Array> {
    const exit = toExit(ended)
    return {
      ...exit,
      stdout: this.#output(this.#stdout),
      stderr: this.#output(this.#stderr),
      isMaxBuffer: this.#isFull,
      failed: exit.exitCode !== 0 || exit.timedOut || exit.isCanceled || this.#isFull,
      command: commandLine(this.call.command, this.call.args),
      container: ended.report,
    }
  }

  #output(collector: Collector | undefined): string | Uint8Array {
    const asBytes = this.call.options.encoding === 'buffer'
    if (collector === undefined || collector.size === 0) return asBytes ? new Uint8Array(0) : ''
    let bytes = collector.bytes
    if (this.call.options.stripFinalNewline !== false && bytes[bytes.length - 1] === 0x0a) {
      bytes = bytes.subarray(0, bytes[bytes.length - 2] === 0x0d ? -2 : -1)
    }
    return asBytes ? bytes : bytes.toString()
  }

  #message(result: Result<unknown>): string {
    const { command, exitCode, signal } = result
    if (result.isCanceled) return `command was canceled: ${command}`
    if (result.timedOut) return `command timed out after ${this.call.options.timeout} milliseconds: ${command}`
    if (result.isMaxBuffer)
      return `command wrote more than ${this.call.options.maxBuffer ?? MAX_BUFFER} bytes (maxBuffer): ${command}`
    if (signal !== undefined) return `command was ended by ${signal}: ${command}`
    return `command failed with exit code ${exitCode}: ${command}`
  }
}
