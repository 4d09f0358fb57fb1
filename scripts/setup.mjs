// Sets up everything that build, tests and demo need: Debian packages, npm packages, other runtimes of JavaScript, and the
// build if it is stale.

import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { installRuntimes } from './runtimes.mjs'

/** Debian packages, each with a file that shows that it is there. */
const packages = {
  'busybox-static': '/bin/busybox',
  bubblewrap: '/usr/bin/bwrap',
  runc: '/usr/sbin/runc',
  nftables: '/usr/sbin/nft',
  passt: '/usr/bin/pasta',
  uidmap: '/usr/bin/newuidmap',
  iproute2: '/usr/sbin/ip',
  mmdebstrap: '/usr/bin/mmdebstrap',
  'dnsmasq-base': '/usr/sbin/dnsmasq',
  'util-linux': '/usr/bin/setpriv',
  python3: '/usr/bin/python3',
  socat: '/usr/bin/socat',
  'iputils-ping': '/usr/bin/ping',
  'docker-registry': '/usr/bin/docker-registry',
  skopeo: '/usr/bin/skopeo',
  umoci: '/usr/bin/umoci',
  'apache2-utils': '/usr/bin/htpasswd',
  openssl: '/usr/bin/openssl',
  zstd: '/usr/bin/zstd',
}

function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', ...options })
  if (error) throw error
  if (status !== 0) process.exit(status ?? 1)
}

/** Debian and its merged /usr keep some programs in either place. */
const exists = (path) => existsSync(path) || existsSync(`/usr${path}`) || existsSync(path.replace('/sbin/', '/bin/'))

function installPackages() {
  const missing = Object.keys(packages).filter((name) => !exists(packages[name]))
  if (missing.length === 0) return
  if (process.getuid() !== 0 || !existsSync('/usr/bin/apt-get')) {
    console.error(`these Debian packages are missing, and tests that need them are skipped: ${missing.join(' ')}`)
    return
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  run('apt-get', ['update', '-qq'], { env })
  run('apt-get', ['install', '-qq', '--yes', '--no-install-recommends', ...missing], { env })
}

/** Tests run as root and as an ordinary user, who has subordinate ids of his own. */
function makeTester() {
  if (process.getuid() !== 0 || spawnSync('id', ['tester']).status === 0) return
  run('useradd', ['--create-home', '--shell', '/bin/bash', 'tester'])
}

/** As on a desktop, where udev gives it to everybody: pasta opens it as an ordinary user. */
function openTun() {
  if (process.getuid() === 0 && existsSync('/dev/net/tun')) chmodSync('/dev/net/tun', 0o666)
}

function newest(path) {
  if (!existsSync(path)) return 0
  const stat = statSync(path)
  if (!stat.isDirectory()) return stat.mtimeMs
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))))
}

function oldest(paths) {
  return Math.min(...paths.map((path) => (existsSync(path) ? statSync(path).mtimeMs : 0)))
}

function isOlder(products, sources) {
  return oldest(products) < Math.max(...sources.map(newest))
}

function buildIfStale() {
  const glibc = process.report.getReport().header.glibcVersionRuntime
  const directory = `npm/linux-${process.arch}-${glibc ? 'gnu' : 'musl'}`
  const native = [`${directory}/nsrs.node`, `${directory}/nsrs-runtime`, `${directory}/nsrs-image`]
  if (isOlder(native, ['crates', 'Cargo.lock', 'Cargo.toml'])) run('npm', ['run', 'build:native'])
  if (
    isOlder(['dist/index.js', 'dist/cli.cjs', 'dist/commands.cjs'], ['ts', 'cli', 'tsup.config.ts', 'package.json'])
  ) {
    run('npm', ['run', 'build:ts'])
  }
}

installPackages()
makeTester()
if (!existsSync('node_modules/.bin/tsup'))
  execFileSync('npm', ['install', '--ignore-scripts', '--no-save'], { stdio: 'inherit' })
if (process.argv[2] !== 'demo') {
  openTun()
  // Half a gigabyte that a demonstration has no use for.
  installRuntimes('.runtimes')
}
buildIfStale()
