import { constants } from 'node:os'
import { OptionTypeError } from '../errors/option-type-error.ts'
import { nearest } from './nearest.ts'

const numbers = constants.signals as Record<string, number>
let names: Map<number, string> | undefined

/** The highest signal number. Node has no names for real-time signals, which are given by number. */
const MAX_SIGNAL = 64

/** `SIGTERM` for 15; `SIG40` for a number without a name. */
export function signalName(number: number): string {
  names ??= new Map(Object.entries(numbers).map(([name, value]) => [value, name]))
  return names.get(number) ?? `SIG${number}`
}

/** `TERM` for `SIGTERM`: with their common prefix, all names would look similar. */
const bare = (name: string) => name.slice('SIG'.length)

/** 15 for `SIGTERM`, `TERM` or 15. */
export function signalNumber(signal: string | number, option = 'signal'): number {
  if (typeof signal === 'number') {
    if (Number.isInteger(signal) && signal >= 0 && signal <= MAX_SIGNAL) return signal
    throw new OptionTypeError(`${option} must be a signal's name or number, 0 to ${MAX_SIGNAL}, got ${signal}`)
  }
  if (typeof signal !== 'string') {
    throw new OptionTypeError(`${option} must be a signal's name or number, got ${String(signal)}`)
  }
  const name = signal.startsWith('SIG') ? signal : `SIG${signal}`
  const number = Object.hasOwn(numbers, name) ? numbers[name] : undefined
  if (number !== undefined) return number
  throw new OptionTypeError(
    `${option}: unknown signal ${JSON.stringify(signal)}${nearest(bare(name), Object.keys(numbers).map(bare), 'SIG')}`,
  )
}
