import { Argument, Command, Option } from 'commander'
import { native } from '../ts/native/load.ts'
import { type Verb, type VerbFlag, verbs } from './image-verbs.ts'
import { FAILED, report } from './report.ts'

/** `nsrs VERB`, or `nsrs image NAME`. */
export function verbCommand(verb: string, name = verb): Command {
  const { args, description, flags, examples } = verbs[verb] as Verb
  const command = new Command(name)
    .description(description)
    .helpOption('-h, --help', 'show this help')
    .usage(`${flags.length > 0 ? '[options] ' : ''}${args.toUpperCase().replace(/[<>]/g, '')}`.trimEnd())
    // The help texts name the choices.
    .configureHelp({ optionDescription: ({ description }) => description })
    .addHelpText('after', `\nExamples:\n${examples.map((line) => `  ${line}`).join('\n')}`)
  for (const arg of args.split(' ').filter(Boolean)) command.addArgument(new Argument(arg))
  for (const flag of flags) command.addOption(option(flag))
  return command.action(() => execute(verb, command))
}

/** `nsrs image` with docker's long forms. */
export function imageCommand(): Command {
  const command = new Command('image')
    .description('Manage images. All subcommands except prune are also commands: nsrs image pull is nsrs pull.')
    .usage('COMMAND ...')
    .helpOption('-h, --help', 'show this help')
    .helpCommand('help [COMMAND]', 'show help for a command')
    .configureHelp({ subcommandTerm: (command) => [command.name(), ...command.aliases()].join(', ') })
    .addHelpText(
      'after',
      '\nImages are stored in NSRS_IMAGE_DIR, by default /var/lib/nsrs/images or ~/.local/share/nsrs/images.',
    )
  for (const [verb, { long, summary }] of Object.entries(verbs)) {
    const made = verbCommand(verb, long ?? verb).summary(summary)
    command.addCommand(long === undefined ? made : made.alias(verb))
  }
  return command
}

function option({ flags, help, repeatable, choices }: VerbFlag): Option {
  const made = new Option(flags, help)
  // Commander would make --no-… a flag that is true by default.
  made.negate = false
  made.attributeName = () => made.long ?? flags
  if (choices) made.choices(choices)
  if (repeatable) made.argParser((text: string, before: string[] | undefined) => [...(before ?? []), text])
  return made
}

/** Returns what is contradictory in a command line, if anything. */
function findConflict(verb: string, given: Record<string, unknown>, [name]: string[]): string | undefined {
  if (verb === 'login' && given['--password-stdin'] && given['--username'] === undefined)
    return '--password-stdin needs a --username'
  const input = given['--input']
  if (verb === 'load' && input !== undefined && name !== undefined)
    return `load one archive at a time, not ${input} and ${name}`
  return undefined
}

/** Replaces this process by nsrs-image, which so gets terminal, signals and exit code. */
function execute(verb: string, command: Command): void {
  const given: Record<string, unknown> = command.opts()
  const conflict = findConflict(verb, given, command.args)
  if (conflict !== undefined) {
    process.exitCode = report([{ message: conflict }])
    return
  }
  const args = (verbs[verb] as Verb).flags.flatMap(({ flags, as }) => {
    const long = /--[\w-]+/.exec(flags)?.[0] as string
    const name = as === undefined ? long : as
    const value = given[long]
    if (name === null || value === undefined) return []
    // One argument, as a value may begin with a hyphen.
    return value === true ? [name] : [value].flat().map((item) => `${name}=${item}`)
  })
  const { binding, image } = native()
  process.exitCode = report([binding.imageInPlace(image, [verb, ...args, '--', ...command.args])]) || FAILED
}
