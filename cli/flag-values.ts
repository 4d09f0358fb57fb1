import { readFileSync } from 'node:fs'
import { quote } from './escape.ts'

/** Says what is wrong with a value on the command line. */
export class ValueError extends Error {}

/** An integer, such as `-7`. */
export function integer(text: string): number {
  const number = Number(text)
  if (/^[+-]?\d+$/.test(text) && Number.isSafeInteger(number)) return number
  throw new ValueError('not an integer')
}

const UNITS: Record<string, number> = { ms: 1, '': 1000, s: 1000, m: 60_000, h: 3_600_000 }

/** A time such as `1.5` (seconds), `500ms`, `2m` or `1h`, in milliseconds. */
export function milliseconds(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h|)$/.exec(text) ?? []
  const time = Math.ceil(Number(number) * (UNITS[unit ?? ''] ?? Number.NaN))
  if (time > 0 && Number.isSafeInteger(time)) return time
  throw new ValueError('not a time above 0, such as 1.5, 500ms, 10s, 2m or 1h')
}

/** Splits `NAME=VALUE`. The value is `undefined` if there is no `=`. */
export function pair(text: string): [string, string | undefined] {
  const at = text.indexOf('=')
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

/** A variable, `NAME[=VALUE]`. */
export function variable(text: string): [string, string | undefined] {
  const [name, value] = pair(text)
  if (name === '') throw new ValueError('the name is missing')
  return [name, value]
}

/** A kernel parameter, `NAME=VALUE`. */
export function sysctl(text: string): [string, string] {
  const [name, value] = pair(text)
  if (name === '' || value === undefined) throw new ValueError('not NAME=VALUE')
  return [name, value]
}

/** Reads variables from a file as docker does: one per line, `#` for comments; a name alone takes the caller's value. */
export function envFile(path: string): [string, string | undefined][] {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new ValueError((error as Error).message)
  }
  const variables: [string, string | undefined][] = []
  for (const [index, whole] of text
    .replace(/^\ufeff/, '')
    .split('\n')
    .entries()) {
    const line = whole.trimStart().replace(/\r$/, '')
    if (line === '' || line.startsWith('#')) continue
    const [name, value] = pair(line)
    if (name === '' || /\s/.test(name))
      throw new ValueError(`line ${index + 1}: ${quote(name)} is not a valid variable name`)
    variables.push([name, value])
  }
  return variables
}

/** File descriptors, `3,5-7`. */
export function descriptors(text: string): number[] {
  const numbers: number[] = []
  for (const part of text.split(',')) {
    const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(part) ?? []
    const [from, to] = [Number(first), Number(last)]
    if (!(from >= 3 && to >= from && to < 1024))
      throw new ValueError('not a list of file descriptors from 3 to 1023, such as 3,5-7')
    for (let fd = from; fd <= to; fd++) numbers.push(fd)
  }
  return numbers
}

/** docker's `--security-opt`, of which only `no-new-privileges` is supported. Returns whether new privileges are allowed. */
export function securityOption(text: string): boolean {
  const [, value = 'true'] = /^no-new-privileges(?:[:=](true|false))?$/.exec(text) ?? [undefined, '']
  if (value === '') throw new ValueError('only no-new-privileges[:true|:false] is supported')
  return value === 'false'
}
