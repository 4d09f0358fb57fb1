import { PassThrough, pipeline, type Readable, type Writable } from 'node:stream'
import { close } from '../io/pipe-streams.ts'
import { take } from './supervisor.ts'

/**
 * This side's end of a pipe: a stream when somebody wants it, else a descriptor that is closed at the end, and the addon's
 * until then. The pipe may come later (`undefined`); what is done with the stream meanwhile waits for it.
 */
export class End<Stream extends Readable | Writable> {
  stream: Stream | PassThrough | undefined

  constructor(
    private fd: number | undefined,
    private readonly open: (fd: number) => Stream,
    private readonly join: (late: PassThrough, stream: Stream) => void,
  ) {}

  get(): Stream | PassThrough | null {
    if (this.stream === undefined && this.fd !== -1) {
      this.stream = this.fd === undefined ? new PassThrough() : this.open(take(this.fd))
      if (this.fd !== undefined) this.fd = -1
    }
    return this.stream ?? null
  }

  /** The pipe is there; -1: there is none. */
  arrive(fd: number): void {
    this.fd = fd
    if (this.stream === undefined || fd < 0) return
    this.join(this.stream as PassThrough, this.open(take(fd)))
    this.fd = -1
  }

  close(): void {
    // It will never come.
    if (this.fd === undefined) (this.stream as PassThrough | undefined)?.end()
    else if (this.fd >= 0) close(take(this.fd))
    this.fd = -1
  }
}

/** What went wrong is told by the stream that somebody has. */
const toldThere = () => {}

/** Lets what comes from a pipe be read from the stream that was handed out before. */
export const readLate = (late: PassThrough, stream: Readable) => void pipeline(stream, late, toldThere)

/** Lets what was written into the stream that was handed out before go into the pipe. */
export const writeLate = (late: PassThrough, stream: Writable) => void pipeline(late, stream, toldThere)
