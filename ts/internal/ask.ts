import type { NativeEvent, Supervisor } from '../binding.d.ts'
import { fromRecords } from '../errors/nsrs-error.ts'
import { connect, listen } from './supervisor.ts'

/** Asks the supervisor something and returns the part of its answer that is wanted. */
export function ask<T>(
  question: (supervisor: Supervisor) => number,
  pick: (event: NativeEvent) => T | undefined,
): Promise<T> {
  return new Promise((resolve, reject) => {
    listen(question(connect()), (event) => {
      const answer = pick(event)
      if (answer === undefined) reject(fromRecords(event.failed ?? []))
      else resolve(answer)
    })
  })
}
