import { fastParse } from './fast-parse.ts'
import { mayBeAltered } from './non-utf8.ts'
import { report, reportError } from './report.ts'
import { start } from './start.ts'

async function main(): Promise<void> {
  const words = process.argv.slice(2)
  try {
    const problems = words.some(mayBeAltered) ? (await import('./commands.ts')).alteredArguments(words) : []
    const line = fastParse(words)
    if (problems.length > 0) process.exitCode = report(problems)
    else if (line !== undefined) await start(line)
    else await (await import('./commands.ts')).execute(words, start)
  } catch (error) {
    process.exitCode = reportError(error)
  }
}

void main()
