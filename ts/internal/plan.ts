import { fromRecords } from '../errors/nsrs-error.ts'
import { native } from '../native/load.ts'
import { commandWords } from '../options/arguments.ts'
import type { ContainerOptions } from '../options/types.ts'
import { checkCommand, checkOptions } from '../options/validate.ts'
import { toSpec } from './request.ts'

/** What a call would do. */
export interface Explanation {
  /** For people. */
  text: string
  /** The whole plan. Its shape may change from version to version. */
  plan: unknown
}

/**
 * Resolves the plan of a call without carrying it out. The command may be left out if the root is an image.
 *
 * @throws {@link NsrsError} with every problem of the call.
 */
export async function resolvePlan(
  command: string | undefined,
  args: readonly string[],
  options: ContainerOptions,
): Promise<Explanation> {
  checkCommand(command, args, options)
  checkOptions(options)
  const { text, json, failed } = native().binding.explain(toSpec(commandWords(command, args), options, {}))
  if (failed !== undefined) throw fromRecords(failed)
  return { text, plan: JSON.parse(json) }
}
