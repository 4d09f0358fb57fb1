/** How a promise is settled. */
type Settle<T> = (resolve: (value: T) => void, reject: (error: Error) => void) => void

/** A promise that is made when it is first asked for: a rejection that nobody asks for needs no handler. */
export class LazyPromise<T> {
  #promise: Promise<T> | undefined
  #settle: Settle<T> | undefined
  #waiting: [(value: T) => void, (error: Error) => void] | undefined

  get isRequested(): boolean {
    return this.#promise !== undefined
  }

  get promise(): Promise<T> {
    this.#promise ??= new Promise((resolve, reject) => {
      if (this.#settle) this.#settle(resolve, reject)
      else this.#waiting = [resolve, reject]
    })
    return this.#promise
  }

  resolve(value: T): void {
    this.#settleBy((resolve) => resolve(value))
  }

  reject(error: Error): void {
    this.#settleBy((_, reject) => reject(error))
  }

  #settleBy(settle: Settle<T>): void {
    if (this.#settle) return
    this.#settle = settle
    if (this.#waiting) settle(...this.#waiting)
  }
}
