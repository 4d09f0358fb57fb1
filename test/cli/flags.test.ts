import { readFileSync } from 'node:fs'
import test from 'ava'
import { flags } from '../../cli/flags.ts'

test('messages of the executables name options as the command line does', (t) => {
  const table = readFileSync(new URL('../../crates/base/src/options.rs', import.meta.url), 'utf8')
  const named = [...table.matchAll(/^ {4}[A-Z0-9_]+ = "(\w+)", "(--[a-z0-9-]+)";$/gm)].map(([, property, flag]) => [
    property,
    flag,
  ])
  const own = Object.entries(flags).map(([property, { flags }]) => [property, flags.match(/--[a-z0-9-]+/)?.[0]])
  t.deepEqual(Object.fromEntries(named), Object.fromEntries(own))
})
