// The other runtimes of JavaScript in which the library is tried, from npm: .runtimes/bin/NAME. They stay out of
// node_modules, where they would be hundreds of megabytes for everybody who only wants to build.

import { spawnSync } from 'node:child_process'
import { accessSync, constants, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'

const arm = process.arch === 'arm64'

/** The packages that hold the programs: those that are meant to be installed fetch them in a lifecycle script. */
const runtimes = {
  node22: { spec: `node-linux-${process.arch}@22`, program: 'bin/node' },
  node24: { spec: `node-linux-${process.arch}@24`, program: 'bin/node' },
  // The baseline runs on every x86-64 CPU, the other one needs AVX2.
  bun: { spec: `@oven/bun-linux-${arm ? 'aarch64' : 'x64-baseline'}@1`, program: 'bin/bun' },
  deno: { spec: `@deno/linux-${process.arch}-glibc@2`, program: 'deno' },
}

function works(path) {
  try {
    accessSync(path, constants.X_OK)
    return spawnSync(path, ['--version'], { stdio: 'ignore' }).status === 0
  } catch {
    return false
  }
}

/** Installs those that are missing. One that can't be had is told and left out: its test tells it too. */
export function installRuntimes(directory) {
  mkdirSync(`${directory}/bin`, { recursive: true })
  for (const [name, { spec, program }] of Object.entries(runtimes)) {
    const link = `${directory}/bin/${name}`
    if (works(link)) continue
    const home = `${directory}/${name}`
    rmSync(home, { recursive: true, force: true })
    rmSync(link, { force: true })
    mkdirSync(home, { recursive: true })
    // A project of its own. Not by --prefix: npm reads its global settings (proxies, authorities) below that.
    writeFileSync(`${home}/package.json`, '{ "private": true }')
    const options = ['--ignore-scripts', '--no-save', '--no-package-lock', '--loglevel=error']
    spawnSync('npm', ['install', ...options, spec], { cwd: home, stdio: ['ignore', 'ignore', 'inherit'] })
    symlinkSync(`../${name}/node_modules/${spec.replace(/@\d+$/, '')}/${program}`, link)
    if (works(link)) continue
    console.error(`${name} can't be had from npm (${spec}), and the test of the library in it is skipped`)
    rmSync(link, { force: true })
  }
}
