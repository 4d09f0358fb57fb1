import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const here = fileURLToPath(new URL('../..', import.meta.url))

const help = `npm run bench -- [OPTIONS]

  --only NAME     only this suite (starts, throughput, versions, cli, memory, images, image-memory), or only the
                  series whose names begin so, with the ones they are compared to; may be repeated
  --rounds N      rounds of the starts (default 80); the other suites take a share of it
  --wait SECONDS  wait for so long, all in all and in each suite, for moments in which nobody else
                  uses the machine (default 60, quick 5)
  --quick         12 rounds, and less of the rest: a first impression
  --package DIR   the checkout whose build is measured (default: this one)
  --against DIR   a second checkout, which is compared with the first by the suite 'versions'
`

/** What the command line says. */
export function options() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true, default: [] },
      rounds: { type: 'string' },
      wait: { type: 'string' },
      quick: { type: 'boolean', default: false },
      package: { type: 'string', default: here },
      against: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(help)
    process.exit(0)
  }
  const rounds = values.rounds === undefined ? (values.quick ? 12 : 80) : Number(values.rounds)
  const wait = Number(values.wait ?? (values.quick ? 5 : 60))
  if (!(wait >= 0)) throw new TypeError(`--wait must be seconds, got ${values.wait}`)
  if (!Number.isInteger(rounds) || rounds < 1) throw new TypeError(`--rounds must be a count, got ${values.rounds}`)
  const { only, quick } = values
  const against = values.against === undefined ? undefined : resolve(values.against)
  return { only, quick, rounds, wait, package: resolve(values.package), against }
}
