import { Command, Option } from 'commander'
import { type Flag, flags, groups, ownFlags } from './flags.ts'
import type { Line } from './plain.ts'

const EXAMPLES = `
Examples:
  nsrs run -it busybox sh                   a shell in an image, which is pulled if it is missing
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

/** Does what a command line of `nsrs run` asks for. */
export type Start = (line: Line) => Promise<void>

/** `nsrs run`, as far as this command line, as it was given, needs it. */
export function runCommand(words: readonly string[], start: Start): Command {
  const all = words.includes(HELP_ALL)
  // What is hidden is not suggested for a mistyped option either.
  const short = !all && ['--help', 'help'].some((word) => words.includes(word))
  const command = new Command('run')
    .description(
      "Run a command in a container of its own: of an image, or of another root (--rootfs) or this host's tree (--).\nExit codes: the command's; 125 nsrs failed, 126 not executable, 127 not found.",
    )
    .usage('[options] IMAGE [COMMAND [ARG...]] | [options] -- COMMAND [ARG...]')
    .argument('<image or command>')
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
  return command.action((name: string, rest: string[], given: Record<string, unknown>) => {
    const args = [name, ...rest]
    return start({ args, given, dashes: hasDashes(words, args) })
  })
}

/**
 * Did `--` stand before the arguments of this command line of `nsrs run`? Commander doesn't say; but if that word was the
 * last option's value, the words before it lack one.
 */
export function hasDashes(words: readonly string[], args: readonly string[]): boolean {
  const at = words.length - args.length - 1
  if (words[at] !== '--') return false
  try {
    const silent = runCommand(words, async () => {})
      .exitOverride()
      .configureOutput({ outputError: () => {} })
    silent.parseOptions(words.slice(1, at))
    return true
  } catch {
    return false
  }
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
