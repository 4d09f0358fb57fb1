import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

/** The resident native program that does one start on request and times it itself. */
export class Limit {
  #process
  #lines

  constructor({ limit, root, program }, network) {
    this.#process = spawn(limit, [root, program, network], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]()
  }

  async #ask(line) {
    this.#process.stdin.write(`${line}\n`)
    const { value, done } = await this.#lines.next()
    if (done) throw new Error('the limit program ended')
    return Number(value) / 1e6
  }

  /** Milliseconds of each start of a turn. */
  async turn(count = 4, warm = 1) {
    const samples = []
    for (let index = -warm; index < count; index++) {
      const took = await this.#ask('1')
      if (index >= 0) samples.push(took)
    }
    return samples
  }

  /** Starts per second with so many at a time. */
  async throughput(atOnce, count) {
    return (1000 * count) / (await this.#ask(`c ${atOnce} ${count}`))
  }

  async stop() {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve))
    this.#process.stdin.end()
    await ended
  }
}
