import { isMainThread } from 'node:worker_threads'
import type { NativeEvent, Supervisor } from '../binding.d.ts'
import { close } from '../io/pipe-streams.ts'
import { isNode } from '../native/js-runtime.ts'
import { native } from '../native/load.ts'

/** Hears what becomes of one container, or of one question. */
export type Listener = (event: NativeEvent) => void

const listeners = new Map<number, Listener>()
/** Numbers that keep the event loop alive: the addon's callback doesn't. */
const held = new Set<number>()
let supervisor: Supervisor | undefined
let alive: NodeJS.Timeout | undefined

/** The longest that setInterval takes. */
const LONG = 2 ** 31 - 1

/** This thread's way to the supervisor; nothing is started before the first request. */
export function connect(): Supervisor {
  if (supervisor === undefined) {
    const { binding, executable } = native()
    supervisor = new binding.Supervisor(executable, deliver, isNode && isMainThread)
  }
  return supervisor
}

/** Takes an end of a pipe out of the addon's hands, which closes it with this thread: it is ours to close from here on. */
export function take(fd: number): number {
  connect().take(fd)
  return fd
}

/** Gives a request's events to a listener, until its last one. Events come in later turns of the event loop. */
export function listen(id: number, listener: Listener): void {
  listeners.set(id, listener)
  hold(id)
}

/** Keeps the event loop alive for this request. */
export function hold(id: number): void {
  if (!listeners.has(id)) return
  held.add(id)
  if (alive === undefined) alive = setInterval(() => {}, LONG)
  else if (held.size === 1) alive.ref()
}

/** Lets the event loop end, whatever becomes of this request. */
export function release(id: number): void {
  if (held.delete(id) && held.size === 0) alive?.unref()
}

function deliver(event: NativeEvent): void {
  const listener = listeners.get(event.id)
  if (listener === undefined) {
    if (event.terminal !== undefined) close(event.terminal)
    return
  }
  const isAnnouncement = event.started !== undefined && event.exited === undefined
  if (!isAnnouncement && event.terminal === undefined) {
    listeners.delete(event.id)
    release(event.id)
  }
  listener(event)
}
