import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { isBun, isDeno } from '../native/js-runtime.ts'
import { bunReadable, bunWritable } from './bun-streams.ts'

/** The functions of node:fs work on descriptors that others have opened: Deno knows those in sockets only. */
export const hasFiles = !isDeno

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

/** Closes a descriptor that nobody has made a stream of. */
export function close(fd: number): void {
  if (isDeno) new Socket({ fd }).destroy()
  else closeSync(fd)
}
