import { EventEmitter } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import type { ContainerReport } from './binding.d.ts'
import { setUpError } from './errors/nsrs-error.ts'
import { DeferredPipe, input, output } from './internal/deferred-pipe.ts'
import type { Launched } from './internal/launch.ts'
import { LazyPromise } from './internal/lazy-promise.ts'
import { type Outcome, Task, type TaskSetup } from './internal/task.ts'
import { lines, merge } from './io/lines.ts'
import type { Terminal } from './io/terminal.ts'
import { signalNumber } from './options/signals.ts'
import { wrongType } from './options/validate.ts'
import { type Exit, toExit } from './result.ts'
import type { TerminalSize } from './spec.d.ts'

/** The events of a {@link Process}. */
export interface ProcessEvents {
  /** The command has started. */
  spawn: [report: ContainerReport]
  /** The command has ended and its container has been removed. Some output may still be unread. */
  exit: [exit: Exit]
  /** There was no container, or it has been removed: an {@link NsrsError}, or the reason of an abort. */
  error: [error: Error]
}

/** Which of its standard streams are pipes. */
export interface PipedStreams {
  stdin: boolean
  stdout: boolean
  stderr: boolean
}

/** A command that runs in a container. */
export class Process extends EventEmitter<ProcessEvents> implements AsyncDisposable {
  /** The command's terminal, if it was given one by `tty`. */
  readonly terminal: Terminal | null
  readonly #task: Task
  readonly #stdin: DeferredPipe<Writable>
  readonly #stdout: DeferredPipe<Readable>
  readonly #stderr: DeferredPipe<Readable>
  readonly #ready = new LazyPromise<ContainerReport>()
  readonly #exit = new LazyPromise<Exit>()
  #report: ContainerReport | undefined
  #isKilled = false

  /** @internal Made by {@link spawn}. */
  constructor(setup: TaskSetup, piped: PipedStreams) {
    super()
    this.terminal = setup.terminal ?? null
    this.#stdin = new DeferredPipe(output, piped.stdin)
    this.#stdout = new DeferredPipe(input, piped.stdout)
    this.#stderr = new DeferredPipe(input, piped.stderr)
    this.#task = new Task(setup, {
      launched: (launched) => this.#launched(launched),
      started: (report) => this.#started(report),
      ended: (outcome) => this.#ended(outcome),
    })
    this.#task.begin()
  }

  /** The command's standard input, or its terminal; `null` if it is not a pipe. */
  get stdin(): Writable | null {
    return this.terminal ?? this.#stdin.open()
  }

  /** The command's standard output, or its terminal; `null` if it is not a pipe. */
  get stdout(): Readable | null {
    return this.terminal ?? this.#stdout.open()
  }

  /** The command's standard error; `null` if it is not a pipe, or with a terminal. */
  get stderr(): Readable | null {
    return this.#stderr.open()
  }

  /** Process id of the command, or of the init above it, as the host sees it; `undefined` until the command runs. */
  get pid(): number | undefined {
    return this.#report?.pid
  }

  /** Resolves when the command has started, with what its container was given. Rejects if it can't start. */
  get ready(): Promise<ContainerReport> {
    return this.#ready.promise
  }

  /** Whether `kill()` has sent a signal. */
  get killed(): boolean {
    return this.#isKilled
  }

  /** Resolves with how the command ended, whatever its exit code. Rejects if it can't start. */
  wait(): Promise<Exit> {
    return this.#exit.promise
  }

  /**
   * Sends a signal to the command, by default `killSignal`. Returns false if it has ended. Until its image is ready, any signal
   * but 0 ends the task as if it had ended the command. With `SIGKILL` a container of the command's own ends; of a command in
   * a container that goes on, its process group does.
   */
  kill(signal?: string | number): boolean {
    if (!this.#task.kill(signal === undefined ? undefined : signalNumber(signal))) return false
    this.#isKilled = true
    return true
  }

  /**
   * Changes the size of the command's terminal.
   *
   * @throws `TypeError` it has none, or the size is not one.
   */
  resize(size: TerminalSize): void {
    if (this.terminal === null) throw wrongType('option tty', 'set for resize()', undefined)
    this.terminal.resize(size)
  }

  /**
   * The lines of the command's output, as they arrive. Throws at the end if the command couldn't start. Leaving the loop early
   * closes the streams.
   */
  async *lines(options: { from?: 'stdout' | 'stderr' | 'all' } = {}): AsyncGenerator<string, void, undefined> {
    const from = options.from ?? 'stdout'
    const streams = [from === 'stderr' ? null : this.stdout, from === 'stdout' ? null : this.stderr]
    const open = streams.filter((stream) => stream !== null)
    const exit = this.wait()
    // The failure is thrown after the last line.
    exit.catch(() => {})
    try {
      yield* open.length === 1 ? lines(open[0] as Readable) : merge(open.map(lines))
    } finally {
      for (const stream of open) stream.destroy()
    }
    await exit
  }

  /** The lines of standard output. */
  [Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    return this.lines()
  }

  /** Keeps the event loop alive until the command ends; this is the default. */
  ref(): this {
    this.#task.hold()
    return this
  }

  /** Lets the event loop end before the command, which ends with this process. Open streams keep it alive too. */
  unref(): this {
    this.#task.release()
    return this
  }

  /** Kills the command, with the container that was made for it, and waits for the end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.ref()
    this.kill('SIGKILL')
    await this.wait().catch(() => {})
  }

  #launched({ stdin, stdout, stderr }: Launched): void {
    this.#stdin.arrive(stdin)
    this.#stdout.arrive(stdout)
    this.#stderr.arrive(stderr)
  }

  #started(report: ContainerReport): void {
    this.#report = report
    this.#ready.resolve(report)
    this.emit('spawn', report)
  }

  #ended(outcome: Outcome): void {
    // Whoever waits for the end may still ask for a stream. The pipes that nobody wanted by then are closed.
    setImmediate(() => this.#closePipes())
    if (outcome.kind === 'failed') {
      this.#failed(outcome.error as Error)
      return
    }
    const exit = toExit(outcome)
    if (outcome.kind === 'killed')
      this.#ready.reject(setUpError('image', 'pull the image', `interrupted by ${exit.signal}`))
    else if (this.#report === undefined)
      this.#ready.reject(setUpError('watch', 'start the command', 'it ended before it was seen to run'))
    this.#exit.resolve(exit)
    this.emit('exit', exit)
  }

  #failed(error: Error): void {
    const isExpected = this.#ready.isRequested || this.#exit.isRequested || this.#isKilled
    this.#ready.reject(error)
    this.#exit.reject(error)
    // An error that nobody waits for must not go unnoticed.
    if (this.listenerCount('error') > 0 || !isExpected) this.emit('error', error)
  }

  #closePipes(): void {
    this.#stdin.close()
    this.#stdin.stream?.destroy()
    for (const pipe of [this.#stdout, this.#stderr]) {
      pipe.close()
      // As in child_process: a stream that was asked for and that nobody reads would stay open forever.
      const { stream } = pipe
      if (stream && stream.readableFlowing === null && stream.listenerCount('readable') === 0) stream.resume()
    }
  }
}
