import { imagePreparation } from './images/prepare.ts'
import { launch } from './internal/launch.ts'
import { Terminal } from './io/terminal.ts'
import { splitArguments } from './options/arguments.ts'
import type { OfImage, SpawnOptions } from './options/types.ts'
import { checkCommand, checkOptions } from './options/validate.ts'
import { Process } from './process.ts'

/**
 * Starts a command in a new container. The returned {@link Process} reports what becomes of it.
 *
 * If the root is an image, the command may be left out: the image's own is run. An image that is not ready is pulled or
 * unpacked first; what is written to the command until then is buffered, and file descriptors that are passed to it must stay
 * open until {@link Process.ready}.
 *
 * @throws `TypeError` invalid arguments; the reason of an `AbortSignal` that was already aborted.
 */
export function spawn(command: string, args?: readonly string[], options?: SpawnOptions): Process
export function spawn(command: string, options?: SpawnOptions): Process
export function spawn(options: SpawnOptions & OfImage): Process
export function spawn(
  first: string | SpawnOptions,
  second?: readonly string[] | SpawnOptions,
  third?: SpawnOptions,
): Process {
  const [command, args, options] = splitArguments(first, second, third)
  checkCommand(command, args, options)
  checkOptions(options)
  options.signal?.throwIfAborted()
  const { stdin = 'pipe', stdout = 'pipe', stderr = 'pipe', tty } = options
  const isPiped = (stream: typeof stdin) => stream === 'pipe' && tty === undefined
  return new Process(
    {
      prepare: imagePreparation(command, args, options),
      launch: (listener) => launch(command, args, options, [stdin, stdout, stderr], listener, true),
      terminal: tty && new Terminal(tty),
      options,
    },
    { stdin: isPiped(stdin), stdout: isPiped(stdout), stderr: isPiped(stderr) },
  )
}
