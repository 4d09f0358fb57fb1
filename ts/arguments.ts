const NO_ARGS: readonly string[] = Object.freeze([])
const NO_OPTIONS = Object.freeze({})

/** Arguments and options of a call that may leave out either. */
export function split<Options extends object>(
  second: readonly string[] | Options | undefined,
  third: Options | undefined,
): [readonly string[], Options] {
  if (third === undefined && second !== undefined && !Array.isArray(second)) return [NO_ARGS, second as Options]
  return [(second as readonly string[] | undefined) ?? NO_ARGS, third ?? (NO_OPTIONS as Options)]
}
