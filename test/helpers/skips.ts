// Tests that can't run here. In CI one that is left out for a reason that nobody expected fails: else a test that
// silently stopped running would never be missed.

import { readFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'

const allowed = readFileSync(new URL('../allowed-skips.txt', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))

const isExpected = (why: string) => process.env.CI !== 'true' || allowed.includes(why)

/** A test that is left out, with the reason in its title, which the reporter prints. */
export function skip(title: string, why: string): void {
  if (isExpected(why)) test.skip(`${title} [skipped: ${why}]`, (t) => t.pass())
  else test(`${title} [skipped unexpectedly: ${why}]`, (t) => t.fail(`not in test/allowed-skips.txt: ${why}`))
}

/** The same where only the test itself finds out. */
export function giveUp(t: ExecutionContext, why: string): void {
  t.log(`skipped: ${why}`)
  if (isExpected(why)) t.pass()
  else t.fail(`not in test/allowed-skips.txt: ${why}`)
}
