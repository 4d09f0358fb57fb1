import { Command, Option } from 'commander'
import { type Flag, flags, groups, ownFlags } from './flags.ts'
import { start } from './start.ts'

const EXAMPLES = `
Examples:
  nsrs run -- npm test                      on the host's own tree, leaving nothing behind
  nsrs run --rootfs ./alpine -it sh         a shell in another root
  nsrs run --network none --timeout 10 -- ./untrusted
  nsrs run -v ./src:/src:ro -w /src --rootfs ./debian -- make
`

/** The options that most need, by the property that commander keeps them in. Their help fits a screen. */
const common: ReadonlySet<string> = new Set<keyof typeof flags | keyof typeof ownFlags>([
  'rootfs',
  'readOnly',
  'volumes',
  'tmpfs',
  'network',
  'publish',
  'env',
  'workdir',
  'user',
  'hostname',
  'tty',
  'init',
  'timeout',
  'capAdd',
  'capDrop',
  'envFile',
  'explain',
])

/** Asks for the help of all options. */
const HELP_ALL = '--help-all'

/** `nsrs run`, as far as these arguments need it. */
export function runCommand(args: readonly string[]): Command {
  const all = args.includes(HELP_ALL)
  // What is hidden is not suggested for a mistyped option either.
  const short = !all && ['--help', 'help'].some((word) => args.includes(word))
  const command = new Command('run')
    .description(
      "Run a command in a container of its own. The exit code is the command's;\n125 nsrs failed, 126 not executable, 127 not found.",
    )
    .usage('[options] [--] COMMAND [ARG...]')
    .argument('<command>')
    .argument('[args...]')
    .passThroughOptions()
    .helpOption(all ? HELP_ALL : '--help', all ? 'show this' : `show this; ${HELP_ALL} shows all options`)
    .addHelpText('after', EXAMPLES)
  for (const [heading, keys] of Object.entries(groups)) {
    command.optionsGroup(`${heading}:`)
    for (const key of keys) addFlag(command, key, flags[key], short)
  }
  command.optionsGroup('Other:')
  for (const [key, flag] of Object.entries(ownFlags)) addFlag(command, key, flag, short)
  return command.action((name: string, args: string[], given: Record<string, unknown>) => start([name, ...args], given))
}

/** The property that commander keeps a flag's values in is the option's own name. */
function addFlag(command: Command, key: string, flag: Flag, short: boolean): void {
  for (const [index, text] of [flag.flags, ...(flag.aliases ?? [])].entries()) {
    const option = new Option(text, flag.help)
    option.attributeName = () => key
    if (index > 0 || (short && !common.has(key))) option.hideHelp()
    if (flag.many) option.argParser(collect)
    if (flag.choices) option.choices(flag.choices)
    command.addOption(option)
  }
}

function collect(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text]
}
