// Before a release is published: one version everywhere, and the main package names those of the platforms. In the
// repository it does not, since a package that is not published yet can't stand in the lock file.

import { accessSync, chmodSync, constants, readdirSync, readFileSync, writeFileSync } from 'node:fs'

const version = process.argv[2]
const read = (path) => JSON.parse(readFileSync(path, 'utf8'))
const write = (path, value) => writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`)

const main = read('package.json')
const workspace = /^version = "(.*)"$/m.exec(readFileSync('Cargo.toml', 'utf8'))?.[1]
for (const [what, found] of [
  ['package.json', main.version],
  ['Cargo.toml', workspace],
]) {
  if (found !== version) throw new Error(`the tag says ${version}, and ${what} ${found}`)
}

const optionalDependencies = {}
for (const name of readdirSync('npm')) {
  const directory = `npm/${name}`
  // Artifacts lose their mode on the way.
  chmodSync(`${directory}/nsrs-runtime`, 0o755)
  accessSync(`${directory}/nsrs.node`, constants.R_OK)
  const manifest = read(`${directory}/package.json`)
  write(`${directory}/package.json`, { ...manifest, version })
  optionalDependencies[manifest.name] = version
}
write('package.json', { ...main, optionalDependencies })
