/**
 * Replaces Node's child_process in the bundled CLI. Commander imports it for commands that are separate programs, which nsrs
 * doesn't have, and Node takes several milliseconds to load it.
 */
export function spawn(): never {
  throw new Error('nsrs has no commands that are separate programs')
}

export default { spawn }
