import type { CoreOptions, PullPolicy } from '../ts/options/types.ts'
import { quote } from './escape.ts'
import { descriptors, envFile, securityOption, ValueError } from './flag-values.ts'
import { flags } from './flags.ts'
import { inheritedFds } from './inherited-state.ts'
import type { Problem } from './report.ts'

/** The values of the flags that are not options of a container. */
export interface CliFlags {
  envFile?: string[]
  securityOpt?: string[]
  preserveFd?: string[]
  interactive?: boolean
  rm?: boolean
  pull?: PullPolicy
  quiet?: boolean
  progress?: string
  explain?: boolean
  format?: 'text' | 'json'
}

/** What a command line of `nsrs run` asks for. */
export interface RunRequest {
  options: CoreOptions
  preserveFds: number[]
  problems: Problem[]
}

/** Converts the values of flags to the options of a container, and collects all problems. */
export function parseRunFlags(given: Record<string, unknown>): RunRequest {
  const problems: Problem[] = []
  const parse = <T>(name: string, text: string, value: (text: string) => T): T | undefined => {
    try {
      return value(text)
    } catch (error) {
      if (!(error instanceof ValueError)) throw error
      problems.push({ message: `invalid ${name} ${quote(text)}: ${error.message}` })
      return undefined
    }
  }
  const parseAll = <T>(name: string, texts: string[] | undefined, value: (text: string) => T): T[] =>
    (texts ?? []).map((text) => parse(name, text, value)).filter((item) => item !== undefined)

  const options: Record<string, unknown> = {}
  for (const key of Object.keys(given).filter((key) => Object.hasOwn(flags, key)) as (keyof CoreOptions)[]) {
    const flag = flags[key]
    const name = /--[\w-]+/.exec(flag.flags)?.[0] ?? key
    const value = flag.parse ?? ((text: string) => text)
    const raw = given[key]
    if (!flag.repeatable) options[key] = typeof raw === 'string' || flag.parse ? parse(name, String(raw), value) : raw
    else options[key] = (flag.combine ?? ((list) => list))(parseAll(name, raw as string[], value))
  }
  const own = given as CliFlags
  const fromFiles = parseAll('--env-file', own.envFile, envFile).flat()
  if (fromFiles.length > 0) options.env = { ...Object.fromEntries(fromFiles), ...(options.env as object | undefined) }
  for (const allow of parseAll('--security-opt', own.securityOpt, securityOption)) options.allowNewPrivileges = allow
  if (own.format !== undefined && !own.explain && !options.diff)
    problems.push({
      message: '--format needs --explain or --diff',
      hint: 'add one of them, or remove --format',
    })
  const preserveFds = [...new Set(parseAll('--preserve-fd', own.preserveFd, descriptors).flat())]
  const open = inheritedFds()
  for (const fd of preserveFds.filter((fd) => open?.has(fd) === false))
    problems.push({ message: `invalid --preserve-fd "${fd}": the caller has no such open file descriptor` })
  return { options: options as CoreOptions, preserveFds, problems }
}

/** The options without undefined values, as the library takes them. */
export function definedOptions(options: CoreOptions): CoreOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
}

/** Problems for flags that need an image, if the root is not one. */
export function misplacedImageFlags(flags: CliFlags): Problem[] {
  const given = (['pull', 'quiet', 'progress'] as const).filter((key) => flags[key] !== undefined)
  return given.map((key) => ({
    message: `--${key} is only for images, and the root is not an image here`,
    hint: 'to run an image: nsrs run [options] IMAGE [COMMAND...], without -- before it',
  }))
}
