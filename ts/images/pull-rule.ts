import type { ErrorRecord } from '../binding.d.ts'
import { native } from '../native/load.ts'
import type { PullPolicy } from '../options/types.ts'

/** The image that a container is to run from. */
export interface RequestedImage {
  image: string
  platform?: string | undefined
  /** Default `'missing'`. */
  pull?: PullPolicy | undefined
}

/** What has to be done before a container can run from an image. */
export type ImageWork =
  /** nsrs-image has to be called with these verbs, in order, until one succeeds. `obstacle`: why the image can't be used now. */
  | { kind: 'fetch'; verbs: readonly ('pull' | 'prepare')[]; args: string[]; obstacle: ErrorRecord | undefined }
  /** The image can't be used, and may not be pulled or is not one. */
  | { kind: 'refuse'; obstacle: ErrorRecord }

/**
 * Decides whether an image is pulled or unpacked before a container runs from it: the one place for this rule. Looks into the
 * store once, without starting a process. Returns `undefined` if the image is ready.
 */
export function imageWork({ image, platform, pull = 'missing' }: RequestedImage): ImageWork | undefined {
  const obstacle = native().binding.imageObstacle(image, platform) ?? undefined
  const fetch = (...verbs: ('pull' | 'prepare')[]): ImageWork => {
    const args = [...(platform === undefined ? [] : [`--platform=${platform}`]), '--', image]
    return { kind: 'fetch', verbs, args, obstacle }
  }
  if (pull === 'always') return fetch('pull')
  if (obstacle === undefined) return undefined
  if (obstacle.code === 'ERR_NSRS_IMAGE_NOT_READY') {
    // Unpacking fails if a part of the image is missing, which a pull fetches again.
    return pull === 'never' ? fetch('prepare') : fetch('prepare', 'pull')
  }
  if (obstacle.code === 'ERR_NSRS_IMAGE_NOT_FOUND' && pull === 'missing') return fetch('pull')
  return { kind: 'refuse', obstacle }
}
