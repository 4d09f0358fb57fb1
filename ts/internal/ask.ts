import type { NativeEvent, Supervisor } from '../binding.d.ts'
import { fromRecords } from '../errors/nsrs-error.ts'
import { connect, listen } from './supervisor.ts'

/** Sends a question to the supervisor and resolves with the part of the answer that `pick` selects. */
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
