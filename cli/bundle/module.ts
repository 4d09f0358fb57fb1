/** Replaces Node's module in the bundled CLI, which is CommonJS and has a `require` already. */
export function createRequire(): NodeJS.Require {
  return require
}
