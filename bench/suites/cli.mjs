import { spawn } from 'node:child_process'
import { makeLayered } from '../lib/layered.mjs'
import { interleave } from '../lib/rounds.mjs'
import { cleanEnvironment } from '../lib/setup.mjs'

/** A command as a shell would run it: a process of its own, until its end. */
function command(args, more = {}) {
  const env = { ...cleanEnvironment(), ...more }
  return () =>
    new Promise((resolve, reject) => {
      const from = process.hrtime.bigint()
      const child = spawn(process.execPath, args, { stdio: 'ignore', env })
      child.on('error', reject)
      child.on('exit', (code) => {
        if (code === 0) resolve([Number(process.hrtime.bigint() - from) / 1e6])
        else reject(new Error(`node ${args.join(' ')} ended with ${code}`))
      })
    })
}

/** The command line: what it costs over Node's own start. */
export async function cli({ options, setup, wanted, calm, progress }) {
  const program = `${options.package}/dist/cli.cjs`
  const commands = {
    'node -e 0': ['-e', '0'],
    'nsrs run -- true': [program, 'run', '--', 'true'],
    'nsrs run --network none -- true': [program, 'run', '--network', 'none', '--', 'true'],
  }
  let store = {}
  if (wanted('nsrs run IMAGE true')) {
    const layered = await makeLayered(setup, options)
    store = { NSRS_IMAGE_DIR: layered.store }
    const run = [program, 'run', '--network', 'host']
    commands['nsrs run IMAGE true'] = [...run, layered.name, 'true']
    commands['nsrs run --rootfs DIR -- true'] = [...run, '--rootfs', setup.root, '--', 'true']
  }
  if (options.against !== undefined)
    commands['other nsrs run -- true'] = [`${options.against}/dist/cli.cjs`, 'run', '--', 'true']
  const series = Object.entries(commands)
    .filter(([name]) => wanted(name))
    .map(([name, args]) => ({ name, turn: command(args, store) }))
  const rounds = Math.max(8, Math.ceil(options.rounds / 2))
  return { unit: 'ms', samples: await interleave(series, { rounds, calm, onRound: progress }), facts: {} }
}
