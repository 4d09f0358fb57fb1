import type { ErrorRecord } from '../binding.d.ts'
import { fromRecords, NsrsError } from '../errors/nsrs-error.ts'
import { resolvePlan } from '../internal/plan.ts'
import { imageOf } from '../options/arguments.ts'
import type { ContainerOptions } from '../options/types.ts'
import { type ImageWork, imageWork } from './pull-rule.ts'

/**
 * Returns what makes a call's image ready, or `undefined` if the container can be launched at once. An image that can't be
 * had is left to the supervisor, which reports it together with all other problems.
 */
export function imagePreparation(
  command: string | undefined,
  args: readonly string[],
  options: ContainerOptions,
): ((signal: AbortSignal) => Promise<void>) | undefined {
  const image = imageOf(options)
  if (image === undefined) return undefined
  const work = imageWork({ image, platform: options.platform, pull: options.pull })
  if (work?.kind !== 'fetch') return undefined
  return async (signal) => {
    await checkBeforeFetch(command, args, options, work.obstacle)
    await fetch(work, signal)
  }
}

/**
 * Checks a call before its image is fetched, as that may take long. `obstacle`: why the image can't be used yet; without it
 * the call is checked when it is launched.
 *
 * @throws {@link NsrsError} with every problem other than the obstacle.
 */
export async function checkBeforeFetch(
  command: string | undefined,
  args: readonly string[],
  options: ContainerOptions,
  obstacle: ErrorRecord | undefined,
): Promise<void> {
  if (obstacle === undefined) return
  try {
    await resolvePlan(command, args, options)
  } catch (error) {
    if (!(error instanceof NsrsError)) throw error
    const others = error.errors.filter(({ code, subject }) => code !== obstacle.code || subject !== obstacle.subject)
    if (others.length > 0) throw fromRecords(others)
  }
}

async function fetch({ verbs, args }: Extract<ImageWork, { kind: 'fetch' }>, signal: AbortSignal): Promise<void> {
  const { execute } = await import('./nsrs-image.ts')
  for (const [index, verb] of verbs.entries()) {
    try {
      await execute({ verb, args, signal })
      return
    } catch (error) {
      if (signal.aborted || index === verbs.length - 1) throw error
    }
  }
}
