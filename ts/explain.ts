import { split, words } from './arguments.ts'
import { toRequest } from './convert.ts'
import type { ContainerOptions } from './options.ts'
import { question } from './question.ts'
import { checkCommand, checkOptions } from './validate.ts'

/** A plan that was resolved and not carried out. */
export interface Explanation {
  /** For people. */
  text: string
  /** The whole plan. Its shape may change from version to version. */
  plan: unknown
}

/**
 * Resolves what {@link run} would do with the same arguments, and does nothing: an image that is missing isn't pulled.
 *
 * @throws {@link NsrsError} with every problem of the call.
 */
export async function explain(
  first: string | ContainerOptions,
  second?: readonly string[] | ContainerOptions,
  third?: ContainerOptions,
): Promise<Explanation> {
  const [command, args, options] = split(first, second, third)
  return explainWords(command, args, options)
}

/** The same, of a command that only an image can do without. */
export async function explainWords(
  command: string | undefined,
  args: readonly string[],
  options: ContainerOptions,
): Promise<Explanation> {
  checkCommand(command, args, options)
  checkOptions(options)
  const { text, json } = await question(
    (supervisor) => supervisor.explain(toRequest(words(command, args), options, {})),
    (event) => event.explained,
  )
  return { text, plan: JSON.parse(json) }
}
