import type { ContainerOptions } from '../ts/binding.d.ts'
import type { PullPolicy } from '../ts/options/types.ts'
import { flags } from './flags.ts'
import { inheritedFds } from './inherited.ts'
import type { Problem } from './report.ts'
import { descriptors, envFile, securityOption, ValueError } from './values.ts'

/** Flags that are no options of a container, as they were given. */
export interface Own {
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

/** What the command line asks for. */
export interface Wish {
  options: ContainerOptions
  preserveFds: number[]
  problems: Problem[]
}

/** The container's options for what was given, and what is wrong with it. */
export function understand(given: Record<string, unknown>): Wish {
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
  for (const key of Object.keys(given).filter((key) => Object.hasOwn(flags, key)) as (keyof ContainerOptions)[]) {
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
  if (own.format !== undefined && !own.explain && !options.diff)
    problems.push({
      message: '--format says how --explain and --diff print',
      hint: 'add one of them, or leave --format out',
    })
  const preserveFds = [...new Set(parseAll('--preserve-fd', own.preserveFd, descriptors).flat())]
  const open = inheritedFds()
  for (const fd of preserveFds.filter((fd) => open?.has(fd) === false))
    problems.push({ message: `invalid --preserve-fd "${fd}": the caller has no such open file descriptor` })
  return { options: options as ContainerOptions, preserveFds, problems }
}

/** The options that were given, as the library takes them. */
export function known(options: ContainerOptions): ContainerOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
}

/** What was given that only an image could use. */
export function withoutImage(own: Own): Problem[] {
  const given = (['pull', 'quiet', 'progress'] as const).filter((key) => own[key] !== undefined)
  return given.map((key) => ({
    message: `--${key} says how an image is pulled, and no image is the root here`,
    hint: 'nsrs run [options] IMAGE [COMMAND...], without -- before the image',
  }))
}
