import { CommanderError } from 'commander'
import { program } from './program.ts'
import { FAILED, reportError } from './report.ts'

async function main(): Promise<void> {
  try {
    await program(process.argv.slice(2)).parseAsync()
  } catch (error) {
    if (!(error instanceof CommanderError)) process.exitCode = reportError(error)
    // Help was asked for, or everything has been said already.
    else process.exitCode = error.exitCode === 0 ? 0 : FAILED
  }
}

void main()
