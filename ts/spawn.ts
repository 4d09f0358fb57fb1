import { bringing } from './images/ensure.ts'
import { splitArguments } from './options/arguments.ts'
import type { OfImage, SpawnOptions } from './options/types.ts'
import { checkCommand, checkOptions } from './options/validate.ts'
import { Process } from './process.ts'

/**
 * Starts a command in a container of its own. What becomes of it is told by the returned {@link Process}.
 *
 * With an image the command may be left out: it is the image's own. An image that has yet to be brought or unpacked is
 * brought first, and what is written to the command meanwhile waits; file descriptors that are handed on must stay open
 * until {@link Process.ready}.
 *
 * @throws `TypeError` wrong arguments; the reason of an `AbortSignal` that was aborted before.
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
  return new Process(command, args, options, bringing(command, args, options))
}
