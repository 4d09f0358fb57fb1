// Replaces Node's process module in the bundled CLI: the global is the same object.
module.exports = globalThis.process
