import { readPlain } from './plain.ts'
import { reportError } from './report.ts'
import { start } from './start.ts'

async function main(): Promise<void> {
  const words = process.argv.slice(2)
  try {
    const line = readPlain(words)
    if (line !== undefined) await start(line)
    else await (await import('./commands.ts')).execute(words)
  } catch (error) {
    process.exitCode = reportError(error)
  }
}

void main()
