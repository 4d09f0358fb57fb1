/**
 * What the specification asks for. Starts are compared as ratios of medians (`over`), the command line as a difference of
 * medians (`beyond`), the rest as it is.
 */
export const targets = [
  { suite: 'starts', of: 'nsrs', over: 'spawn', most: 1.0 },
  { suite: 'starts', of: 'nsrs (pipes)', over: 'spawn (pipes)', most: 1.0 },
  { suite: 'starts', of: 'nsrs, 500 MB', over: 'spawn, 500 MB', most: 0.2 },
  { suite: 'starts', of: 'nsrs (pipes), 500 MB', over: 'spawn (pipes), 500 MB', most: 0.2 },
  { suite: 'starts', of: 'nsrs', over: 'bwrap', most: 0.5 },
  { suite: 'starts', of: 'nsrs (none)', over: 'bwrap (all)', most: 0.5 },
  { suite: 'starts', of: 'nsrs', over: 'limit', most: 1.4 },
  { suite: 'starts', of: 'nsrs (none)', over: 'limit (none)' },
  { suite: 'starts', of: 'nsrs (bridge)', over: 'limit (bridge)' },
  { suite: 'starts', of: 'nsrs (none)', over: 'spawn', most: 1.3 },
  { suite: 'starts', of: 'nsrs (bridge)', over: 'spawn', most: 2.5 },
  { suite: 'starts', of: 'nsrs (all eight)', over: 'spawn' },
  { suite: 'starts', of: 'nsrs (host tree)', over: 'spawn /bin/true' },
  { suite: 'starts', of: 'nsrs', over: 'unshare' },
  { suite: 'starts', of: 'nsrs (none)', over: 'unshare (net)' },
  { suite: 'starts', of: 'nsrs', over: 'runc' },
  { suite: 'starts', of: 'nsrs (none)', over: 'runc (none)' },
  { suite: 'starts', of: 'nsrs', over: 'other nsrs' },
  { suite: 'starts', of: 'nsrs (none)', over: 'other nsrs (none)' },
  { suite: 'starts', of: 'nsrs (bridge)', over: 'other nsrs (bridge)' },
  { suite: 'starts', of: 'nsrs (pipes)', over: 'other nsrs (pipes)' },
  { suite: 'starts', of: 'nsrs (host tree)', over: 'other nsrs (host tree)' },
  { suite: 'throughput', of: 'nsrs x4', over: 'limit x4', least: 0.7 },
  { suite: 'throughput', of: 'nsrs (none) x4', over: 'limit (none) x4', least: 0.7 },
  { suite: 'throughput', of: 'nsrs (bridge) x4', over: 'limit (bridge) x4', least: 0.7 },
  { suite: 'throughput', of: 'nsrs x4', over: 'spawn x4' },
  { suite: 'throughput', of: 'nsrs x4', over: 'other nsrs x4' },
  { suite: 'throughput', of: 'nsrs (none) x4', over: 'other nsrs (none) x4' },
  { suite: 'cli', of: 'nsrs run -- true', beyond: 'node -e 0', most: 25 },
  { suite: 'cli', of: 'nsrs run --network none -- true', beyond: 'node -e 0' },
  { suite: 'cli', of: 'nsrs run -- true', beyond: 'other nsrs run -- true' },
  { suite: 'memory', of: 'supervisor VmRSS, none', most: 4096 },
  { suite: 'memory', of: 'supervisor VmRSS, bridge', most: 4096 },
  { suite: 'memory', of: 'per container Rss, none', most: 150 },
  { suite: 'memory', of: 'per container Rss, bridge', most: 150 },
  // umoci reads no zstd.
  { suite: 'images', of: 'nsrs pull, gzip', over: 'skopeo + umoci, gzip', most: 0.5 },
  { suite: 'images', of: 'nsrs pull, gzip', over: 'curl | tar, gzip', most: 1.1 },
  { suite: 'images', of: 'nsrs pull, zstd', over: 'curl | tar, zstd', most: 1.1 },
  { suite: 'images', of: 'nsrs pull, again', beyond: 'curl, the manifest', most: 50 },
  { suite: 'image-memory', of: 'pull VmHWM, gzip', most: 120_000 },
  { suite: 'image-memory', of: 'pull VmHWM, zstd', most: 120_000 },
]

/** The names a target needs. */
export const namesOf = ({ of, over, beyond }) => [of, over, beyond].filter((name) => name !== undefined)
