import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { cleanEnvironment } from './setup.mjs'

const program = fileURLToPath(new URL('../worker.mjs', import.meta.url))

/** A Node process with a heap of this size, which measures what it is told to. */
export class NodeProcess {
  #process
  #waiting
  heapMb = 0

  static async start(settings) {
    const self = new NodeProcess()
    // Its large objects are to stay where they are, as in a program that has run for a while.
    const execArgv = ['--max-old-space-size=2048']
    const env = { ...cleanEnvironment(), ...(settings.layered && { NSRS_IMAGE_DIR: settings.layered.store }) }
    self.#process = fork(program, [JSON.stringify(settings)], { env, execArgv })
    self.#process.on('message', (answer) => self.#waiting?.resolve(answer))
    self.#process.on('exit', (code, signal) => self.#waiting?.reject(new Error(`the worker ended: ${code ?? signal}`)))
    self.heapMb = (await self.#answer()).rssMb
    return self
  }

  #answer() {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
    })
  }

  /** Asks for something; the answer is the worker's. */
  async ask(request) {
    const answer = this.#answer()
    this.#process.send(request)
    const result = await answer
    if (result.error !== undefined) throw new Error(`${request.way ?? request.act}: ${result.error}`)
    return result
  }

  /** Milliseconds of each start of a turn, with a pause before each if the way has one or it is given. */
  async turn(way, count = 4, warm = 1, pauseMs = undefined) {
    return (await this.ask({ act: 'turn', way, count, warm, pauseMs })).samples
  }

  async stop() {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve))
    this.#waiting = undefined
    this.#process.disconnect()
    await ended
  }
}
