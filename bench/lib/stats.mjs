/** Medians say what is usual on a machine that others use too; the rest is told beside them. */
export function summarize(samples) {
  const sorted = [...samples].sort((a, b) => a - b)
  return {
    count: sorted.length,
    median: quantile(sorted, 0.5),
    p99: quantile(sorted, 0.99),
    min: sorted[0],
    p25: quantile(sorted, 0.25),
    p75: quantile(sorted, 0.75),
  }
}

/** A quantile of sorted numbers, between neighbours by weight. */
function quantile(sorted, part) {
  const place = (sorted.length - 1) * part
  const below = Math.floor(place)
  const next = sorted[Math.min(below + 1, sorted.length - 1)]
  return sorted[below] + (next - sorted[below]) * (place - below)
}

export const median = (samples) =>
  quantile(
    [...samples].sort((a, b) => a - b),
    0.5,
  )

/**
 * How well a ratio (or difference) of two medians is known: the middle 95 % of what it would be in other draws of the
 * same rounds. Both series are drawn by round, because neighbours in time share the machine's mood.
 */
export function interval(left, right, combine, draws = 400) {
  const rounds = Math.min(left.length, right.length)
  if (rounds < 4) return undefined
  const random = generator(1)
  const results = []
  for (let draw = 0; draw < draws; draw++) {
    const [a, b] = [[], []]
    for (let round = 0; round < rounds; round++) {
      const index = Math.floor(random() * rounds)
      a.push(...left[index])
      b.push(...right[index])
    }
    results.push(combine(median(a), median(b)))
  }
  results.sort((a, b) => a - b)
  return [quantile(results, 0.025), quantile(results, 0.975)]
}

/** Numbers that look random and are the same in every run (mulberry32). */
function generator(seed) {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}
