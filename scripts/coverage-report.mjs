// What the text of `cov show` says of each source file: lines that ran, and those that never did.

/** @typedef {{ reached: number, missed: number[] }} FileCoverage */

/** By path below `root`, of product code only: tests are no product. */
export function parse(text, root) {
  /** @type {Map<string, FileCoverage>} */
  const files = new Map()
  let file
  for (const line of text.split('\n')) {
    const [, number, count, source] = /^ *(\d+)\| *(\d*)\|(.*)$/.exec(line) ?? []
    if (number === undefined) {
      if (line.startsWith('/'))
        file = line.startsWith(`${root}/crates/`) ? of(files, line.slice(root.length + 1)) : undefined
      continue
    }
    // Tests stand at the end of their file.
    if (/^#\[cfg\(test\)\]/.test(source)) file = undefined
    if (file === undefined || count === '') continue
    if (count !== '0') file.reached++
    else if (/[a-z]/.test(source)) file.missed.push(Number(number))
  }
  return files
}

function of(files, path) {
  if (/\/tests?\/|_tests\.rs$|\/tests\.rs$|^crates\/testing\//.test(path)) return undefined
  const file = { reached: 0, missed: [] }
  files.set(path, file)
  return file
}

/** A line for each file, the least reached first, and one for all; lines that never ran as ranges. */
export function table(files) {
  const rows = [...files].map(([path, { reached, missed }]) => ({
    path,
    reached,
    missed,
    share: share(reached, missed),
  }))
  rows.sort((a, b) => a.share - b.share)
  const lines = rows.map(({ path, missed, share }) => `${percent(share)}  ${path}  ${ranges(missed)}`)
  const reached = rows.reduce((sum, row) => sum + row.reached, 0)
  const missed = rows.flatMap((row) => row.missed)
  return [...lines, `${percent(share(reached, missed))}  of ${reached + missed.length} lines`].join('\n')
}

const share = (reached, missed) => (reached + missed.length === 0 ? 1 : reached / (reached + missed.length))
const percent = (share) => `${(100 * share).toFixed(1).padStart(5)} %`

/** `1-3, 7` */
function ranges(numbers) {
  const parts = []
  for (const number of numbers) {
    const last = parts.at(-1)
    if (last !== undefined && number <= last[1] + 1) last[1] = number
    else parts.push([number, number])
  }
  return parts.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(', ')
}
