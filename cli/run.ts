import { Command, Option } from 'commander'
import type { ContainerOptions } from '../ts/binding.d.ts'
import { caller } from '../ts/caller.ts'
import { toNative } from '../ts/launch.ts'
import { native } from '../ts/native.ts'
import { type Flag, flags, groups } from './flags.ts'
import { inherited } from './inherited.ts'
import { FAILED, type Problem, report, reportError, say } from './report.ts'
import { descriptors, envFile, securityOption, ValueError } from './values.ts'

type Key = keyof ContainerOptions

const EXAMPLES = `
Examples:
  nsrs run -- npm test                      on the host's own tree, leaving nothing behind
  nsrs run --rootfs ./alpine -it sh         a shell in another root
  nsrs run --network none --timeout 10 -- ./untrusted
  nsrs run -v ./src:/src:ro -w /src --rootfs ./debian -- make
`

/** Flags that are no options of a container. */
interface Own {
  envFile?: string[]
  securityOpt?: string[]
  preserveFd?: string[]
  interactive?: boolean
  explain?: boolean
  format?: 'text' | 'json'
}

/** What the command line asks for. */
interface Wish {
  options: ContainerOptions
  preserveFds: number[]
  problems: Problem[]
}

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
  addMany(command, '--env-file <FILE>', 'variables from a file, a line each')
  addMany(command, '--security-opt <OPT>', 'no-new-privileges:false is --allow-new-privileges')
  addMany(command, '--preserve-fd <LIST>', 'hand on open file descriptors, such as 3,5-7')
  command.option('-i, --interactive', "accepted as docker's; standard input is always connected")
  command.option('--explain', 'print what would be done, and do nothing')
  command.addOption(new Option('--format <FORMAT>', 'with --explain: text or json').choices(['text', 'json']))
  return command.action((name: string, args: string[], given: Record<string, unknown>) => start([name, ...args], given))
}

/** The property that commander keeps a flag's values in is the option's own name. */
function addFlag(command: Command, key: Key, flag: Flag): void {
  for (const [index, text] of [flag.flags, ...(flag.aliases ?? [])].entries()) {
    const option = new Option(text, flag.help)
    option.attributeName = () => key
    if (index > 0) option.hideHelp()
    if (flag.many) option.argParser(collect)
    command.addOption(option)
  }
}

function addMany(command: Command, text: string, help: string): void {
  command.addOption(new Option(text, help).argParser(collect))
}

function collect(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text]
}

function start(args: string[], given: Record<string, unknown>): void | Promise<void> {
  const wish = understand(given)
  const own = given as Own
  if (own.explain || wish.problems.length > 0) return tell(args, wish, own)
  const { options, preserveFds } = wish
  const { binding, executable } = native()
  process.exitCode = report([binding.runInPlace(executable, args, toNative(options), caller(options), preserveFds)])
}

/** The container's options for what was given, and what is wrong with it. */
function understand(given: Record<string, unknown>): Wish {
  const problems: Problem[] = []
  const parse = <T>(name: string, text: string, value: (text: string) => T): T | undefined => {
    try {
      return value(text)
    } catch (error) {
      if (!(error instanceof ValueError)) throw error
      problems.push({ message: `invalid ${name} ${JSON.stringify(text)}: ${error.message}` })
      return undefined
    }
  }
  const parseAll = <T>(name: string, texts: string[] | undefined, value: (text: string) => T): T[] =>
    (texts ?? []).map((text) => parse(name, text, value)).filter((item) => item !== undefined)

  const options: Record<string, unknown> = {}
  for (const key of Object.keys(given).filter((key) => Object.hasOwn(flags, key)) as Key[]) {
    const flag = flags[key]
    const name = /--[\w-]+/.exec(flag.flags)?.[0] ?? key
    const value = flag.value ?? ((text: string) => text)
    const raw = given[key]
    if (!flag.many) options[key] = typeof raw === 'string' || flag.value ? parse(name, String(raw), value) : raw
    else options[key] = (flag.together ?? ((list) => list))(parseAll(name, raw as string[], value))
  }
  const own = given as Own
  const fromFiles = parseAll('--env-file', own.envFile, envFile).flat()
  if (fromFiles.length > 0) options.env = { ...Object.fromEntries(fromFiles), ...(options.env as object | undefined) }
  for (const allow of parseAll('--security-opt', own.securityOpt, securityOption)) options.allowNewPrivileges = allow
  const preserveFds = [...new Set(parseAll('--preserve-fd', own.preserveFd, descriptors).flat())]
  const open = inherited()
  for (const fd of preserveFds.filter((fd) => open?.has(fd) === false))
    problems.push({ message: `invalid --preserve-fd "${fd}": the caller has no such open file descriptor` })
  return { options: options as ContainerOptions, preserveFds, problems }
}

/** Explains, or tells every problem: those of the command line and those of the plan together. */
async function tell(args: string[], { options, problems }: Wish, own: Own): Promise<void> {
  try {
    const [command = '', ...rest] = args
    const { explain } = await import('../ts/explain.ts')
    const known = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
    const { text, plan } = await explain(command, rest, known)
    if (problems.length === 0) say(own.format === 'json' ? `${JSON.stringify(plan, null, 2)}\n` : text)
    else process.exitCode = report(problems)
  } catch (error) {
    report(problems)
    const code = reportError(error)
    process.exitCode = problems.length > 0 ? FAILED : code
  }
}
