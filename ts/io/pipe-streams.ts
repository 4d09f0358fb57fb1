import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { isMainThread } from 'node:worker_threads'
import { isBun, isDeno } from '../native/js-runtime.ts'
import { bunReadable, bunWritable } from './bun-streams.ts'

/** Whether node:fs accepts any open descriptor. Deno accepts them in sockets only. */
export const canUseDescriptors = !isDeno

/** A stream over the reading end of a pipe. It owns the descriptor. */
export function readable(fd: number): Readable {
  if (isBun) return bunReadable(fd)
  return new Socket({ fd, readable: true, writable: false })
}

/** A stream over the writing end of a pipe. It owns the descriptor. */
export function writable(fd: number): Writable {
  if (isBun) return bunWritable(fd)
  return new Socket({ fd, readable: false, writable: true })
}

/** Closes a descriptor that has no stream. */
export function close(fd: number): void {
  if (isDeno) closeAsSocket(fd)
  else closeSync(fd)
}

/** Closes an end of a pipe that has no stream. A worker warns where node:fs closes a descriptor that it didn't open. */
export function closePipe(fd: number): void {
  if (isDeno || !isMainThread) closeAsSocket(fd)
  else closeSync(fd)
}

function closeAsSocket(fd: number): void {
  new Socket({ fd, readable: false, writable: true }).destroy()
}
