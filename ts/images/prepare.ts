import type { ErrorRecord } from '../binding.d.ts'
import { fromRecords, NsrsError } from '../errors/nsrs-error.ts'
import { resolvePlan } from '../internal/plan.ts'
import { native } from '../native/load.ts'
import { imageOf } from '../options/arguments.ts'
import type { ContainerOptions, ProcessOptions, PullPolicy } from '../options/types.ts'

/** The image that a container runs from. */
export interface Wanted {
  image: string
  platform: string | undefined
  pull: PullPolicy
}

/**
 * What has to be done before a container can run from the image: nothing, where it is `undefined`. `near` says which images
 * of the store may have been meant.
 */
export type Lack = { verb: 'pull' | 'prepare'; args: string[]; near?: string | undefined } | { failure: ErrorRecord }

/**
 * What the store lacks of an image. The addon looks into the store, without a process; what isn't there is brought by
 * nsrs-image.
 */
export function lack({ image, platform, pull }: Wanted): Lack | undefined {
  const args = [...(platform === undefined ? [] : [`--platform=${platform}`]), '--', image]
  if (pull === 'always') return { verb: 'pull', args }
  const record = native().binding.imageObstacle(image, platform)
  if (!record) return undefined
  if (record.code === 'ERR_NSRS_IMAGE_NOT_READY') return { verb: 'prepare', args }
  if (record.code === 'ERR_NSRS_IMAGE_NOT_FOUND' && pull === 'missing') {
    return { verb: 'pull', args, near: record.hint?.startsWith('did you mean') ? record.hint : undefined }
  }
  return { failure: record }
}

/**
 * Brings the image that a container is to run from, if it has to be brought; nothing, if the container can be asked for at
 * once. What can't be had at all is the supervisor's to say, together with whatever else is wrong.
 */
export function provide(
  command: string | undefined,
  args: readonly string[],
  options: ProcessOptions,
): Promise<void> | undefined {
  const { platform, pull = 'missing', signal } = options
  const image = imageOf(options)
  if (image === undefined) return undefined
  const missing = lack({ image, platform, pull })
  if (missing === undefined || 'failure' in missing) return undefined
  return checkAhead(command, args, options).then(() => bring(missing, pull, signal))
}

/**
 * Tells what is wrong with a call whatever its image is, where that is missing: to bring it may take long.
 *
 * @throws {@link NsrsError} with every such problem.
 */
export async function checkAhead(command: string | undefined, args: readonly string[], options: ContainerOptions) {
  const image = imageOf(options)
  const obstacle = image === undefined ? null : native().binding.imageObstacle(image, options.platform)
  if (!obstacle) return
  try {
    await resolvePlan(command, args, options)
  } catch (error) {
    if (!(error instanceof NsrsError)) throw error
    const others = error.errors.filter(({ message }) => message !== obstacle.message)
    if (others.length > 0) throw fromRecords(others)
  }
}

/** An image on its way, and how to stop it. */
export interface Bringing {
  brought: Promise<void>
  control: AbortController
}

/** As {@link provide}, for who may have enough of it before it is over. */
export function bringing(
  command: string | undefined,
  args: readonly string[],
  options: ProcessOptions,
): Bringing | undefined {
  if (imageOf(options) === undefined) return undefined
  const control = new AbortController()
  const brought = provide(command, args, { ...options, signal: control.signal })
  return brought && { brought, control }
}

async function bring({ verb, args }: Exclude<Lack, { failure: unknown }>, pull: PullPolicy, signal?: AbortSignal) {
  const { execute } = await import('./nsrs-image.ts')
  try {
    await execute({ verb, args, signal })
  } catch (error) {
    // A part of it is gone.
    if (verb === 'pull' || pull === 'never' || signal?.aborted) throw error
    await execute({ verb: 'pull', args, signal })
  }
}
