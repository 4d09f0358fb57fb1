import { imageWork } from '../ts/images/pull-rule.ts'
import { toSpec } from '../ts/internal/request.ts'
import { native } from '../ts/native/load.ts'
import type { CoreOptions } from '../ts/options/types.ts'
import type { RunCommandLine } from './fast-parse.ts'
import { ignoredSignals } from './inherited-state.ts'
import { mayBeAltered } from './non-utf8.ts'
import { report } from './report.ts'
import { type CliFlags, misplacedImageFlags, parseRunFlags } from './run-request.ts'

/** The names of the caller's variables that the container gets. */
function inheritedVariables({ env = {}, envHost }: CoreOptions): string[] {
  return Object.keys(envHost ? process.env : env).filter((name) => env[name] === undefined)
}

/** Carries out a command line of `nsrs run`. Unless that fails or only explains, the container replaces this process. */
export async function start({ args: words, given, dashes }: RunCommandLine): Promise<void> {
  const request = parseRunFlags(given)
  const { options, preserveFds, problems } = request
  const flags = given as CliFlags
  const suspects = inheritedVariables(options).filter((name) => mayBeAltered(process.env[name]))
  if (suspects.length > 0) problems.push(...(await import('./commands.ts')).alteredVariables(suspects))
  // The first word is an image, unless there is another root or it follows a --.
  const [image, ...rest] = words
  const isImage = !dashes && options.rootfs === undefined && image !== undefined
  const args = isImage ? rest : words
  if (isImage) options.rootfs = { image }
  else problems.push(...misplacedImageFlags(flags))
  if (isImage && problems.length === 0 && (!flags.explain || flags.pull !== undefined)) {
    const work = imageWork({ image, platform: options.platform, pull: flags.pull })
    // Nearly always the image is ready, and the code that pulls isn't even read.
    if (work !== undefined) {
      const code = await (await import('./commands.ts')).ensureImage(image, work, args, options, flags)
      if (code !== undefined) {
        process.exitCode = code
        return
      }
    }
  }
  if (flags.explain || problems.length > 0) return (await import('./commands.ts')).explainRun(args, request, flags)
  const { binding, executable } = native()
  const spec = toSpec(args, options, { preserveFds, changesForm: flags.format ?? 'text' })
  const failure = binding.runInPlace(executable, spec, preserveFds, ignoredSignals())
  process.exitCode = report([failure])
}
