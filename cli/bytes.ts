import { readFileSync } from 'node:fs'
import type { Problem } from './report.ts'

/** Could Node have put U+FFFD in the place of bytes that are no UTF-8? Most calls need no closer look. */
export const mayBeAltered = (text: string | undefined): boolean => text?.includes('\ufffd') === true

/** Those of the words that end this process's command line which are not what the caller gave. */
export function alteredArguments(words: readonly string[]): Problem[] {
  const given = entries('/proc/self/cmdline').slice(-words.length)
  return words.flatMap((word, index) =>
    given[index]?.equals(Buffer.from(word)) === false
      ? [problem(`argument ${index + 1}`, 'pass them in a file or by standard input')]
      : [],
  )
}

/** Those of the caller's variables that are not what the caller has. */
export function alteredVariables(names: readonly string[]): Problem[] {
  const own = entries('/proc/self/environ')
  return names.flatMap((name) => {
    const start = Buffer.from(`${name}=`)
    const entry = own.find((entry) => entry.subarray(0, start.length).equals(start))
    const isAltered = entry?.equals(Buffer.from(`${name}=${process.env[name]}`)) === false
    return isAltered ? [problem(`the variable ${name}`, 'set it in the container, by a shell there')] : []
  })
}

function problem(what: string, hint: string): Problem {
  return { message: `${what} holds bytes that are no UTF-8, which Node would alter`, hint }
}

/** What a file of proc(5) holds, each with a NUL behind it. */
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
