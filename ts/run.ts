import { closeSync, writeSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import type { ContainerReport, ExitReport, NativeEvent } from './binding.d.ts'
import { fromRecords } from './errors/nsrs-error.ts'
import { ExitError } from './exit-error.ts'
import { provide } from './images/ensure.ts'
import { Canceler } from './internal/canceler.ts'
import { type Launched, launch } from './internal/launch.ts'
import { connect, take } from './internal/supervisor.ts'
import { canUseDescriptors, readable, writable } from './io/pipe-streams.ts'
import { Terminal } from './io/terminal.ts'
import { imageOf, splitArguments } from './options/arguments.ts'
import { signalNumber } from './options/signals.ts'
import type { OfImage, RunOptions, Stdio } from './options/types.ts'
import { checkCommand, checkOptions } from './options/validate.ts'
import { commandLine, type Result, toExit } from './result.ts'

const MAX_BUFFER = 100 * 1024 * 1024
/** This much fits into any pipe that is empty, so that writing it never blocks. */
const FITS = 4096

type Bytes = RunOptions & { encoding: 'buffer' }

/**
 * Runs a command in a container of its own and returns what it wrote and how it ended. With an image the command may be
 * left out: it is the image's own.
 *
 * @throws {@link ExitError} the command failed, {@link NsrsError} there was no container, `TypeError` wrong arguments.
 */
export function run(command: string, args: readonly string[] | undefined, options: Bytes): Promise<Result<Uint8Array>>
export function run(command: string, options: Bytes): Promise<Result<Uint8Array>>
export function run(command: string, args?: readonly string[], options?: RunOptions): Promise<Result>
export function run(command: string, options?: RunOptions): Promise<Result>
export function run(options: Bytes & OfImage): Promise<Result<Uint8Array>>
export function run(options: RunOptions & OfImage): Promise<Result>
export function run(
  first: string | RunOptions,
  second?: readonly string[] | RunOptions,
  third?: RunOptions,
): Promise<Result<string | Uint8Array>> {
  return new Promise((resolve, reject) => {
    const [command, args, options] = splitArguments(first, second, third)
    checkCommand(command, args, options)
    checkOptions(options)
    options.signal?.throwIfAborted()
    if (options.killSignal !== undefined) signalNumber(options.killSignal, 'killSignal')
    const begin = () => void new Run(command, args, options, resolve, reject)
    const brought = provide(command, args, options)
    if (brought === undefined) begin()
    else {
      brought
        .then(() => {
          options.signal?.throwIfAborted()
          begin()
        })
        .catch(reject)
    }
  })
}

/** What arrives from one of the command's streams. */
class Collector {
  chunks: Buffer[] = []
  size = 0

  constructor(stream: Readable, most: number, onEnd: () => void, onFull: () => void) {
    stream.on('data', (chunk: Buffer) => {
      if (this.size + chunk.length > most) {
        this.chunks.push(chunk.subarray(0, most - this.size))
        this.size = most
        stream.destroy()
        onFull()
      } else {
        this.chunks.push(chunk)
        this.size += chunk.length
      }
    })
    // It is over at its end, a turn of the event loop before it is closed; or, however it failed, when it is closed.
    let isOver = false
    const over = () => {
      if (!isOver) onEnd()
      isOver = true
    }
    stream.on('error', () => {})
    stream.on('end', over)
    stream.on('close', over)
  }

  bytes(): Buffer {
    return this.chunks.length === 1 ? (this.chunks[0] as Buffer) : Buffer.concat(this.chunks, this.size)
  }
}

/** One call of {@link run}. */
class Run {
  readonly #launched: Launched
  readonly #canceler: Canceler | undefined
  readonly #stdout: Collector | undefined
  readonly #stderr: Collector | undefined
  #terminal: Terminal | undefined
  #input: Readable | undefined
  /** What is still to come: the end of the container, and of its streams. */
  #missing = 1
  #exit: ExitReport | undefined
  #changes: string | undefined
  #failure: Error | undefined
  #report: ContainerReport | undefined
  #full = false

  constructor(
    readonly command: string | undefined,
    readonly args: readonly string[],
    readonly options: RunOptions,
    readonly resolve: (result: Result<string | Uint8Array>) => void,
    readonly reject: (error: unknown) => void,
  ) {
    const stdin: Stdio = options.input === undefined ? (options.stdin ?? 'ignore') : 'pipe'
    const stdio = [stdin, options.stdout ?? 'pipe', options.stderr ?? 'pipe'] as const
    this.#launched = launch(command, args, options, stdio, (event) => this.#hear(event), false)
    const { id, stdin: write, stdout, stderr } = this.#launched
    if (options.signal !== undefined) this.#canceler = new Canceler(id, options.signal, options)
    // From here on the container is being made by others: what is done meanwhile costs nothing.
    const most = options.maxBuffer ?? MAX_BUFFER
    const [end, full] = [() => this.#settle(), () => this.#overflow()]
    if (options.tty !== undefined) {
      this.#missing++
      this.#terminal = new Terminal(options.tty)
      this.#stdout = new Collector(this.#terminal, most, end, full)
      this.#send(options.input ?? '', this.#terminal)
    }
    if (stdout >= 0) {
      this.#missing++
      this.#stdout = new Collector(readable(take(stdout)), most, end, full)
    }
    if (stderr >= 0) {
      this.#missing++
      this.#stderr = new Collector(readable(take(stderr)), most, end, full)
    }
    if (write >= 0) this.#feed(take(write))
  }

  #feed(fd: number): void {
    const input = this.options.input as string | Uint8Array | Readable
    const bytes = typeof input === 'string' ? Buffer.from(input) : input
    if (bytes instanceof Uint8Array) {
      if (canUseDescriptors && bytes.length <= FITS) {
        try {
          if (bytes.length > 0) writeSync(fd, bytes)
        } catch {
          // It did not want to read it.
        }
        closeSync(fd)
        return
      }
    }
    this.#send(bytes, writable(fd))
  }

  #send(input: string | Uint8Array | Readable, stream: Writable): void {
    if (typeof input === 'string' || input instanceof Uint8Array) {
      stream.on('error', () => {})
      stream.end(input)
      return
    }
    this.#input = input
    stream.on('error', () => input.unpipe(stream))
    input.on('error', (error) => {
      this.#failure ??= error
      stream.destroy()
      connect().kill(this.#launched.id, 9)
    })
    input.pipe(stream)
  }

  #overflow(): void {
    this.#full = true
    connect().kill(this.#launched.id, 9)
  }

  #hear(event: NativeEvent): void {
    // Unannounced: the report comes with the end.
    this.#report = event.started
    if (event.terminal !== undefined) {
      this.#terminal?.attach(event.terminal)
      return
    }
    if (event.exited !== undefined) {
      this.#exit = event.exited
      this.#changes = event.changes
    } else if (event.failed !== undefined) this.#failure ??= fromRecords(event.failed)
    this.#canceler?.stop()
    this.#terminal?.over()
    this.#settle()
  }

  #settle(): void {
    if (--this.#missing > 0) return
    this.#input?.unpipe()
    if (this.#exit === undefined || this.#failure !== undefined) {
      this.reject(this.#failure)
      return
    }
    const result = this.#result(this.#exit)
    if (result.failed && this.options.reject !== false) {
      const options = result.isCanceled ? { cause: this.#canceler?.reason } : undefined
      this.reject(new ExitError(this.#message(result), result, options))
    } else {
      this.resolve(result)
    }
  }

  #result(report: ExitReport): Result<string | Uint8Array> {
    const exit = toExit(report, this.#changes, this.#canceler?.isCanceled === true)
    return {
      ...exit,
      stdout: this.#output(this.#stdout),
      stderr: this.#output(this.#stderr),
      isMaxBuffer: this.#full,
      failed: exit.exitCode !== 0 || exit.timedOut || exit.isCanceled || this.#full,
      command: commandLine(this.command ?? imageOf(this.options) ?? '', this.args),
      container: this.#report,
    }
  }

  #output(collector: Collector | undefined): string | Uint8Array {
    const asBytes = this.options.encoding === 'buffer'
    if (collector === undefined || collector.size === 0) return asBytes ? new Uint8Array(0) : ''
    let bytes = collector.bytes()
    if (this.options.stripFinalNewline !== false && bytes[bytes.length - 1] === 0x0a) {
      bytes = bytes.subarray(0, bytes[bytes.length - 2] === 0x0d ? -2 : -1)
    }
    return asBytes ? bytes : bytes.toString()
  }

  #message(result: Result<unknown>): string {
    const { command, exitCode, signal } = result
    if (result.isCanceled) return `command was canceled: ${command}`
    if (result.timedOut) return `command timed out after ${this.options.timeout} milliseconds: ${command}`
    if (result.isMaxBuffer)
      return `command wrote more than ${this.options.maxBuffer ?? MAX_BUFFER} bytes (maxBuffer): ${command}`
    if (signal !== undefined) return `command was ended by ${signal}: ${command}`
    return `command failed with exit code ${exitCode}: ${command}`
  }
}
