import type { ImageEvent } from './progress.ts'

/**
 * Work on images in progress: a promise of its result, and an async iterator of its events. It continues whether or not
 * anyone listens; only the `signal` of its options ends it.
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
  /** The events so far, numbered, for every iterator; only the latest of each phase of a layer. */
  readonly #events: { number: number; event: ImageEvent }[] = []
  #count = 0
  #isOver = false
  /** Wakes the iterators that have yielded all events so far. */
  readonly #waiting: (() => void)[] = []

  /** @internal */
  constructor(work: (onEvent: (event: ImageEvent) => void) => Promise<Result>) {
    this.#result = work((event) => this.#add(event)).finally(() => {
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
   * Yields all events in order, from the first one on, to each iterator and even after the end. Of the progress of a layer
   * only the latest event is kept. Throws at the end if the promise rejects.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<ImageEvent, void, undefined> {
    // An iterator throws the failure after the last event.
    this.#result.catch(() => {})
    let last = 0
    for (;;) {
      const next = this.#events.find(({ number }) => number > last)
      if (next) {
        last = next.number
        yield next.event
      } else if (this.#isOver) break
      else await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    await this.#result
  }

  #add(event: ImageEvent): void {
    // This bounds the list, however long it takes.
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
