import type { ImageEvent } from './progress.ts'

/**
 * Work on images, while it goes on: a promise of its result, and an iterator of what happens. It goes on whether or not
 * anybody listens; only the `signal` of its options ends it.
 *
 * ```js
 * const pull = images.pull('busybox')
 * for await (const event of pull) console.log(event)
 * const { digest } = await pull
 * ```
 */
export class ImageTask<Result> implements Promise<Result>, AsyncIterable<ImageEvent> {
  readonly [Symbol.toStringTag] = 'ImageTask'
  readonly #result: Promise<Result>
  /** What has happened, numbered, for whoever iterates: of each phase of a layer the newest. */
  readonly #events: { number: number; event: ImageEvent }[] = []
  #count = 0
  #isOver = false
  /** Iterators that have heard everything so far. */
  readonly #waiting: (() => void)[] = []

  /** @internal */
  constructor(work: (hear: (event: ImageEvent) => void) => Promise<Result>) {
    this.#result = work((event) => this.#hear(event)).finally(() => {
      this.#isOver = true
      this.#wake()
    })
  }

  // biome-ignore lint/suspicious/noThenProperty: it is a promise.
  then<Value = Result, Other = never>(
    onResult?: ((result: Result) => Value | PromiseLike<Value>) | null,
    onError?: ((error: unknown) => Other | PromiseLike<Other>) | null,
  ): Promise<Value | Other> {
    return this.#result.then(onResult, onError)
  }

  catch<Other = never>(onError?: ((error: unknown) => Other | PromiseLike<Other>) | null): Promise<Result | Other> {
    return this.#result.catch(onError)
  }

  finally(onEnd?: (() => void) | null): Promise<Result> {
    return this.#result.finally(onEnd)
  }

  /**
   * What happens, in order, from the beginning, for each who iterates and also after the end; of bytes that move only the
   * newest count. Throws at the end what the promise rejects with.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<ImageEvent, void, undefined> {
    // Whoever iterates is told of a failure when the events are over.
    this.#result.catch(() => {})
    let heard = 0
    for (;;) {
      const next = this.#events.find(({ number }) => number > heard)
      if (next) {
        heard = next.number
        yield next.event
      } else if (this.#isOver) break
      else await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    await this.#result
  }

  #hear(event: ImageEvent): void {
    // So what is kept stays small, however long it takes.
    const same = event.event === 'layer' ? this.#events.findIndex((old) => isSame(old.event, event)) : -1
    if (same >= 0) this.#events.splice(same, 1)
    this.#count += 1
    this.#events.push({ number: this.#count, event })
    this.#wake()
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }
}

function isSame(old: ImageEvent, event: ImageEvent): boolean {
  return old.event === 'layer' && event.event === 'layer' && old.digest === event.digest && old.phase === event.phase
}
