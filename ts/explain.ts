import { type Explanation, resolvePlan } from './internal/plan.ts'
import { splitArguments } from './options/arguments.ts'
import type { ContainerOptions } from './options/types.ts'

/**
 * Returns what {@link run} would do with the same arguments, without doing it. A missing image isn't pulled.
 *
 * @throws {@link NsrsError} with every problem of the call.
 */
export async function explain(
  first: string | ContainerOptions,
  second?: readonly string[] | ContainerOptions,
  third?: ContainerOptions,
): Promise<Explanation> {
  const [command, args, options] = splitArguments(first, second, third)
  return resolvePlan(command, args, options)
}
