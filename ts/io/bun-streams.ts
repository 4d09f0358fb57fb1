import { closeSync } from 'node:fs'
import { Readable, Writable } from 'node:stream'

/** The part of Bun that is used: files over descriptors that its event loop polls, instead of threads. */
interface Bun {
  file(fd: number): {
    stream(): AsyncIterable<Uint8Array>
    writer(): { write(chunk: Uint8Array): number | Promise<number>; flush(): unknown; end(): unknown }
  }
}

const bun = (globalThis as { Bun?: Bun }).Bun as Bun

function closeQuietly(fd: number): void {
  try {
    closeSync(fd)
  } catch {
    // Bun already closed it together with its stream.
  }
}

/** A stream over the reading end of a pipe, in Bun, which has no sockets over a given one. It owns the descriptor. */
export function bunReadable(fd: number): Readable {
  const stream = Readable.from(bun.file(fd).stream(), { objectMode: false })
  stream.once('close', () => closeQuietly(fd))
  return stream
}

/** A stream over the writing end of a pipe, in Bun. It owns the descriptor. */
export function bunWritable(fd: number): Writable {
  const sink = bun.file(fd).writer()
  const end = (done: (error?: Error | null) => void, error?: Error | null) =>
    Promise.resolve(sink.end()).then(
      () => done(error),
      () => done(error),
    )
  const stream = new Writable({
    write: (chunk: Buffer, _, done) => {
      Promise.resolve(sink.write(chunk))
        .then(() => sink.flush())
        .then(() => done(), done)
    },
    final: (done) => end(done),
    destroy: (error, done) => end(done, error),
  })
  stream.once('close', () => closeQuietly(fd))
  return stream
}
