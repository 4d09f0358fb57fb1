import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { bunReadable, bunWritable } from './bun.ts'

/** Bun has no sockets over a given pipe; what it has instead is in bun.ts. */
export const isBun = process.versions.bun !== undefined
/** Deno knows file descriptors by number in sockets only. */
const isDeno = process.versions.deno !== undefined

/** The functions of node:fs work on descriptors that others have opened. */
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
