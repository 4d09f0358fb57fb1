// Runs the containers that standard input lists through the library, and writes what became of each.

import { readFileSync } from 'node:fs'
import { run } from '../../dist/index.js'

const { together, jobs } = JSON.parse(readFileSync(0, 'utf8'))
const done = []
let next = 0

async function work() {
  for (let index = next++; index < jobs.length; index = next++) {
    const { command, args = [], options } = jobs[index]
    try {
      const { exitCode, signal, stdout, stderr, changes } = await run(command, args, { reject: false, ...options })
      done[index] = { exitCode, signal, stdout, stderr, changes }
    } catch (error) {
      done[index] = { stdout: '', stderr: '', code: error.code ?? error.name, message: error.message, hint: error.hint }
    }
  }
}

await Promise.all(Array.from({ length: together }, work))
process.stdout.write(JSON.stringify(done))
