import type { ContainerOptions } from '../ts/binding.d.ts'
import { toRequest } from '../ts/internal/request.ts'
import { native } from '../ts/native/load.ts'
import { mayBeAltered } from './bytes.ts'
import { ignoredSignals } from './inherited.ts'
import type { Line } from './plain.ts'
import { report } from './report.ts'
import { type Own, understand, withoutImage } from './wish.ts'

/** The caller's variables that were asked for. */
function variables({ env = {}, envHost }: ContainerOptions): string[] {
  return Object.keys(envHost ? process.env : env).filter((name) => env[name] === undefined)
}

/** Does what a command line of `nsrs run` asks for: in the place of this process, unless that is not to be or can't be. */
export async function start({ args: words, given, dashes }: Line): Promise<void> {
  const wish = understand(given)
  const own = given as Own
  const suspects = variables(wish.options).filter((name) => mayBeAltered(process.env[name]))
  if (suspects.length > 0) wish.problems.push(...(await import('./commands.ts')).alteredVariables(suspects))
  // The first word is an image, unless something else is the root or it is said that a command begins here.
  const [image, ...rest] = words
  const isImage = !dashes && wish.options.rootfs === undefined && image !== undefined
  const args = isImage ? rest : words
  if (isImage) wish.options.rootfs = { image }
  else wish.problems.push(...withoutImage(own))
  if (isImage && wish.problems.length === 0 && (!own.explain || own.pull !== undefined)) {
    const { pull = 'missing', quiet = false, progress } = own
    const { platform } = wish.options
    // Nearly always it is there, and what could bring it isn't even read.
    if (pull === 'always' || native().binding.imageObstacle(image, platform)) {
      const { provide } = await import('./commands.ts')
      const code = await provide({ name: image, platform, pull, quiet, progress }, args, wish.options)
      if (code !== undefined) {
        process.exitCode = code
        return
      }
    }
  }
  if (own.explain || wish.problems.length > 0) return (await import('./commands.ts')).tell(args, wish, own)
  const { options, preserveFds } = wish
  const { binding, executable } = native()
  const [ignored, asJson] = [ignoredSignals(), own.format === 'json']
  const request = toRequest(args, options, { pass: preserveFds, passAs: preserveFds })
  const failure = binding.runInPlace(executable, request, ignored, asJson)
  process.exitCode = report([failure])
}
