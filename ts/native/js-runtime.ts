/** Bun and Deno have Node's interfaces, and event loops of their own. */
export const isBun = process.versions.bun !== undefined
export const isDeno = process.versions.deno !== undefined
export const isNode = !isBun && !isDeno
