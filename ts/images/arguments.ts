import { checkAgainst, type Kind } from '../options/validate.ts'
import type * as Options from './options.ts'

/** An option: its type, and the argument of nsrs-image that it becomes. */
interface OptionArgument {
  kind: Kind
  /** `--name`, which takes the value; for a boolean, it is given if the value is true. */
  flag?: string
  /** For a boolean: given if the value is false. */
  negated?: string
  /** It is not passed as a flag. */
  notAFlag?: true
}

/** Every option of a call. A new one does not compile until it is listed here. */
type OptionArguments<Of> = Record<keyof Required<Of>, OptionArgument>

const any: OptionArguments<Options.ImageOptions> = { signal: { kind: 'abort', notAFlag: true } }

const registry: OptionArguments<Options.RegistryOptions> = {
  ...any,
  plainHttp: { kind: 'boolean', flag: '--plain-http' },
  caFile: { kind: 'word', flag: '--ca-file' },
  authFile: { kind: 'word', flag: '--authfile' },
}

const ratio = { kind: 'positive', flag: '--max-ratio' } as const
const jobs = { kind: 'jobs', flag: '--jobs' } as const
const unpack = { kind: 'boolean', negated: '--no-unpack' } as const
const named = { kind: 'word', notAFlag: true } as const

const calls = {
  any,
  pull: {
    ...registry,
    jobs,
    unpack,
    maxRatio: ratio,
    platform: { kind: 'word', flag: '--platform' },
  } satisfies OptionArguments<Options.PullOptions>,
  push: { ...registry, jobs, to: named } satisfies OptionArguments<Options.PushOptions>,
  list: { ...any, name: named } satisfies OptionArguments<Options.ListOptions>,
  unpack: { ...any, maxRatio: ratio } satisfies OptionArguments<Options.UnpackOptions>,
  load: {
    ...any,
    maxRatio: ratio,
    unpack,
    name: { kind: 'word', flag: '--name' },
  } satisfies OptionArguments<Options.LoadOptions>,
  save: { ...any, format: { kind: 'archive', flag: '--type' } } satisfies OptionArguments<Options.SaveOptions>,
  import: {
    ...any,
    maxRatio: ratio,
    name: named,
    message: { kind: 'word', flag: '--message' },
    changes: { kind: 'words', flag: '--change' },
    arch: { kind: 'word', flag: '--arch' },
  } satisfies OptionArguments<Options.ImportOptions>,
  remove: {
    ...any,
    force: { kind: 'boolean', flag: '--force' },
    prune: { kind: 'boolean', negated: '--no-prune' },
  } satisfies OptionArguments<Options.RemoveOptions>,
  prune: { ...any, all: { kind: 'boolean', flag: '--all' } } satisfies OptionArguments<Options.PruneOptions>,
  login: {
    ...registry,
    registry: named,
    username: { kind: 'line', flag: '--username' },
    password: { kind: 'line', notAFlag: true },
  } satisfies OptionArguments<Options.LoginOptions>,
  logout: { ...registry, registry: named } satisfies OptionArguments<Options.LogoutOptions>,
} satisfies Record<string, Record<string, OptionArgument>>

/** The options of each call. */
export const argumentTables: Record<keyof typeof calls, Record<string, OptionArgument>> = calls

/**
 * The arguments of nsrs-image for the options of a call. Flag and value are one argument, as values may begin with a
 * hyphen.
 *
 * @throws `TypeError` an unknown option, or one of the wrong type.
 */
export function toArguments(call: keyof typeof calls, options: object): string[] {
  const table = argumentTables[call]
  checkAgainst(Object.fromEntries(Object.entries(table).map(([key, { kind }]) => [key, kind])), options)
  return Object.entries(options).flatMap(([key, value]) => {
    const { flag, negated } = table[key] as OptionArgument
    if (value === undefined) return []
    if (typeof value === 'boolean') return (value ? flag : negated) ?? []
    if (flag === undefined) return []
    return (Array.isArray(value) ? value : [value]).map((item) => `${flag}=${item}`)
  })
}
