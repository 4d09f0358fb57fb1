import { EventEmitter } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import type { ContainerReport, NativeEvent, TerminalSize } from './binding.d.ts'
import { fromRecords, localError } from './errors/nsrs-error.ts'
import type { Bringing } from './images/ensure.ts'
import { Canceler } from './internal/canceler.ts'
import { End, readLate, writeLate } from './internal/deferred-pipe.ts'
import { type Launched, launch } from './internal/launch.ts'
import { connect, hold, release } from './internal/supervisor.ts'
import { lines, merge } from './io/lines.ts'
import { readable, writable } from './io/pipe-streams.ts'
import { Terminal } from './io/terminal.ts'
import { signalNumber } from './options/signals.ts'
import type { SpawnOptions } from './options/types.ts'
import { wrongType } from './options/validate.ts'
import { type Exit, toExit } from './result.ts'

/** A promise that is made only when somebody asks for it, so that nobody has to handle it. */
class Later<T> {
  #promise: Promise<T> | undefined
  #settle: ((resolve: (value: T) => void, reject: (error: Error) => void) => void) | undefined
  #waiting: [(value: T) => void, (error: Error) => void] | undefined

  get isAsked(): boolean {
    return this.#promise !== undefined
  }

  get promise(): Promise<T> {
    this.#promise ??= new Promise((resolve, reject) => {
      if (this.#settle) this.#settle(resolve, reject)
      else this.#waiting = [resolve, reject]
    })
    return this.#promise
  }

  settle(how: (resolve: (value: T) => void, reject: (error: Error) => void) => void): void {
    if (this.#settle) return
    this.#settle = how
    if (this.#waiting) how(...this.#waiting)
  }
}

const SIGTERM = 15

/** Why an image was brought no further: its process was killed before there was a container. */
class Killed {
  readonly exit: Exit
  readonly error: Error

  constructor(signal: number, durationMs: number) {
    const usage = { userMs: 0, systemMs: 0, maxRss: 0 }
    this.exit = toExit({ signal, timedOut: false, durationMs, usage }, undefined, false)
    this.error = localError(
      'ERR_NSRS_SETUP_FAILED',
      'bring the image',
      `${this.exit.signal} ended it before it was here`,
    )
  }
}

/** The events of a {@link Process}. */
export interface ProcessEvents {
  /** The command runs. */
  spawn: [report: ContainerReport]
  /** The command has ended, and nothing of the container is left. Output may still be on its way. */
  exit: [exit: Exit]
  /** There is no container, and nothing of it is left: an {@link NsrsError}, or why the call was aborted. */
  error: [error: Error]
}

/** A command in a container of its own, while it runs. */
export class Process extends EventEmitter<ProcessEvents> implements AsyncDisposable {
  /** The command's terminal, if it was given one with `tty`. */
  readonly terminal: Terminal | null
  #launched: Launched | undefined
  /** Until its image is there. */
  #bringing: Bringing | undefined
  #isHeld = true
  readonly #stdin: End<Writable>
  readonly #stdout: End<Readable>
  readonly #stderr: End<Readable>
  #canceler: Canceler | undefined
  readonly #killSignal: number | undefined
  readonly #ready = new Later<ContainerReport>()
  readonly #exit = new Later<Exit>()
  #report: ContainerReport | undefined
  #isOver = false
  #isKilled = false
  readonly #begun = performance.now()

  /** @internal Made by {@link spawn}. */
  constructor(command: string | undefined, args: readonly string[], options: SpawnOptions, bringing?: Bringing) {
    super()
    const { killSignal } = options
    if (killSignal !== undefined) this.#killSignal = signalNumber(killSignal, 'killSignal')
    this.terminal = options.tty ? new Terminal(options.tty) : null
    const stdio = [options.stdin ?? 'pipe', options.stdout ?? 'pipe', options.stderr ?? 'pipe'] as const
    const [stdin, stdout, stderr] = stdio.map((kind) => (kind === 'pipe' && !options.tty ? undefined : -1))
    this.#stdin = new End(stdin, writable, writeLate)
    this.#stdout = new End(stdout, readable, readLate)
    this.#stderr = new End(stderr, readable, readLate)
    const start = () =>
      this.#start(
        launch(command, args, options, stdio, (event) => this.#hear(event), true),
        options,
      )
    if (bringing === undefined) start()
    else this.#bring(bringing, options.signal, start)
  }

  /** The command's standard input, or its terminal; `null` where it is not a pipe. */
  get stdin(): Writable | null {
    return this.terminal ?? this.#stdin.get()
  }

  /** The command's standard output, or its terminal; `null` where it is not a pipe. */
  get stdout(): Readable | null {
    return this.terminal ?? this.#stdout.get()
  }

  /** The command's standard error; `null` where it is not a pipe, or with a terminal. */
  get stderr(): Readable | null {
    return this.#stderr.get()
  }

  /** Process id of the container's first process, as the host sees it; `undefined` until the command runs. */
  get pid(): number | undefined {
    return this.#report?.pid
  }

  /** What the container was given, when the command runs. Rejects where there is no container. */
  get ready(): Promise<ContainerReport> {
    return this.#ready.promise
  }

  /** `kill()` has been called. */
  get killed(): boolean {
    return this.#isKilled
  }

  /** How the command ended, whatever its exit code. Rejects where there is no container. */
  wait(): Promise<Exit> {
    return this.#exit.promise
  }

  /**
   * Sends a signal to the command, by default `killSignal`. Returns false if the container is gone. While its image is still
   * being brought, any signal ends that, and what was to run as if it had run.
   */
  kill(signal?: string | number): boolean {
    const number = signal === undefined ? this.#killSignal : signalNumber(signal)
    if (this.#isOver) return false
    if (this.#launched === undefined) {
      if (number !== 0 && this.#bringing !== undefined) this.#endBringing(this.#bringing, number ?? SIGTERM)
    } else connect().kill(this.#launched.id, number)
    this.#isKilled = true
    return true
  }

  /** Changes the size of the command's terminal. */
  resize(size: TerminalSize): void {
    if (this.terminal === null) throw wrongType('option tty', 'set for resize()', undefined)
    this.terminal.resize(size)
  }

  /**
   * The lines of the command's output, as they come. Throws at the end where there was no container; leaving the loop
   * early closes the streams.
   */
  async *lines(options: { from?: 'stdout' | 'stderr' | 'all' } = {}): AsyncGenerator<string, void, undefined> {
    const from = options.from ?? 'stdout'
    const streams = [from === 'stderr' ? null : this.stdout, from === 'stdout' ? null : this.stderr]
    const open = streams.filter((stream) => stream !== null)
    const exit = this.wait()
    // Whoever iterates is told of a failure when the lines are over.
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

  /** The event loop stays alive until the container ends; this is the default. */
  ref(): this {
    this.#isHeld = true
    if (this.#launched !== undefined) hold(this.#launched.id)
    return this
  }

  /** The event loop may end before the container, which ends with this process. Open streams keep it alive as well. */
  unref(): this {
    this.#isHeld = false
    if (this.#launched !== undefined) release(this.#launched.id)
    return this
  }

  /** Kills the container and waits until nothing of it is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.kill('SIGKILL')
    await this.wait().catch(() => {})
  }

  /** Waits for the image, unless somebody has enough of that. */
  async #bring(bringing: Bringing, signal: AbortSignal | undefined, start: () => void): Promise<void> {
    this.#bringing = bringing
    const { control, brought } = bringing
    const abort = () => control.abort(signal?.reason)
    signal?.addEventListener('abort', abort, { once: true })
    try {
      await brought
      control.signal.throwIfAborted()
      start()
    } catch (error) {
      if (error instanceof Killed) this.#over(() => this.#killed(error))
      else this.#over(() => this.#failed(error as Error))
    } finally {
      this.#bringing = undefined
      signal?.removeEventListener('abort', abort)
    }
  }

  #endBringing({ control }: Bringing, signal: number): void {
    control.abort(new Killed(signal, performance.now() - this.#begun))
  }

  #killed({ exit, error }: Killed): void {
    this.#ready.settle((_, reject) => reject(error))
    this.#ended(exit)
  }

  #start(launched: Launched, options: SpawnOptions): void {
    this.#launched = launched
    const { id, stdin, stdout, stderr } = launched
    this.#stdin.arrive(stdin)
    this.#stdout.arrive(stdout)
    this.#stderr.arrive(stderr)
    if (options.signal) this.#canceler = new Canceler(id, options.signal, options)
    if (!this.#isHeld) release(id)
  }

  #hear(event: NativeEvent): void {
    if (event.started !== undefined) {
      const report = event.started
      this.#report = report
      this.#ready.settle((resolve) => resolve(report))
      this.emit('spawn', report)
    } else if (event.terminal !== undefined) {
      this.terminal?.attach(event.terminal)
    } else {
      this.#over(() => {
        if (event.exited !== undefined)
          this.#ended(toExit(event.exited, event.changes, this.#canceler?.isCanceled === true))
        else this.#failed(fromRecords(event.failed ?? []))
      })
    }
  }

  #over(tell: () => void): void {
    this.#isOver = true
    this.#canceler?.stop()
    // Whoever waits for the end may still reach for a stream; what nobody has wanted by then is let go.
    setImmediate(() => this.#letGo())
    try {
      tell()
    } finally {
      this.terminal?.over()
    }
  }

  #ended(exit: Exit): void {
    // A command can end before it was told to run only where its start was not heard of.
    this.#exit.settle((resolve) => resolve(exit))
    this.emit('exit', exit)
  }

  #failed(error: Error): void {
    const isHeard = this.#ready.isAsked || this.#exit.isAsked
    this.#ready.settle((_, reject) => reject(error))
    this.#exit.settle((_, reject) => reject(error))
    // An error that nobody looks for must not be lost, unless it is what somebody wanted.
    if (this.listenerCount('error') > 0 || !(isHeard || this.#isKilled)) this.emit('error', error)
  }

  #letGo(): void {
    this.#stdin.close()
    this.#stdin.stream?.destroy()
    for (const end of [this.#stdout, this.#stderr]) {
      end.close()
      // As child_process does: what was asked for and is read by nobody would stay open for good.
      const stream = end.stream
      if (stream && stream.readableFlowing === null && stream.listenerCount('readable') === 0) stream.resume()
    }
  }
}
