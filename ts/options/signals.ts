import { constants } from 'node:os'
import { OptionTypeError } from '../errors/option-type-error.ts'
import { nearest } from './nearest.ts'

const numbers = constants.signals as Record<string, number>
let names: Map<number, string> | undefined

/** Real-time signals, and what else Node has no name for, are known by their number. */
const MOST = 64

/** `SIGTERM` for 15; `SIG40` for a number without a name. */
export function signalName(number: number): string {
  names ??= new Map(Object.entries(numbers).map(([name, value]) => [value, name]))
  return names.get(number) ?? `SIG${number}`
}

/** `TERM`: with what all have in common, the most different ones would look alike. */
const bare = (name: string) => name.slice('SIG'.length)

/** 15 for `SIGTERM`, `TERM` or 15. */
export function signalNumber(signal: string | number, option = 'signal'): number {
  if (typeof signal === 'number') {
    if (Number.isInteger(signal) && signal >= 0 && signal <= MOST) return signal
    throw new OptionTypeError(`${option} must be a signal's name or number, 0 to ${MOST}, got ${signal}`)
  }
  if (typeof signal !== 'string') {
    throw new OptionTypeError(`${option} must be a signal's name or number, got ${String(signal)}`)
  }
  const name = signal.startsWith('SIG') ? signal : `SIG${signal}`
  const number = Object.hasOwn(numbers, name) ? numbers[name] : undefined
  if (number !== undefined) return number
  throw new OptionTypeError(
    `${option}: there is no signal ${JSON.stringify(signal)}${nearest(bare(name), Object.keys(numbers).map(bare), 'SIG')}`,
  )
}
