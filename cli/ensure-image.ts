import { constants } from 'node:os'
import { executeVisibly } from '../ts/images/nsrs-image.ts'
import { checkBeforeFetch } from '../ts/images/prepare.ts'
import type { ImageWork } from '../ts/images/pull-rule.ts'
import type { CoreOptions } from '../ts/options/types.ts'
import { peekIgnoredSignals } from './inherited-state.ts'
import { report, reportError, reportHint } from './report.ts'
import { type CliFlags, definedOptions } from './run-request.ts'

/**
 * Pulls or unpacks an image before it is run, if that is allowed. All other problems of the arguments and options are reported
 * first. Returns the exit code if something failed, otherwise `undefined`.
 */
export async function ensureImage(
  image: string,
  work: ImageWork,
  args: readonly string[],
  options: CoreOptions,
  flags: CliFlags,
): Promise<number | undefined> {
  ignoreSignalsAgain()
  try {
    const [command, ...rest] = args
    await checkBeforeFetch(command, rest, definedOptions(options), work.obstacle)
  } catch (error) {
    return reportError(error)
  }
  const hint = `nsrs run -- ${image} runs a command of this host, on its own tree`
  if (work.kind === 'refuse') {
    const { obstacle } = work
    // It may not be the name of an image at all.
    const isUnknown = ['ERR_NSRS_IMAGE_NOT_FOUND', 'ERR_NSRS_INVALID_ARGUMENT'].includes(obstacle.code)
    const { message, hint: own } = obstacle.shell ?? obstacle
    const hints = [own, isUnknown ? hint : undefined].filter(Boolean)
    return report([{ message, hint: hints.join('; '), exitCode: obstacle.exitCode }])
  }
  const code = await fetch(work, flags)
  if (code === 0) return undefined
  if (flags.progress !== 'json') {
    const { suggestions = [] } = work.obstacle ?? {}
    if (suggestions.length > 0) reportHint(`did you mean ${suggestions.join(' or ')}?`)
    reportHint(hint)
  }
  return code
}

/** Calls nsrs-image until one of the verbs succeeds. Returns the last exit code. */
async function fetch(work: Extract<ImageWork, { kind: 'fetch' }>, { quiet, progress }: CliFlags): Promise<number> {
  const flags = [...(quiet ? ['--quiet'] : []), ...(progress === undefined ? [] : [`--progress=${progress}`])]
  let code = 0
  for (const verb of work.verbs) {
    code = await executeVisibly(verb, [...flags, ...work.args])
    if (code === 0) break
  }
  return code
}

/** Ignores the signals again that the caller ignores, which Node has forgotten. nsrs-image does so by itself. */
function ignoreSignalsAgain(): void {
  const mask = peekIgnoredSignals()
  const fixed = ['SIGKILL', 'SIGSTOP']
  for (const [name, number] of Object.entries(constants.signals)) {
    if (mask & (1 << (number - 1)) && !fixed.includes(name)) process.on(name, () => {})
  }
}
