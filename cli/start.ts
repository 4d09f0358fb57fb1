import { caller } from '../ts/caller.ts'
import { toNative } from '../ts/convert.ts'
import { native } from '../ts/native.ts'
import { report } from './report.ts'
import { type Own, understand } from './wish.ts'

/** Does what a command line of `nsrs run` asks for: in the place of this process, unless that is not to be or can't be. */
export async function start(args: string[], given: Record<string, unknown>): Promise<void> {
  const wish = understand(given)
  const own = given as Own
  if (own.explain || wish.problems.length > 0) return (await import('./commands.ts')).tell(args, wish, own)
  const { options, preserveFds } = wish
  const { binding, executable } = native()
  process.exitCode = report([binding.runInPlace(executable, args, toNative(options), caller(options), preserveFds)])
}
