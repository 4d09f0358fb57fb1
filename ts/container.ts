import type { ContainerReport } from './binding.d.ts'
import { CollectedRun, type Start } from './collected-run.ts'
import { setUpError } from './errors/nsrs-error.ts'
import { imagePreparation } from './images/prepare.ts'
import { later } from './internal/canceler.ts'
import { type Launched, launch, launchIn } from './internal/launch.ts'
import { LazyPromise } from './internal/lazy-promise.ts'
import { type Ended, Task } from './internal/task.ts'
import { Terminal } from './io/terminal.ts'
import { ownOptions, splitArguments } from './options/arguments.ts'
import { signalNumber } from './options/signals.ts'
import type { CreateOptions, EnterSpawnOptions, ExecOptions, StopOptions } from './options/types.ts'
import {
  checkCommand,
  checkCreateOptions,
  checkEnterOptions,
  checkExecOptions,
  checkStopOptions,
  wrongType,
} from './options/validate.ts'
import { Process } from './process.ts'
import { type Exit, type Result, toExit } from './result.ts'

type Bytes = ExecOptions & { encoding: 'buffer' }

/**
 * A container that is kept open and entered again and again. It ends when it is disposed of, when its own command ends, or
 * with this process; every command in it ends with it.
 */
export class Container implements AsyncDisposable {
  readonly #task: Task
  readonly #exit = new LazyPromise<Exit>()
  readonly #number: number
  /** What the container was given. */
  readonly report: ContainerReport

  private constructor(task: Task, number: number, report: ContainerReport) {
    this.#task = task
    this.#number = number
    this.report = report
  }

  /**
   * Creates a container and resolves when it can be entered. With a command that one is its first process, and the container
   * ends with it; without one it is a small init that waits and reaps orphans. Neither has standard streams.
   *
   * @throws {@link NsrsError} it couldn't be created, `TypeError` invalid arguments.
   */
  static create(command: string, args?: readonly string[], options?: CreateOptions): Promise<Container>
  static create(command: string, options?: CreateOptions): Promise<Container>
  static create(options?: CreateOptions): Promise<Container>
  static create(
    first?: string | CreateOptions,
    second?: readonly string[] | CreateOptions,
    third?: CreateOptions,
  ): Promise<Container> {
    return new Promise((resolve, reject) => {
      const [command, args, options] = createArguments(first, second, third)
      options.signal?.throwIfAborted()
      let launched: Launched | undefined
      let container: Container | undefined
      const task = new Task(
        {
          prepare: imagePreparation(command, args, options),
          launch: (listener) => launch(command, args, options, ['ignore', 'ignore', 'ignore'], listener, true, true),
          terminal: undefined,
          options,
        },
        {
          launched(asked) {
            launched = asked
          },
          started(report) {
            // It is being ended, and nobody is to enter it.
            if (options.signal?.aborted) return
            container = new Container(task, launched?.id ?? 0, report)
            resolve(container)
          },
          ended(outcome) {
            if (container === undefined) {
              // A command that has ended already has been run, but there is nothing to enter.
              reject(outcome.kind === 'failed' ? outcome.error : endedEarly(outcome, options))
            } else if (outcome.kind === 'failed') container.#exit.reject(outcome.error as Error)
            else container.#exit.resolve(toExit(outcome))
          },
        },
      )
      task.begin()
    })
  }

  /** Process id of the container's first process, as the host sees it. */
  get pid(): number {
    return this.report.pid
  }

  /**
   * Runs a command in the container. Resolves with its output and how it ended, as {@link run} does.
   *
   * @throws {@link ExitError} the command failed, {@link NsrsError} it couldn't be started, `TypeError` invalid arguments.
   */
  exec(command: string, args: readonly string[] | undefined, options: Bytes): Promise<Result<Uint8Array>>
  exec(command: string, options: Bytes): Promise<Result<Uint8Array>>
  exec(command: string, args?: readonly string[], options?: ExecOptions): Promise<Result>
  exec(command: string, options?: ExecOptions): Promise<Result>
  exec(
    first: string,
    second?: readonly string[] | ExecOptions,
    third?: ExecOptions,
  ): Promise<Result<string | Uint8Array>> {
    return new Promise((resolve, reject) => {
      const [command, args, options] = enterArguments(first, second, third, checkExecOptions)
      options.signal?.throwIfAborted()
      const start: Start = (stdio, listener) => launchIn(this.#number, command, args, options, stdio, listener, false)
      new CollectedRun({ command, args, options, prepare: undefined, start, entered: true }, resolve, reject).begin()
    })
  }

  /**
   * Starts a command in the container. The returned {@link Process} reports what becomes of it.
   *
   * @throws `TypeError` invalid arguments; the reason of an `AbortSignal` that was already aborted.
   */
  spawn(command: string, args?: readonly string[], options?: EnterSpawnOptions): Process
  spawn(command: string, options?: EnterSpawnOptions): Process
  spawn(first: string, second?: readonly string[] | EnterSpawnOptions, third?: EnterSpawnOptions): Process {
    const [command, args, options] = enterArguments(first, second, third, checkEnterOptions)
    options.signal?.throwIfAborted()
    const { stdin = 'pipe', stdout = 'pipe', stderr = 'pipe', tty } = options
    const isPiped = (stream: typeof stdin) => stream === 'pipe' && tty === undefined
    return new Process(
      {
        prepare: undefined,
        launch: (listener) => launchIn(this.#number, command, args, options, [stdin, stdout, stderr], listener, true),
        terminal: tty && new Terminal(tty),
        options,
      },
      { stdin: isPiped(stdin), stdout: isPiped(stdout), stderr: isPiped(stderr) },
    )
  }

  /** Sends a signal to the container's first process. Returns false if the container has ended. */
  kill(signal: string | number = 'SIGKILL'): boolean {
    return this.#task.kill(signalNumber(signal))
  }

  /**
   * Asks the container to end, and kills it after `timeout` milliseconds: its command is sent the image's stop signal or
   * `SIGTERM`; without one, all commands that entered are sent `SIGTERM`, and the container ends with the last of them. Nothing
   * can enter any more. Resolves when nothing of the container is left. Default 10 seconds, as docker's.
   *
   * @throws `TypeError` invalid options.
   */
  async stop(options: StopOptions = {}): Promise<Exit> {
    checkStopOptions(options)
    const { timeout = 10_000 } = options
    this.#task.kill()
    const timer = later(() => this.#task.kill(signalNumber('SIGKILL')), timeout)
    try {
      return await this.wait()
    } finally {
      clearTimeout(timer)
    }
  }

  /** Resolves when nothing of the container is left, with how its first process ended. */
  wait(): Promise<Exit> {
    return this.#exit.promise
  }

  /** Keeps the event loop alive until the container ends; this is the default. */
  ref(): this {
    this.#task.hold()
    return this
  }

  /** Lets the event loop end before the container, which ends with this process. */
  unref(): this {
    this.#task.release()
    return this
  }

  /** Kills the container with all that is in it, and waits until nothing of it is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    // Whoever waits is to see the end.
    this.ref()
    this.kill()
    await this.wait().catch(() => {})
  }
}

/** Command, arguments and options of a process that enters a container, checked. */
function enterArguments<Options extends ExecOptions | EnterSpawnOptions>(
  first: string,
  second: readonly string[] | Options | undefined,
  third: Options | undefined,
  check: (options: unknown) => void,
): [string, readonly string[], Options] {
  const isOptions = third === undefined && second !== undefined && !Array.isArray(second)
  const args = isOptions ? [] : ((second as readonly string[] | undefined) ?? [])
  const options = ownOptions(isOptions ? (second as Options) : (third ?? ({} as Options)))
  checkCommand(first, args, options)
  check(options)
  return [first, args, options]
}

/** Command, arguments and options of a container that is created, checked. */
function createArguments(
  first: unknown,
  second: readonly string[] | CreateOptions | undefined,
  third: CreateOptions | undefined,
): [string | undefined, readonly string[], CreateOptions] {
  const isAlone = typeof first === 'object' && first !== null && second === undefined && third === undefined
  if (isAlone || (first === undefined && second === undefined && third === undefined)) {
    const options = ownOptions(first ?? {})
    checkCreateOptions(options)
    return [undefined, [], options as CreateOptions]
  }
  if (second === null || third === null) throw wrongType('options', 'an object', null)
  const [command, args, options] = splitArguments(first as string, second, third)
  checkCommand(command, args, {})
  checkCreateOptions(options)
  return [command, args, options]
}

/** Why there is nothing to enter: it was ended, or ended by itself, before `create()` resolved. */
function endedEarly({ isCanceled, exit }: Ended, { signal, timeout }: CreateOptions): unknown {
  if (isCanceled) return signal?.reason
  if (exit.timedOut)
    return setUpError(
      'watch',
      'create the container',
      `its time limit of ${timeout} ms expired before it was ready`,
      'set a longer timeout: it counts from the call of create()',
    )
  return setUpError(
    'watch',
    'create the container',
    'its command ended before it could be entered',
    'give a command that stays, or none',
  )
}
