// What of the host can't be seen on its own tree: secrets of homes, tokens, sockets of services.

import { spawn } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { asEach, asRoot } from '../helpers/product.ts'

const SECRET = 'BEGIN OPENSSH PRIVATE KEY'

asEach('the secrets of a home directory are hidden, behind links too', async (t, place) => {
  const home = place.make('home')
  const files = [
    '.ssh/id_ed25519',
    '.aws/credentials',
    '.kube/config',
    '.gnupg/key',
    '.config/gh/hosts.yml',
    '.netrc',
    '.npmrc',
    '.git-credentials',
    '.docker/config.json',
    '.bash_history',
    '.cargo/credentials.toml',
    '.config/gcloud/token',
    '.config/opera/Cookies',
    'snap/firefox/common/cookies.sqlite',
    '.claude.json',
    '.config/.wrangler/config/default.toml',
    '.cache/huggingface/token',
    '.config/pip/pip.conf',
    '.nuget/NuGet/NuGet.Config',
    '.bitcoin/wallet.dat',
    '.local/share/evolution/mail',
    '.subversion/auth/svn.simple/key',
    '.python_history',
  ]
  for (const file of files) {
    mkdirSync(join(home, file, '..'), { recursive: true })
    writeFileSync(join(home, file), SECRET)
  }
  // Dotfiles kept elsewhere, as with stow(1).
  mkdirSync(join(home, 'dotfiles/azure'), { recursive: true })
  writeFileSync(join(home, 'dotfiles/azure/token'), SECRET)
  writeFileSync(join(home, 'dotfiles/pgpass'), SECRET)
  symlinkSync('dotfiles/azure', join(home, '.azure'))
  symlinkSync(join(home, 'dotfiles/pgpass'), join(home, '.pgpass'))
  writeFileSync(join(home, 'plain'), 'no secret')
  const env = { HOME: home }
  const all = [...files, '.azure/token', '.pgpass']
  const cat = ['sh', '-c', 'cd ~ && cat plain "$@" 2>/dev/null; cat plain', 'sh', ...all]
  t.is(
    (await place.exec(cat[0] as string, cat.slice(1), { env })).stdout.split(SECRET).length - 1,
    all.length,
    'they are there',
  )
  // The home lies in /tmp, which is fresh in a container: it is the caller's directory, and so it is visible.
  const out = await place.output(cat, { env, cwd: home })
  t.is(out, 'no secretno secret', 'all of them are hidden')
})

asEach('more is hidden on request', async (t, place) => {
  const dir = place.make('work')
  writeFileSync(join(dir, 'key'), SECRET)
  mkdirSync(join(dir, 'keys'))
  writeFileSync(join(dir, 'keys/one'), SECRET)
  const out = await place.output(['--hide', 'key', '--hide', './keys', 'sh', '-c', 'cat key keys/* 2>/dev/null; ls'], {
    cwd: dir,
  })
  t.notRegex(out, /BEGIN/)
})

asEach('tokens in the environment stay outside', async (t, place) => {
  const env = {
    AWS_SECRET_ACCESS_KEY: SECRET,
    GITHUB_TOKEN: SECRET,
    NPM_TOKEN: SECRET,
    SSH_AUTH_SOCK: '/tmp/agent',
    LC_EVIL: SECRET,
    NODE_OPTIONS: '--no-warnings',
    LD_PRELOAD: '',
    TZ: 'UTC',
  }
  const seen = await place.output(
    ['sh', '-c', 'cat /proc/1/environ | tr "\\0" "\\n"; cat /proc/self/environ | tr "\\0" "\\n"'],
    { env },
  )
  t.notRegex(seen, /BEGIN|SSH_AUTH|NODE_OPTIONS|NSRS/)
  t.regex(seen, /^TZ=UTC$/m)
  t.regex(await place.output(['-e', 'GITHUB_TOKEN', 'env'], { env }), /GITHUB_TOKEN=BEGIN/)
})

asRoot("sockets of services in /run and /tmp can't be reached, nor abstract ones", async (t, place) => {
  const paths = [`/run/nsrs-test-${process.pid}.sock`, join(place.dir, 'service.sock')]
  const servers = await Promise.all(
    paths.map(
      (path) =>
        new Promise<ReturnType<typeof createServer>>((resolve) => {
          const server = createServer((socket) => socket.on('error', () => {}).end('reached'))
          server.listen(path, () => resolve(server))
        }),
    ),
  )
  t.teardown(() =>
    servers.forEach((server) => {
      server.close()
    }),
  )
  const abstract = spawn('socat', [`ABSTRACT-LISTEN:nsrs-test-${process.pid},fork`, 'SYSTEM:printf reached'], {
    stdio: 'ignore',
  })
  t.teardown(() => abstract.kill())
  await t.notThrowsAsync(
    Promise.all(
      paths.map((path) => new Promise((resolve, reject) => connect(path).on('error', reject).on('data', resolve))),
    ),
  )
  const script =
    'for path; do socat -u UNIX-CONNECT:$path - 2>/dev/null || echo closed; done; socat -u ABSTRACT-CONNECT:$ABSTRACT - 2>/dev/null || echo closed'
  const env = { ABSTRACT: `nsrs-test-${process.pid}` }
  const args = ['sh', '-c', script, 'sh', ...paths]
  t.is(await place.output(['-e', 'ABSTRACT', ...args], { cwd: '/', env }), 'closed\nclosed\nclosed')
  t.is((await place.exec('sh', args.slice(1), { env })).stdout, 'reachedreachedreached')
})

asEach("the state directory of nsrs and other users' processes are not there", async (t, place) => {
  const out = await place.output(
    ['sh', '-c', 'ls /run /tmp; ls /run/nsrs /tmp/nsrs-* 2>&1 | head; kill -0 $PPID 2>&1; :'],
    { cwd: '/' },
  )
  t.notRegex(out, /nsrs-test|supervisors/)
})
