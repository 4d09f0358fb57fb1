import { createReadStream, createWriteStream } from 'node:fs'
import { Duplex } from 'node:stream'
import { ReadStream } from 'node:tty'
import { isBun } from '../native/js-runtime.ts'
import { native } from '../native/load.ts'
import { checkValue } from '../options/validate.ts'
import type { TerminalSize } from '../spec.d.ts'
import { close } from './pipe-streams.ts'

/** Ctrl-D, which a terminal turns into the end of input. */
const END_OF_INPUT = '\x04'

/**
 * The near side of a container's terminal. The command reads what is written here as if it were typed; its output is read
 * here.
 *
 * It exists before the terminal does and buffers what is written until then. It ends when every program of the container
 * has closed its side. `end()` types Ctrl-D.
 */
export class Terminal extends Duplex {
  #fd = -1
  #input: NodeJS.WritableStream | undefined
  #output: NodeJS.ReadableStream | undefined
  #isOver = false
  #waiting: (() => void) | undefined
  #size: TerminalSize

  /** @internal */
  constructor(size: TerminalSize) {
    super({ allowHalfOpen: true })
    this.#size = size
  }

  /** Columns. */
  get cols(): number {
    return this.#size.cols
  }

  /** Rows. */
  get rows(): number {
    return this.#size.rows
  }

  /**
   * Changes the size of the terminal. Its programs receive SIGWINCH.
   *
   * @throws `TypeError` columns or rows are not 1 to 65535.
   */
  resize(size: TerminalSize): void {
    checkValue('size', 'size', size)
    this.#size = { cols: size.cols, rows: size.rows }
    if (this.#fd >= 0) native().binding.resizeTerminal(this.#fd, this.#size.cols, this.#size.rows)
  }

  /** @internal The container has made its terminal. */
  attach(fd: number): void {
    if (this.destroyed) {
      close(fd)
      return
    }
    this.#fd = fd
    if (isBun) {
      // Each stream closes its own descriptor: the second close could hit one that was reused since.
      this.#input = createWriteStream('', { fd: native().binding.duplicateTerminal(fd) })
      this.#output = createReadStream('', { fd })
    } else {
      const both = new ReadStream(fd)
      this.#input = both
      this.#output = both
    }
    const output = this.#output
    output.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) output.pause()
    })
    // The kernel reports a hang-up as EIO. After any error there is no more output.
    output.on('error', () => this.finish())
    output.on('end', () => this.finish())
    output.on('close', () => this.finish())
    this.#input.on('error', () => {})
    native().binding.resizeTerminal(fd, this.#size.cols, this.#size.rows)
    this.#waiting?.()
  }

  /** @internal There is no terminal, or it was closed. */
  finish(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#fd = -1
    this.push(null)
    this.#waiting?.()
    const [input, output] = [this.#input, this.#output]
    for (const stream of new Set([input, output])) (stream as Duplex | undefined)?.destroy()
  }

  /** @internal The container has ended. */
  over(): void {
    if (this.#fd < 0) this.finish()
  }

  #write(chunk: Buffer | string, done: (error?: Error | null) => void): void {
    if (this.#isOver) done()
    else if (this.#input === undefined) {
      this.#waiting = () => {
        this.#waiting = undefined
        this.#write(chunk, done)
      }
    } else {
      const input = this.#input
      if (input.write(chunk)) done()
      else input.once('drain', () => done())
    }
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#write(chunk, done)
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#write(END_OF_INPUT, done)
  }

  override _read(): void {
    this.#output?.resume()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.finish()
    done(error)
  }
}
