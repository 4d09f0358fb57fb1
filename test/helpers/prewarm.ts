import { readFileSync } from 'node:fs'
import { type RunOptions, run } from '../../ts/index.ts'
import { prewarmed, until } from './host.ts'

/** The process that a line of `prewarmed()` is about. */
export const number = (line: string | undefined) => Number(line?.trim().split(' ')[0])

/** Asks for a container often enough that the next one is prewarmed, and returns that one's process. */
export async function prewarm(options: RunOptions): Promise<number> {
  const before = prewarmed().map(number)
  for (let times = 0; times < 2; times++) await run('true', options)
  let own: number | undefined
  await until(() => {
    own = prewarmed()
      .map(number)
      .find((pid) => !before.includes(pid))
    // It stands when it waits for its command.
    return own !== undefined && readFileSync(`/proc/${own}/wchan`, 'utf8').includes('wait_for_more_packets')
  })
  return own ?? 0
}
