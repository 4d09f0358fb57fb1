import { readFileSync } from 'node:fs'
import type { ImplementationFn, TestFn } from 'ava'

const allowed = readFileSync(new URL('../allowed-skips.txt', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))

/**
 * `test`, or where the host lacks something a skip that tells why. In CI a skip for a reason that is not in
 * allowed-skips.txt fails.
 */
export function needs(test: TestFn, reason: string, isThere: boolean) {
  return (title: string, implementation: ImplementationFn<[]>): void => {
    if (isThere) test(title, implementation)
    else if (process.env.CI && !allowed.includes(reason))
      test(`${title} (skipped unexpectedly: ${reason})`, (t) => t.fail(reason))
    else test.skip(`${title} (skipped: ${reason})`, implementation)
  }
}
