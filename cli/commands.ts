// What a plain `nsrs run` doesn't need. It is a bundle of its own, so that such a run doesn't even read it.

export { ensureImage } from './ensure-image.ts'
export { explainRun } from './explain.ts'
export { alteredArguments, alteredVariables } from './non-utf8.ts'
export { execute } from './program.ts'
