import { cliFlags, type Flag, flags } from './flags.ts'

/** A command line of `nsrs run`. */
export interface RunCommandLine {
  /** The image or the command, and its arguments. */
  args: string[]
  /** The values of the flags by property, as commander returns them. */
  given: Record<string, unknown>
  /** There was a `--` before the arguments, so they are a command. */
  dashes: boolean
}

const all: Record<string, Flag> = { ...flags, ...cliFlags }

/** The flag of this name (`-e`, `--env`), and the property that holds its values. */
function find(name: string): [string, Flag] | undefined {
  return Object.entries(all).find(([, { flags, aliases = [] }]) =>
    [flags, ...aliases].some((text) => text.split(/[ ,]+/).includes(name)),
  )
}

/**
 * Parses a simple command line of `nsrs run`: full names of flags, with their values, then a command. Nearly all are simple,
 * and loading commander takes as long as the rest of our JavaScript. Returns `undefined` for any other, including requests
 * for help and errors, which are left to commander.
 */
export function fastParse(words: readonly string[]): RunCommandLine | undefined {
  const given: RunCommandLine['given'] = {}
  if (words[0] !== 'run') return undefined
  let at = 1
  let dashes = false
  for (; at < words.length; at++) {
    const word = words[at] as string
    if (word === '--') {
      dashes = true
      at++
      break
    }
    if (!/^-./s.test(word)) break
    const [, name, attached] = /^(--[^=]+)=(.*)$/s.exec(word) ?? [undefined, word]
    const [key, flag] = find(name as string) ?? []
    if (key === undefined || flag === undefined) return undefined
    const takesValue = flag.flags.includes('<')
    const value = takesValue ? (attached ?? words[++at]) : true
    if (value === undefined || (attached !== undefined && !takesValue)) return undefined
    if (flag.choices?.includes(value as string) === false) return undefined
    given[key] = flag.repeatable ? [...((given[key] as string[] | undefined) ?? []), value] : value
  }
  return at < words.length ? { args: words.slice(at), given, dashes } : undefined
}
