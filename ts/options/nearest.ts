/** The edit distance between two words: insertions, deletions, substitutions and swaps of neighbours. */
function distance(a: string, b: string): number {
  let before: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let row = 1; row <= a.length; row++) {
    const line = [row]
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1] ? 0 : 1
      let best = Math.min((last[column] ?? 0) + 1, (line[column - 1] ?? 0) + 1, (last[column - 1] ?? 0) + same)
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        best = Math.min(best, (before[column - 2] ?? 0) + 1)
      }
      line.push(best)
    }
    before = last
    last = line
  }
  return last[b.length] ?? 0
}

/** `; did you mean WORD?` if one of the words is similar, otherwise an empty string. The prefix is put before the word. */
export function nearest(word: string, words: readonly string[], prefix = ''): string {
  const most = Math.max(1, Math.floor(word.length / 3))
  const lower = word.toLowerCase()
  const ranked = words
    .map((candidate) => ({ candidate, far: distance(lower, candidate.toLowerCase()) }))
    .filter(({ far }) => far <= most)
    .sort((a, b) => a.far - b.far)
  return ranked[0] ? `; did you mean ${prefix}${ranked[0].candidate}?` : ''
}
