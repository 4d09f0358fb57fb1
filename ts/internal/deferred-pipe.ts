import { PassThrough, pipeline, type Readable, type Writable } from 'node:stream'
import { closePipe, readable, writable } from '../io/pipe-streams.ts'
import { take } from './supervisor.ts'

/** What can be done with one direction of pipe. */
export interface PipeDirection<Stream extends Readable | Writable> {
  /** Makes a stream of our end of a pipe. */
  open(fd: number): Stream
  /** Connects the stream that was handed out before the pipe existed. */
  connect(early: PassThrough, stream: Stream): void
}

/** Errors are reported by the stream that the user has. */
const ignoreError = () => {}

/** A pipe that we read from. */
export const input: PipeDirection<Readable> = {
  open: readable,
  connect: (early, stream) => void pipeline(stream, early, ignoreError),
}

/** A pipe that we write to. */
export const output: PipeDirection<Writable> = {
  open: writable,
  connect: (early, stream) => void pipeline(early, stream, ignoreError),
}

type State<Stream> =
  /** There is no pipe, and no stream of one was handed out. */
  | { name: 'none' }
  /** The pipe will come with the process; `early` buffers until then. */
  | { name: 'expected'; early: PassThrough | undefined }
  /** The pipe exists. The addon owns it and closes it with this thread. */
  | { name: 'untaken'; fd: number }
  /** A stream was handed out and owns the pipe, if there is one. */
  | { name: 'streaming'; stream: Stream | PassThrough }

/** Our end of a process's pipe, which may not exist yet. It becomes a stream when it is asked for. */
export class DeferredPipe<Stream extends Readable | Writable> {
  #state: State<Stream>
  readonly #direction: PipeDirection<Stream>

  constructor(direction: PipeDirection<Stream>, isExpected: boolean) {
    this.#direction = direction
    this.#state = isExpected ? { name: 'expected', early: undefined } : { name: 'none' }
  }

  /** The stream, if one was handed out. */
  get stream(): Stream | PassThrough | undefined {
    const state = this.#state
    if (state.name === 'expected') return state.early
    return state.name === 'streaming' ? state.stream : undefined
  }

  /** Hands out the stream; `null` if there is no pipe. */
  open(): Stream | PassThrough | null {
    const state = this.#state
    if (state.name === 'none') return null
    if (state.name === 'streaming') return state.stream
    if (state.name === 'expected') {
      state.early ??= new PassThrough()
      return state.early
    }
    return this.#stream(this.#direction.open(take(state.fd)))
  }

  /** The process was launched with this end of a pipe; -1: without. */
  arrive(fd: number): void {
    const state = this.#state
    if (state.name !== 'expected') return
    if (fd < 0) this.close()
    else if (state.early === undefined) this.#state = { name: 'untaken', fd }
    else {
      this.#direction.connect(state.early, this.#direction.open(take(fd)))
      this.#stream(state.early)
    }
  }

  /** Closes a pipe that has no stream. A stream of a pipe that didn't come is ended. */
  close(): void {
    const state = this.#state
    if (state.name === 'expected' && state.early !== undefined) {
      state.early.end()
      this.#stream(state.early)
      return
    }
    if (state.name === 'untaken') closePipe(take(state.fd))
    if (state.name !== 'streaming') this.#state = { name: 'none' }
  }

  #stream<Opened extends Stream | PassThrough>(stream: Opened): Opened {
    this.#state = { name: 'streaming', stream }
    return stream
  }
}
