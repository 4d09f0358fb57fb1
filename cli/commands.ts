// What a plain `nsrs run` does without. The bundle has it in a file of its own, so that it isn't even read there.

export { alteredArguments, alteredVariables } from './bytes.ts'
export { execute } from './program.ts'
export { provide } from './provide.ts'
export { tell } from './tell.ts'
