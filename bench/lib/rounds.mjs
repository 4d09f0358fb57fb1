import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** What one way leaves to the kernel's workers (namespaces that die, most of all) is not to disturb the next. */
const SETTLE_MS = 8
/** So many looks at the machine in a row must find nobody else running. */
const LOOKS = 3

/** Is any task running but the one that looks? */
function isBusy() {
  return Number(readFileSync('/proc/loadavg', 'utf8').split(' ')[3].split('/')[0]) > 1
}

/** Waits for moments in which nobody else uses the machine; gives up when it has waited for its whole allowance. */
export class Calm {
  #left
  turns = 0
  busy = 0

  constructor(seconds) {
    this.#left = seconds * 1000
  }

  async wait() {
    this.turns++
    await sleep(SETTLE_MS)
    for (let looks = 0; looks < LOOKS; looks++) {
      if (isBusy()) {
        if (this.#left <= 0) {
          this.busy++
          return
        }
        looks = -1
      }
      const from = performance.now()
      await sleep(2)
      if (looks < 0) this.#left -= performance.now() - from
    }
  }
}

/**
 * Measures several ways side by side: in each round every way has its turn, in a new random order. Returns, by name, the
 * samples of each round.
 *
 * @param {{ name: string, turn: () => Promise<number[]> }[]} series
 */
export async function interleave(series, { rounds, calm, onRound }) {
  const samples = Object.fromEntries(series.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const { name, turn } of shuffled(series)) {
      await calm.wait()
      samples[name].push(await turn())
    }
    onRound?.(round + 1)
  }
  return samples
}

function shuffled(items) {
  const copy = [...items]
  for (let last = copy.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1))
    ;[copy[last], copy[other]] = [copy[other], copy[last]]
  }
  return copy
}
