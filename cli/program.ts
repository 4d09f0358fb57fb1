import { Command, CommanderError } from 'commander'
import { version } from '../ts/version.ts'
import { doctorCommand } from './doctor.ts'
import { infoCommand } from './info.ts'
import { FAILED, report, say } from './report.ts'
import { runCommand } from './run.ts'

const EXAMPLES = `
Examples:
  nsrs run -- npm test                 on this host's tree, leaving nothing
  nsrs run --rootfs ./alpine -it sh    a shell in another root
  nsrs run --explain -- true           what would be done
  nsrs doctor                          what this host can do
`

/** The commands. Only the one that is called is made: of `run` that takes a few milliseconds. */
const commands = {
  run: { summary: 'run a command in a container', make: runCommand },
  doctor: { summary: 'check what this host can do', make: doctorCommand },
  info: { summary: 'tell version, paths and host', make: infoCommand },
}

/** The command line as far as these arguments need it. */
export function program(args: readonly string[]): Command {
  const nsrs = new Command('nsrs')
    .description('Linux containers without a daemon.')
    .usage('COMMAND ...')
    .version(version, '--version', 'print the version')
    .helpOption('-h, --help', 'show this')
    .helpCommand('help [COMMAND]', 'show the help of a command')
    .enablePositionalOptions()
    .addHelpText('after', EXAMPLES)
  const named = args.find((arg) => !arg.startsWith('-'))
  for (const [name, { summary, make }] of Object.entries(commands)) {
    nsrs.addCommand(name === named || named === 'help' ? make(args) : new Command(name).summary(summary))
  }
  for (const command of [nsrs, ...nsrs.commands]) command.exitOverride().configureOutput({ outputError, writeOut: say })
  return nsrs
}

/** Does what these arguments say. */
export async function execute(args: readonly string[]): Promise<void> {
  try {
    await program(args).parseAsync(args, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    // Help was asked for, or everything has been said already.
    process.exitCode = error.exitCode === 0 ? 0 : FAILED
  }
}

function outputError(text: string): void {
  report([
    {
      message: text
        .trim()
        .replace(/^error: /, '')
        .replaceAll('\n', ' '),
    },
  ])
}
