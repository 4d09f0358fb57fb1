import { isMainThread } from 'node:worker_threads'
import type { NativeEvent, Supervisor } from '../binding.d.ts'
import { close } from '../io/pipe-streams.ts'
import { isNode } from '../native/js-runtime.ts'
import { native } from '../native/load.ts'

/** Receives the events of one container, or the answer to one question. */
export type Listener = (event: NativeEvent) => void

const listeners = new Map<number, Listener>()
/** Requests that keep the event loop alive; the addon's callback doesn't. */
const held = new Set<number>()
let supervisor: Supervisor | undefined
let keepAlive: NodeJS.Timeout | undefined

/** The longest delay that setInterval accepts. */
const MAX_DELAY = 2 ** 31 - 1

/** This thread's connection to the supervisor, which is started by the first request. */
export function connect(): Supervisor {
  if (supervisor === undefined) {
    const { binding, executable } = native()
    supervisor = new binding.Supervisor(executable, deliver, isNode && isMainThread)
  }
  return supervisor
}

/** Takes over the end of a pipe from the addon, which otherwise closes it when this thread ends. The caller must close it. */
export function take(fd: number): number {
  connect().take(fd)
  return fd
}

/** Passes a request's events to a listener, up to the last one. They arrive in later turns of the event loop. */
export function listen(id: number, listener: Listener): void {
  listeners.set(id, listener)
  hold(id)
}

/** Keeps the event loop alive until this request's last event. */
export function hold(id: number): void {
  if (!listeners.has(id)) return
  held.add(id)
  if (keepAlive === undefined) keepAlive = setInterval(() => {}, MAX_DELAY)
  else if (held.size === 1) keepAlive.ref()
}

/** Lets the event loop end before this request does. */
export function release(id: number): void {
  if (held.delete(id) && held.size === 0) keepAlive?.unref()
}

function deliver(event: NativeEvent): void {
  const listener = listeners.get(event.id)
  if (listener === undefined) {
    if (event.terminal !== undefined) close(event.terminal)
    return
  }
  if (event.exited !== undefined || event.failed !== undefined || event.examined !== undefined) {
    listeners.delete(event.id)
    release(event.id)
  }
  listener(event)
}
