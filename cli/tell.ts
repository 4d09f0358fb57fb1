import { resolvePlan } from '../ts/internal/plan.ts'
import { FAILED, report, reportError, say } from './report.ts'
import { known, type Own, type Wish } from './wish.ts'

/** Explains, or tells every problem: those of the command line and those of the plan together. */
export async function tell(args: string[], { options, problems }: Wish, own: Own): Promise<void> {
  try {
    const [command, ...rest] = args
    const { text, plan } = await resolvePlan(command, rest, known(options))
    if (problems.length === 0) say(own.format === 'json' ? `${JSON.stringify(plan, null, 2)}\n` : text)
    else process.exitCode = report(problems)
  } catch (error) {
    report(problems)
    const code = reportError(error)
    process.exitCode = problems.length > 0 ? FAILED : code
  }
}
