import { Command, Option } from 'commander'
import type { RunCommandLine } from './fast-parse.ts'
import { cliFlags, type Flag, flags, groups } from './flags.ts'

const EXAMPLES = `
Examples:
  nsrs run -it busybox sh                   a shell in an image, which is pulled if missing
  nsrs run -- npm test                      on this host's own tree, leaving nothing behind
  nsrs run --rootfs ./alpine -it sh         a shell in another root
  nsrs run --network none --timeout 10 -- ./untrusted
  nsrs run -v ./src:/src:ro -w /src --rootfs ./debian -- make
`

/** The most common options, by property: the short help shows only these, to fit on one screen. */
const common: ReadonlySet<string> = new Set<keyof typeof flags | keyof typeof cliFlags>([
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

/** The flag for the help of all options. */
const HELP_ALL = '--help-all'

/** Carries out a command line of `nsrs run`. */
export type Start = (line: RunCommandLine) => Promise<void>

/** `nsrs run`, with what is needed to parse this command line. */
export function runCommand(words: readonly string[], start: Start): Command {
  const all = words.includes(HELP_ALL)
  // Commander doesn't suggest hidden options for a mistyped one, so they are hidden only when help was asked for.
  const short = !all && ['--help', 'help'].some((word) => words.includes(word))
  const command = new Command('run')
    .description(
      "Run a command in a new container: on an image, on a root directory (--rootfs) or on this host's tree (--).\nExit codes: the command's; 125 nsrs failed, 126 not executable, 127 not found.",
    )
    .usage('[options] IMAGE [COMMAND [ARG...]] | [options] -- COMMAND [ARG...]')
    .argument('<image or command>')
    .argument('[args...]')
    .passThroughOptions()
    .helpOption(all ? HELP_ALL : '--help', all ? 'show this help' : `show this help; ${HELP_ALL} shows all options`)
    .addHelpText('after', EXAMPLES)
  for (const [heading, keys] of Object.entries(groups)) {
    command.optionsGroup(`${heading}:`)
    for (const key of keys) addFlag(command, key, flags[key], short)
  }
  command.optionsGroup('Other:')
  for (const [key, flag] of Object.entries(cliFlags)) addFlag(command, key, flag, short)
  return command.action((name: string, rest: string[], given: Record<string, unknown>) => {
    const args = [name, ...rest]
    return start({ args, given, dashes: hasDashes(words, args) })
  })
}

/**
 * Whether `--` preceded the arguments in this command line of `nsrs run`. Commander doesn't say. If that word was the value of
 * the last option, then the words before it lack a value.
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

/** Adds a flag. Commander puts its values in the property `key`, the option's own name. */
function addFlag(command: Command, key: string, flag: Flag, short: boolean): void {
  for (const [index, text] of [flag.flags, ...(flag.aliases ?? [])].entries()) {
    const option = new Option(text, flag.help)
    option.attributeName = () => key
    if (index > 0 || (short && !common.has(key))) option.hideHelp()
    if (flag.repeatable) option.argParser(collect)
    if (flag.choices) option.choices(flag.choices)
    command.addOption(option)
  }
}

function collect(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text]
}
