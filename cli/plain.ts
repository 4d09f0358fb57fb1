import { type Flag, flags, ownFlags } from './flags.ts'

/** A command line of `nsrs run`: an image or a command with its arguments, and the flags, as commander keeps them. */
export interface Line {
  args: string[]
  given: Record<string, unknown>
  /** `--` stood before the arguments: they are a command. */
  dashes: boolean
}

const all: Record<string, Flag> = { ...flags, ...ownFlags }

/** The flag of this name (`-e`, `--env`), and the property that its values are kept in. */
function find(name: string): [string, Flag] | undefined {
  return Object.entries(all).find(([, { flags, aliases = [] }]) =>
    [flags, ...aliases].some((text) => text.split(/[ ,]+/).includes(name)),
  )
}

/**
 * Reads a command line of `nsrs run` that is plain: each flag by its whole name and with what it needs, and a command.
 * Nearly all are, and loading commander takes as long as all the rest of our JavaScript. Of any other, one that asks for
 * help or is wrong among them, nothing is said here: it is `undefined`, and commander's to read.
 */
export function readPlain(words: readonly string[]): Line | undefined {
  const given: Line['given'] = {}
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
    given[key] = flag.many ? [...((given[key] as string[] | undefined) ?? []), value] : value
  }
  return at < words.length ? { args: words.slice(at), given, dashes } : undefined
}
