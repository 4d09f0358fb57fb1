import { interval, median, summarize } from './stats.mjs'

const digits = (value) => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)

/** A table of text columns; numbers are told apart by standing to the right. */
function table(head, rows) {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column].length)))
  const line = (row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]))).join('  ')
  return [line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n')
}

export function seriesTable({ unit, samples }) {
  const rows = Object.entries(samples).map(([name, rounds]) => {
    const { count, median: middle, p99, min } = summarize(rounds.flat())
    return [name, digits(middle), digits(p99), digits(min), String(count)]
  })
  return table([`(${unit})`, 'median', 'p99', 'min', 'n'], rows)
}

/** What became of a target; undefined where a series it needs was not measured. */
export function judge(target, { unit, samples }) {
  const [left, right] = [samples[target.of], samples[target.over ?? target.beyond]]
  if (left === undefined || ((target.over ?? target.beyond) !== undefined && right === undefined)) return undefined
  const middle = median(left.flat())
  let [value, name, range] = [middle, target.of]
  if (right !== undefined) {
    const combine = target.over === undefined ? (a, b) => a - b : (a, b) => a / b
    value = combine(middle, median(right.flat()))
    range = interval(left, right, combine)
    name = `${target.of} ${target.over === undefined ? '-' : '/'} ${target.over ?? target.beyond}`
  }
  const wanted =
    target.most !== undefined ? value <= target.most : target.least !== undefined ? value >= target.least : undefined
  return { ...target, name, unit: target.over === undefined ? unit : 'x', value, range, met: wanted }
}

export function verdictTable(verdicts) {
  const bound = ({ most, least, unit }) => {
    if (most === undefined && least === undefined) return '-'
    return `${most === undefined ? '>=' : '<='} ${most ?? least}${unit === 'x' ? 'x' : ` ${unit}`}`
  }
  const word = { true: 'met', false: 'NOT MET', undefined: '' }
  const rows = verdicts.map((verdict) => {
    const { name, value, range, unit, met } = verdict
    const between = range === undefined ? '' : `${digits(range[0])} to ${digits(range[1])}`
    return [name, `${digits(value)}${unit === 'x' ? 'x' : ` ${unit}`}`, between, bound(verdict), word[met]]
  })
  return table(['', 'here', '95 % of draws', 'target', ''], rows)
}
