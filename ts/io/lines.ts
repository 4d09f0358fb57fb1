import type { Readable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'

/** The lines of a stream, without their newlines. */
export async function* lines(stream: Readable): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder('utf8')
  let rest = ''
  for await (const chunk of stream) {
    const parts = (rest + decoder.write(chunk as Buffer)).split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) yield line.endsWith('\r') ? line.slice(0, -1) : line
  }
  rest += decoder.end()
  if (rest !== '') yield rest
}

/** Yields from several iterators whatever comes first. */
export async function* merge<T>(sources: AsyncGenerator<T, void, undefined>[]): AsyncGenerator<T, void, undefined> {
  const next = async (source: AsyncGenerator<T, void, undefined>) => ({ source, result: await source.next() })
  const pending = new Map(sources.map((source) => [source, next(source)]))
  try {
    while (pending.size > 0) {
      const { source, result } = await Promise.race(pending.values())
      if (result.done) pending.delete(source)
      else {
        pending.set(source, next(source))
        yield result.value
      }
    }
  } finally {
    // return() waits while a generator waits for its stream; the caller destroys the streams.
    for (const [source, promise] of pending) {
      promise.catch(() => {})
      source.return().catch(() => {})
    }
  }
}
