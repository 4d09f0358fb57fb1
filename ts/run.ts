import { CollectedRun, type Start } from './collected-run.ts'
import { imagePreparation } from './images/prepare.ts'
import { launch } from './internal/launch.ts'
import { imageOf, splitArguments } from './options/arguments.ts'
import type { OfImage, RunOptions } from './options/types.ts'
import { checkCommand, checkRunOptions } from './options/validate.ts'
import type { Result } from './result.ts'

type Bytes = RunOptions & { encoding: 'buffer' }

/**
 * Runs a command in a new container. Resolves with its output and how it ended. If the root is an image, the command may be left
 * out: the image's own is run.
 *
 * @throws {@link ExitError} the command failed, {@link NsrsError} it couldn't be started, `TypeError` invalid arguments.
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
    checkRunOptions(options)
    options.signal?.throwIfAborted()
    const prepare = imagePreparation(command, args, options)
    const name = command ?? imageOf(options) ?? ''
    // Not announced: the report comes with the end, which saves an event.
    const start: Start = (stdio, listener) => launch(command, args, options, stdio, listener, false)
    new CollectedRun({ command: name, args, options, prepare, start }, resolve, reject).begin()
  })
}
