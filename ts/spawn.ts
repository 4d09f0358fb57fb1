import { split } from './arguments.ts'
import type { SpawnOptions } from './options.ts'
import { Process } from './process.ts'
import { checkCommand, checkOptions } from './validate.ts'

/**
 * Starts a command in a container of its own. What becomes of it is told by the returned {@link Process}.
 *
 * @throws `TypeError` wrong arguments; the reason of an `AbortSignal` that was aborted before.
 */
export function spawn(command: string, args?: readonly string[], options?: SpawnOptions): Process
export function spawn(command: string, options?: SpawnOptions): Process
export function spawn(command: string, second?: readonly string[] | SpawnOptions, third?: SpawnOptions): Process {
  const [args, options] = split(second, third)
  checkCommand(command, args)
  checkOptions(options)
  options.signal?.throwIfAborted()
  return new Process(command, args, options)
}
