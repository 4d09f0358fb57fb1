import { Command, CommanderError } from 'commander'
import { version } from '../ts/native/version.ts'
import { applyCommand } from './apply.ts'
import { doctorCommand } from './doctor.ts'
import { imageCommand, verbCommand } from './image-commands.ts'
import { verbs } from './image-verbs.ts'
import { infoCommand } from './info.ts'
import { FAILED, print, report } from './report.ts'
import { runCommand, type Start } from './run.ts'

const EXAMPLES = `
Examples:
  nsrs run -it busybox sh    a shell in an image, pulled if missing
  nsrs run -- npm test       on this host's tree, leaving nothing`

/** The commands for containers and the host. */
const commands: Record<string, { summary: string; make: (words: readonly string[], start: Start) => Command }> = {
  run: { summary: 'run a command in a container', make: runCommand },
  apply: { summary: 'apply kept changes to the real tree', make: applyCommand },
  doctor: { summary: 'check what this host can do', make: doctorCommand },
  info: { summary: 'show version, paths and host', make: infoCommand },
}

/** The commands for images. */
const images: typeof commands = Object.fromEntries([
  ...Object.entries(verbs)
    .filter(([, { onlyLong }]) => !onlyLong)
    .map(([name, { summary }]) => [name, { summary, make: () => verbCommand(name) }]),
  ['image', { summary: "prune; docker's long forms", make: imageCommand }],
])

/** Lists all commands in few enough lines for any screen. */
function overview(): string {
  const lines = ['Linux containers without a daemon. Usage: nsrs COMMAND ...', '', 'Containers:']
  for (const [name, { summary }] of Object.entries(commands)) lines.push(`  ${name.padEnd(9)}${summary}`)
  lines.push('', 'Images:')
  const cells = Object.entries(images).map(([name, { summary }]) => `  ${name.padEnd(9)}${summary}`)
  const half = Math.ceil(cells.length / 2)
  for (let row = 0; row < half; row++) {
    lines.push(`${(cells[2 * row] as string).padEnd(38)}${cells[2 * row + 1] ?? ''}`)
  }
  lines.push('', 'nsrs COMMAND --help shows the options of a command; nsrs --version the version.')
  return `${lines.join('\n')}\n`
}

/** The command line, with what is needed to parse these arguments: only the called command is built, to save time. */
export function program(args: readonly string[], start: Start): Command {
  const nsrs = new Command('nsrs')
    .version(version, '--version', 'print the version')
    .helpOption('-h, --help', 'show this help')
    .helpCommand('help [COMMAND]', 'show help for a command')
    .enablePositionalOptions()
    .configureHelp({ formatHelp: overview })
    .addHelpText('after', EXAMPLES)
  const named = args.find((arg) => !arg.startsWith('-'))
  for (const [name, { summary, make }] of Object.entries({ ...commands, ...images })) {
    nsrs.addCommand(name === named || named === 'help' ? make(args, start) : new Command(name).summary(summary))
  }
  useOwnErrors(nsrs)
  return nsrs
}

/** Lets all commands throw errors and print them in our format. */
function useOwnErrors(command: Command): void {
  command
    .exitOverride()
    .configureOutput({ outputError: (text) => outputError(suggestLonger(text, command)), writeOut: print })
  for (const inner of command.commands) useOwnErrors(inner)
}

/** Carries out a command line; `start` does so if it is one of `nsrs run`. */
export async function execute(args: readonly string[], start: Start): Promise<void> {
  try {
    await program(args, start).parseAsync(args, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    // It was a request for help, or the error has been printed.
    process.exitCode = error.exitCode === 0 ? 0 : FAILED
  }
}

/** Suggests the options that begin with the unknown one, in place of those that are spelled similarly. */
function suggestLonger(text: string, command: Command): string {
  const [, name] = /unknown option '(--[\w-]{2,})'/.exec(text) ?? []
  const longer = command.options.flatMap(({ long, hidden }) =>
    name !== undefined && !hidden && long?.startsWith(name) ? [long] : [],
  )
  if (longer.length === 0 || longer.length > 4) return text
  return `unknown option '${name}' (Did you mean ${longer.length > 1 ? 'one of ' : ''}${longer.join(', ')}?)`
}

/** Prints an error of commander, whose suggestion is on a line of its own. */
function outputError(text: string): void {
  const message = text.trim().replace(/^error: /, '')
  report([{ message: message.replaceAll('\n', ' ') }])
}
