import { readFileSync } from 'node:fs'
import type { Problem } from './report.ts'

/** Whether Node may have replaced bytes that aren't UTF-8 by U+FFFD. Most texts need no closer look. */
export const mayBeAltered = (text: string | undefined): boolean => text?.includes('\ufffd') === true

/** Reports which arguments Node has altered. `words` are the last ones on this process's command line. */
export function alteredArguments(words: readonly string[]): Problem[] {
  const given = entries('/proc/self/cmdline').slice(-words.length)
  return words.flatMap((word, index) =>
    given[index]?.equals(Buffer.from(word)) === false
      ? [problem(`argument ${index + 1}`, 'pass them in a file or on standard input')]
      : [],
  )
}

/** Reports which of the caller's variables Node has altered. */
export function alteredVariables(names: readonly string[]): Problem[] {
  const own = entries('/proc/self/environ')
  return names.flatMap((name) => {
    const start = Buffer.from(`${name}=`)
    const entry = own.find((entry) => entry.subarray(0, start.length).equals(start))
    const isAltered = entry?.equals(Buffer.from(`${name}=${process.env[name]}`)) === false
    return isAltered ? [problem(`the variable ${name}`, 'set it by a shell in the container')] : []
  })
}

function problem(what: string, hint: string): Problem {
  return { message: `${what} contains bytes that are not UTF-8, which Node would alter`, hint }
}

/** The NUL-terminated strings in a file of proc(5). */
function entries(path: string): Buffer[] {
  const bytes = readFileSync(path)
  const found: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(0, at)
    found.push(bytes.subarray(at, end < 0 ? bytes.length : end))
    at = end < 0 ? bytes.length : end + 1
  }
  return found
}
