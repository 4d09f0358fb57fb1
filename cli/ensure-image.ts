import { constants } from 'node:os'
import type { ContainerOptions } from '../ts/binding.d.ts'
import { checkAhead, lack } from '../ts/images/ensure.ts'
import { executeVisibly } from '../ts/images/nsrs-image.ts'
import type { PullPolicy } from '../ts/options/types.ts'
import { peekIgnoredSignals } from './inherited-state.ts'
import { report, reportError } from './report.ts'
import { definedOptions } from './run-request.ts'

/** What the command line says of an image. */
export interface Image {
  name: string
  platform: string | undefined
  pull: PullPolicy
  quiet: boolean
  progress: string | undefined
}

/**
 * Brings an image into the store if it has to be: on a terminal, live. Returns the exit code of what failed, else
 * `undefined`. What is wrong with these arguments and options, whatever the image is, is told before.
 */
export async function ensureImage(
  { name, platform, pull, quiet, progress }: Image,
  args: readonly string[],
  options: ContainerOptions,
): Promise<number | undefined> {
  ignoreAgain()
  try {
    const [command, ...rest] = args
    await checkAhead(command, rest, definedOptions(options))
  } catch (error) {
    return reportError(error)
  }
  const missing = lack({ image: name, platform, pull })
  if (missing === undefined) return undefined
  const hint = `nsrs run -- ${name} runs a command of this host, on its own tree`
  if ('failure' in missing) {
    const { failure } = missing
    // Whether it was the name of an image at all, only the caller knows.
    const isNone = ['ERR_NSRS_IMAGE_NOT_FOUND', 'ERR_NSRS_INVALID_ARGUMENT'].includes(failure.code)
    const hints = [failure.hint, isNone ? hint : undefined].filter(Boolean)
    return report([{ ...failure, hint: hints.join('; ') }])
  }
  const words = [...(quiet ? ['--quiet'] : []), ...(progress === undefined ? [] : [`--progress=${progress}`])]
  let code = await executeVisibly(missing.verb, [...words, ...missing.args])
  // A part of it is gone.
  if (code !== 0 && missing.verb === 'prepare' && pull !== 'never')
    code = await executeVisibly('pull', [...words, ...missing.args])
  if (code === 0) return undefined
  const hints = [missing.near, hint].filter((text) => text !== undefined)
  if (progress !== 'json') process.stderr.write(hints.map((text) => `hint: ${text}\n`).join(''))
  return code
}

/** Has this process, which forgot what was ignored when it was started, ignore it again; nsrs-image does so by itself. */
function ignoreAgain(): void {
  const mask = peekIgnoredSignals()
  const fixed = ['SIGKILL', 'SIGSTOP']
  for (const [name, number] of Object.entries(constants.signals)) {
    if (mask & (1 << (number - 1)) && !fixed.includes(name)) process.on(name, () => {})
  }
}
