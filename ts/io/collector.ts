import type { Readable } from 'node:stream'

/** Collects the output of a stream, up to a limit. */
export class Collector {
  readonly #stream: Readable
  readonly #chunks: Buffer[] = []
  #size = 0

  /** `onEnd` is called once; `onFull` if there are more than `max` bytes. */
  constructor(stream: Readable, max: number, onEnd: () => void, onFull: () => void) {
    this.#stream = stream
    stream.on('data', (chunk: Buffer) => {
      if (this.#size + chunk.length > max) {
        this.#chunks.push(chunk.subarray(0, max - this.#size))
        this.#size = max
        stream.destroy()
        onFull()
      } else {
        this.#chunks.push(chunk)
        this.#size += chunk.length
      }
    })
    // 'end' comes a turn of the event loop before 'close', and only 'close' comes after an error.
    let isOver = false
    const over = () => {
      if (!isOver) onEnd()
      isOver = true
    }
    stream.on('error', () => {})
    stream.on('end', over)
    stream.on('close', over)
  }

  /** Takes no more. */
  close(): void {
    this.#stream.destroy()
  }

  /** How many bytes were collected. */
  get size(): number {
    return this.#size
  }

  get bytes(): Buffer {
    return this.#chunks.length === 1 ? (this.#chunks[0] as Buffer) : Buffer.concat(this.#chunks, this.#size)
  }
}
