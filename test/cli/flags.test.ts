import { readFileSync } from 'node:fs'
import test from 'ava'
import { applyFlags } from '../../cli/apply.ts'
import { cliFlags, flags } from '../../cli/flags.ts'
import { verbs } from '../../cli/image-verbs.ts'
import { argumentTables } from '../../ts/images/arguments.ts'

const long = (flags: string) => flags.match(/--[a-z0-9-]+/)?.[0]
const camelCase = (flag: string) => flag.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())

test('messages of the executables name options as the command line does', (t) => {
  const table = readFileSync(new URL('../../crates/base/src/options.rs', import.meta.url), 'utf8')
  const named = [...table.matchAll(/^ {4}[A-Z0-9_]+ = "(\w+)", "(--[a-z0-9-]+)";$/gm)]
  const ofContainers = Object.entries(flags).map(([property, { flags }]) => [property, long(flags)])
  const ofVerbs = Object.values(verbs).flatMap(({ flags }) => flags)
  const ofImages = Object.values(argumentTables)
    .flatMap((options) => Object.entries(options))
    .map(([property, { flag, negated }]) => [property, flag ?? negated])
    .filter(([, own]) => own !== undefined)
    .map(([property, own]) => [property, ofVerbs.find(({ as, flags }) => (as ?? long(flags)) === own)?.flags ?? ''])
    .map(([property, flags = '']) => [property, long(flags)])
  const ofApply = Object.entries(applyFlags).map(([name, [flags]]) => [camelCase(name), long(flags)])
  t.deepEqual(Object.fromEntries(named.map(([, property, flag]) => [property, flag])), {
    ...Object.fromEntries([...ofContainers, ...ofImages, ...ofApply]),
    fds: long(cliFlags.preserveFd.flags),
  })
})
