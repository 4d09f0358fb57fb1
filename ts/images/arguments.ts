import { checkAgainst, type Kind } from '../options/validate.ts'
import type * as Options from './options.ts'

/** An option: what it must be, and the words that say it to nsrs-image. */
interface Word {
  kind: Kind
  /** `--name`: a value follows, or, for a boolean, it stands where that is true. */
  flag?: string
  /** For a boolean: it stands where that is false. */
  unless?: string
  /** Not by the command line. */
  elsewhere?: true
}

/** Every option of a call; a new one does not compile until it stands here. */
type Words<Of> = Record<keyof Required<Of>, Word>

const any: Words<Options.ImageOptions> = { signal: { kind: 'abort', elsewhere: true } }

const registry: Words<Options.RegistryOptions> = {
  ...any,
  plainHttp: { kind: 'boolean', flag: '--plain-http' },
  caFile: { kind: 'word', flag: '--ca-file' },
  authFile: { kind: 'word', flag: '--authfile' },
}

const ratio = { kind: 'positive', flag: '--max-ratio' } as const
const jobs = { kind: 'jobs', flag: '--jobs' } as const
const unpack = { kind: 'boolean', unless: '--no-unpack' } as const
const named = { kind: 'word', elsewhere: true } as const

/** The options of each call. */
const tables = {
  any,
  pull: {
    ...registry,
    jobs,
    unpack,
    maxRatio: ratio,
    platform: { kind: 'word', flag: '--platform' },
  } satisfies Words<Options.PullOptions>,
  push: { ...registry, jobs, to: named } satisfies Words<Options.PushOptions>,
  list: { ...any, name: named } satisfies Words<Options.ListOptions>,
  unpack: { ...any, maxRatio: ratio } satisfies Words<Options.UnpackOptions>,
  load: {
    ...any,
    maxRatio: ratio,
    unpack,
    name: { kind: 'word', flag: '--name' },
  } satisfies Words<Options.LoadOptions>,
  save: { ...any, format: { kind: 'archive', flag: '--type' } } satisfies Words<Options.SaveOptions>,
  import: {
    ...any,
    maxRatio: ratio,
    name: named,
    message: { kind: 'word', flag: '--message' },
    changes: { kind: 'words', flag: '--change' },
    arch: { kind: 'word', flag: '--arch' },
  } satisfies Words<Options.ImportOptions>,
  remove: {
    ...any,
    force: { kind: 'boolean', flag: '--force' },
    prune: { kind: 'boolean', unless: '--no-prune' },
  } satisfies Words<Options.RemoveOptions>,
  prune: { ...any, all: { kind: 'boolean', flag: '--all' } } satisfies Words<Options.PruneOptions>,
  login: {
    ...registry,
    registry: named,
    username: { kind: 'line', flag: '--username' },
    password: { kind: 'line', elsewhere: true },
  } satisfies Words<Options.LoginOptions>,
  logout: { ...registry, registry: named } satisfies Words<Options.LogoutOptions>,
} satisfies Record<string, Record<string, Word>>

/** The words for the options of a call, each in one piece: a value may begin with a hyphen. Wrong options are thrown. */
export function toWords(call: keyof typeof tables, options: object): string[] {
  const table: Record<string, Word> = tables[call]
  checkAgainst(Object.fromEntries(Object.entries(table).map(([key, { kind }]) => [key, kind])), options)
  return Object.entries(options).flatMap(([key, value]) => {
    const { flag, unless } = table[key] as Word
    if (value === undefined) return []
    if (typeof value === 'boolean') return (value ? flag : unless) ?? []
    if (flag === undefined) return []
    return (Array.isArray(value) ? value : [value]).map((item) => `${flag}=${item}`)
  })
}
