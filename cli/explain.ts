import { resolvePlan } from '../ts/internal/plan.ts'
import { FAILED, printJson, printLines, report, reportError } from './report.ts'
import { type CliFlags, definedOptions, type RunRequest } from './run-request.ts'

/** Prints the plan, or all problems of the command line and the plan. */
export async function explainRun(
  args: string[],
  { options, problems }: RunRequest,
  { format }: CliFlags,
): Promise<void> {
  try {
    const [command, ...rest] = args
    const { text, plan } = await resolvePlan(command, rest, definedOptions(options))
    if (problems.length > 0) process.exitCode = report(problems)
    else if (format === 'json') printJson(plan)
    else printLines(text)
  } catch (error) {
    report(problems)
    const code = reportError(error)
    process.exitCode = problems.length > 0 ? FAILED : code
  }
}
