import { readFileSync } from 'node:fs'

/** What is wrong with a text on the command line. */
export class ValueError extends Error {}

/** `-7`. */
export function integer(text: string): number {
  const number = Number(text)
  if (/^[+-]?\d+$/.test(text) && Number.isSafeInteger(number)) return number
  throw new ValueError('it is no whole number')
}

const UNITS: Record<string, number> = { ms: 1, '': 1000, s: 1000, m: 60_000, h: 3_600_000 }

/** `1.5` and `1.5s`, `500ms`, `2m`, `1h`, in milliseconds. */
export function milliseconds(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h|)$/.exec(text) ?? []
  const time = Math.ceil(Number(number) * (UNITS[unit ?? ''] ?? Number.NaN))
  if (time > 0 && Number.isSafeInteger(time)) return time
  throw new ValueError('it is no time above 0, such as 1.5, 500ms, 10s, 2m or 1h')
}

/** `NAME=VALUE` taken apart; without `=` there is no value. */
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
  if (name === '' || value === undefined) throw new ValueError('it is not NAME=VALUE')
  return [name, value]
}

/** The variables of a file, as docker reads it: a line each, `#` for comments, a name alone takes the caller's value. */
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
      throw new ValueError(`line ${index + 1}: ${JSON.stringify(name)} is no name of a variable`)
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
      throw new ValueError('it is no list of file descriptors from 3 on, such as 3,5-7')
    for (let fd = from; fd <= to; fd++) numbers.push(fd)
  }
  return numbers
}

/** docker's `--security-opt`; of it only what nsrs has. */
export function securityOption(text: string): boolean {
  const [, value = 'true'] = /^no-new-privileges(?:[:=](true|false))?$/.exec(text) ?? [undefined, '']
  if (value === '') throw new ValueError('only no-new-privileges[:true|:false] is known')
  return value === 'false'
}
