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

/** `nsrs run`. */
export function runCommand(): Command {
  const command = new Command('run')
    .description(
      "Run a command in a container of its own. The exit code is the command's;\n125 nsrs failed, 126 not executable, 127 not found.",
    )
    .usage('[options] [--] COMMAND [ARG...]')
    .argument('<command>')
    .argument('[args...]')
    .passThroughOptions()
    .helpOption('--help', 'show this')
    .addHelpText('after', EXAMPLES)
  for (const [heading, keys] of Object.entries(groups)) {
    command.optionsGroup(`${heading}:`)
    for (const key of keys) addFlag(command, key, flags[key])
  }
  command.optionsGroup('Other:')
  for (const [key, flag] of Object.entries(ownFlags)) addFlag(command, key, flag)
  return command.action((name: string, args: string[], given: Record<string, unknown>) => start([name, ...args], given))
}

/** The property that commander keeps a flag's values in is the option's own name. */
function addFlag(command: Command, key: string, flag: Flag): void {
  for (const [index, text] of [flag.flags, ...(flag.aliases ?? [])].entries()) {
    const option = new Option(text, flag.help)
    option.attributeName = () => key
    if (index > 0) option.hideHelp()
    if (flag.many) option.argParser(collect)
    if (flag.choices) option.choices(flag.choices)
    command.addOption(option)
  }
}

function collect(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text]
}
