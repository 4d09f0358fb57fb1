import { execFileSync, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { cleanEnvironment } from './setup.mjs'

/** Milliseconds of a program until its end. `watch` is called with its process id now and then. */
export function timed(program, args, { env = {}, watch } = {}) {
  return new Promise((resolve, reject) => {
    const from = process.hrtime.bigint()
    const child = spawn(program, args, {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...cleanEnvironment(), ...env },
    })
    const timer = watch && setInterval(() => watch(child.pid), 2)
    child.on('error', reject)
    child.on('exit', (code) => {
      clearInterval(timer)
      if (code === 0) resolve(Number(process.hrtime.bigint() - from) / 1e6)
      else reject(new Error(`${program} ended with ${code}`))
    })
  })
}

/** The executable that the library and the command line start. */
export function imageProgram(directory) {
  const names = ['gnu', 'musl'].map((abi) => join(directory, `npm/linux-${process.arch}-${abi}/nsrs-image`))
  const program = names.find((name) => existsSync(name))
  if (program === undefined) throw new Error('nsrs-image is not built: npm run build')
  const version = execFileSync(program, ['--version'], { encoding: 'utf8' }).trim().split(' ')[1]
  return (store, args, more = {}) => timed(program, [version, ...args], { env: { NSRS_IMAGE_DIR: store }, ...more })
}
