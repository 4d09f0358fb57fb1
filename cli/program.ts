import { Command, CommanderError } from 'commander'
import { version } from '../ts/native/version.ts'
import { applyCommand } from './apply.ts'
import { doctorCommand } from './doctor.ts'
import { imageCommand, verbCommand } from './images.ts'
import { infoCommand } from './info.ts'
import { FAILED, report, say } from './report.ts'
import { runCommand, type Start } from './run.ts'
import { verbs } from './verbs.ts'

const EXAMPLES = `
Examples:
  nsrs run -it busybox sh    a shell in an image, pulled if it is missing
  nsrs run -- npm test       on this host's tree, leaving nothing`

/** The commands that are no verbs of images. */
const commands: Record<string, { summary: string; make: (words: readonly string[], start: Start) => Command }> = {
  run: { summary: 'run a command in a container', make: runCommand },
  apply: { summary: 'bring kept changes into the real tree', make: applyCommand },
  doctor: { summary: 'check what this host can do', make: doctorCommand },
  info: { summary: 'tell version, paths and host', make: infoCommand },
}

/** The verbs of images that are commands, with `image` for the rest. */
const images: typeof commands = Object.fromEntries([
  ...Object.entries(verbs)
    .filter(([, { onlyLong }]) => !onlyLong)
    .map(([name, { summary }]) => [name, { summary, make: () => verbCommand(name) }]),
  ['image', { summary: "prune; docker's long forms", make: imageCommand }],
])

/** All commands in few enough lines for any screen. */
function overview(): string {
  const lines = ['Linux containers without a daemon. Usage: nsrs COMMAND ...', '', 'Containers:']
  for (const [name, { summary }] of Object.entries(commands)) lines.push(`  ${name.padEnd(9)}${summary}`)
  lines.push('', 'Images:')
  const cells = Object.entries(images).map(([name, { summary }]) => `  ${name.padEnd(9)}${summary}`)
  const half = Math.ceil(cells.length / 2)
  for (let row = 0; row < half; row++) {
    lines.push(`${(cells[2 * row] as string).padEnd(38)}${cells[2 * row + 1] ?? ''}`)
  }
  lines.push('', 'nsrs COMMAND --help tells more; nsrs --version the version.')
  return `${lines.join('\n')}\n`
}

/** The command line as far as these arguments need it. Only the command that is called is made: that takes a while. */
export function program(args: readonly string[], start: Start): Command {
  const nsrs = new Command('nsrs')
    .version(version, '--version', 'print the version')
    .helpOption('-h, --help', 'show this')
    .helpCommand('help [COMMAND]', 'show the help of a command')
    .enablePositionalOptions()
    .configureHelp({ formatHelp: overview })
    .addHelpText('after', EXAMPLES)
  const named = args.find((arg) => !arg.startsWith('-'))
  for (const [name, { summary, make }] of Object.entries({ ...commands, ...images })) {
    nsrs.addCommand(name === named || named === 'help' ? make(args, start) : new Command(name).summary(summary))
  }
  tame(nsrs)
  return nsrs
}

/** Errors are thrown and told our way, in all commands. */
function tame(command: Command): void {
  command.exitOverride().configureOutput({ outputError: (text) => outputError(guess(text, command)), writeOut: say })
  for (const inner of command.commands) tame(inner)
}

/** Does what these arguments say; `start` does so where they are of `nsrs run`. */
export async function execute(args: readonly string[], start: Start): Promise<void> {
  try {
    await program(args, start).parseAsync(args, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    // Help was asked for, or everything has been said already.
    process.exitCode = error.exitCode === 0 ? 0 : FAILED
  }
}

/** A shortened option (`--time`) is sooner meant to be a longer one than another that is spelled alike. */
function guess(text: string, command: Command): string {
  const [, name] = /unknown option '(--[\w-]{2,})'/.exec(text) ?? []
  const longer = command.options.flatMap(({ long, hidden }) =>
    name !== undefined && !hidden && long?.startsWith(name) ? [long] : [],
  )
  if (longer.length === 0 || longer.length > 4) return text
  return `unknown option '${name}' (Did you mean ${longer.length > 1 ? 'one of ' : ''}${longer.join(', ')}?)`
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
