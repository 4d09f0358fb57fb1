/**
 * Stands for Node's child_process in the bundled CLI. commander wants it for commands that are programs of their own,
 * which nsrs has not, and Node takes several milliseconds to load it.
 */
export function spawn(): never {
  throw new Error('nsrs has no commands that are programs of their own')
}

export default { spawn }
