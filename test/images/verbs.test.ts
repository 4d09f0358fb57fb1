// The verbs of the command line, against a real registry and beside other tools.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { asEach, cli, type ExecOptions, type Place, unless } from '../helpers/product.ts'
import {
  checkBlobs,
  digestOf,
  noRegistry,
  PASSWORD,
  publish,
  readBySkopeo,
  registry,
  source,
  tool,
  USER,
} from '../helpers/registry.ts'

const missing = noRegistry()
let [address, locked, layout] = ['', '', '']

test.before(async () => {
  if (missing) return
  address = await registry()
  locked = await registry({ isPrivate: true })
  layout = source(200_000, 3000)
  publish(layout, `${address}/box:1`)
  publish(layout, `${locked}/box:1`, `--dest-creds=${USER}:${PASSWORD}`)
})

/** `nsrs` with a store and a home of its own. */
class Images {
  readonly store: string
  constructor(
    readonly t: ExecutionContext,
    readonly place: Place,
    name = 'images',
  ) {
    this.store = join(place.dir, name)
    place.make('home')
  }

  run(args: string[], { env, ...options }: ExecOptions = {}) {
    return this.place.nsrs(args, { ...options, env: { ...this.env(), ...env } })
  }

  /** A line of bash with `nsrs` as "$@". */
  shell(line: string) {
    return this.place.exec('bash', ['-c', line, 'bash', process.execPath, cli], { env: this.env() })
  }

  env() {
    return { NSRS_IMAGE_DIR: this.store, HOME: join(this.place.dir, 'home') }
  }

  /** What a call wrote that has to succeed. */
  async ok(args: string[], options: ExecOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(args, options)
    this.t.is(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout.trimEnd()
  }

  /** A call that has to fail with 125, and to say this. */
  async fails(args: string[], says: RegExp, options: ExecOptions = {}): Promise<void> {
    const { code, stderr } = await this.run(args, options)
    this.t.is(code, 125, args.join(' '))
    this.t.regex(stderr, says, args.join(' '))
  }

  async list(): Promise<{ name: string; id: string; digest: string; size: number }[]> {
    return JSON.parse(await this.ok(['images', '--format', 'json']))
  }
}

const each = (title: string, body: (t: ExecutionContext, images: Images) => Promise<unknown>) =>
  unless(missing, asEach, title, (t, place) => body(t, new Images(t, place)))

each('an image is pulled, named, listed, pushed and removed', async (t, images) => {
  const reference = `${address}/box:1`
  const digest = digestOf(reference)
  t.is(await images.ok(['pull', '-q', reference]), digest)
  t.is(JSON.parse(await images.ok(['image', 'pull', '--format', 'json', reference])).present, true)
  t.is(readBySkopeo(images.store, reference).layers.length, 3)

  await images.ok(['tag', reference, 'box', `${address}/other/box:2`])
  const names = (await images.list()).map(({ name }) => name)
  t.deepEqual(names.sort(), [reference, `${address}/other/box:2`, 'docker.io/library/box:latest'].sort())
  const table = await images.ok(['images', '--digests'])
  t.regex(table, /^REPOSITORY +TAG +DIGEST +IMAGE ID +CREATED +SIZE\n/)
  t.true(table.includes(digest) && /^box +latest +/m.test(table), table)
  const ids = await images.ok(['image', 'ls', '-q'])
  t.regex(ids, /^([0-9a-f]{12})\n\1\n\1$/)
  t.regex(await images.ok(['images', '-q', '--no-trunc', 'box']), /^sha256:[0-9a-f]{64}$/)

  t.is(await images.ok(['push', '-q', `${address}/other/box:2`]), digest)
  t.is(digestOf(`${address}/other/box:2`), digest)
  await images.ok(['push', 'box', `${address}/third:3`])
  t.is(digestOf(`${address}/third:3`), digest)
  await images.fails(['push', ids.slice(0, 12)], /an id has no registry to push to\nhint: .*nsrs push [0-9a-f]{12} REG/)
  t.is(await images.ok(['push', '-q', ids.slice(0, 12), `${address}/fourth:4`]), digest)
  t.is(digestOf(`${address}/fourth:4`), digest)

  await images.fails(['rmi', ids.slice(0, 12)], /3 names refer to it\nhint: give one of them \(.*--force/)
  const some = await images.run(['inspect', 'nope', 'box', 'UPPER'])
  t.is(some.code, 125)
  t.is(JSON.parse(some.stdout)[0].Digest, digest)
  t.regex(some.stderr, /^nsrs: .*nope.*\nhint: .*\nnsrs: .*UPPER.*\n/)
  const gone = await images.run(['rmi', 'nope', 'box', 'UPPER'])
  t.deepEqual([gone.code, gone.stdout], [125, 'untagged: docker.io/library/box:latest\n'], gone.stderr)
  t.regex(gone.stderr, /^nsrs: .*nope.*\nhint: .*\nnsrs: .*UPPER.*\n/)
  await images.ok(['image', 'rm', '-f', ids.slice(0, 12)])
  t.deepEqual(await images.list(), [])
  await images.ok(['image', 'prune', '-f'])
  t.is(checkBlobs(images.store), 0)
})

each('mirrors are asked first, and the help tells of them', async (t, images) => {
  publish(layout, `${address}/cache/library/mirrored:1`)
  const env = { NSRS_REGISTRY_MIRRORS: `quay.io=http://127.0.0.1:1, http://${address}/cache` }
  t.is(await images.ok(['pull', '-q', 'mirrored:1'], { env }), digestOf(`${address}/box:1`))
  t.is((await images.list())[0]?.name, 'docker.io/library/mirrored:1')
  await images.fails(['pull', 'box'], /invalid NSRS_REGISTRY_MIRRORS "nonsense"/, {
    env: { NSRS_REGISTRY_MIRRORS: 'nonsense' },
  })
  t.regex(await images.ok(['pull', '--help']), /NSRS_REGISTRY_MIRRORS, a list of \[REGISTRY=\]URL/)
})

each('progress: plain lines elsewhere than on a terminal, or an event a line, or nothing', async (t, images) => {
  const reference = `${address}/box:1`
  const { stdout, stderr } = await images.run(['pull', reference])
  t.is(stdout, '')
  t.regex(stderr, /^([0-9a-f]{12}: done, \d+\.\d [kM]B\n){3}127\S+box:1: sha256:[0-9a-f]{64} in (\d+ ms|\d+\.\d s)\n$/)
  t.regex(
    (await images.run(['pull', reference])).stderr,
    /^127\S+box:1: sha256:[0-9a-f]{64} already exists; checked in \d+ ms\n$/,
  )
  await images.ok(['rmi', reference])
  const lines = (await images.run(['pull', '--progress', 'json', reference])).stderr.trimEnd().split('\n')
  const events = lines.map((line) => JSON.parse(line).event)
  t.deepEqual([events[0], events.at(-1), ...new Set(events)], ['resolving', 'done', 'resolving', 'layer', 'done'])
  await images.ok(['rmi', reference])
  t.deepEqual(await images.run(['pull', '--progress=none', reference]), {
    code: 0,
    signal: null,
    stdout: `${digestOf(reference)}\n`,
    stderr: '',
  })
})

each("archives are read by skopeo, and other tools' are loaded", async (t, images) => {
  const reference = `${address}/box:1`
  const at = (name: string) => join(images.place.dir, name)
  await images.ok(['pull', '-q', reference])
  await images.ok(['save', '-o', 'docker.tar', reference])
  await images.ok(['save', '--format', 'oci', '--output=oci.tar', reference])
  const [{ id } = { id: '' }] = await images.list()
  for (const kind of ['docker', 'oci']) {
    const config = JSON.parse(tool('skopeo', 'inspect', '--config', `${kind}-archive:${at(`${kind}.tar`)}`))
    t.deepEqual(config.config, { Env: ['A=b'], Cmd: ['/bin/sh'] }, kind)
    const other = new Images(t, images.place, `store-${kind}`)
    t.is(await other.ok(['load', '-q', '-i', `${kind}.tar`]), id)
    t.is((await other.list())[0]?.name, reference)
  }
  tool('skopeo', 'copy', '-q', layout, `docker-archive:${at('theirs.tar')}:theirs:1`)
  images.place.own(at('theirs.tar'))
  const other = new Images(t, images.place, 'store-theirs')
  const loaded = await other.shell('"$@" load < theirs.tar')
  t.deepEqual([loaded.code, loaded.stdout], [0, 'loaded: docker.io/library/theirs:1\n'], loaded.stderr)
  await other.fails(['load', '-i', 'docker.tar', 'oci.tar'], /load one archive at a time, not docker\.tar and oci\.tar/)
  t.is((await other.list())[0]?.id, id)
})

each('a reader that has enough ends save, export and lists as any program', async (t, images) => {
  await images.ok(['pull', '-q', `${address}/box:1`])
  for (const verb of [`save ${address}/box:1`, `export ${address}/box:1`, 'images']) {
    const { stdout, stderr } = await images.shell(`(sleep 0.5; exec "$@" ${verb}) | true; echo "\${PIPESTATUS[*]}"`)
    t.deepEqual([stdout, stderr], ['141 0\n', ''], verb)
  }
})

each('a tree becomes an image, and an image a tree', async (t, images) => {
  const { place } = images
  const tree = place.make('tree')
  place.make('tree/etc')
  writeFileSync(join(tree, 'etc/name'), 'nsrs\n')
  const id = await images.ok(['import', '-q', '-c', 'CMD ["cat", "/etc/name"]', '-m', 'by hand', tree, 'tree:1'])
  const [details] = JSON.parse(await images.ok(['inspect', 'tree:1']))
  t.deepEqual([details.Id, details.Config.Cmd, details.RepoTags], [id, ['cat', '/etc/name'], ['tree:1']])
  const [step] = JSON.parse(await images.ok(['history', '--format', 'json', 'tree:1']))
  t.is(step.comment, 'by hand')
  t.regex(await images.ok(['image', 'history', 'tree:1']), /^CREATED +CREATED BY +SIZE +COMMENT\n.*nsrs import/)

  await images.ok(['export', '-o', 'flat.tar', 'tree:1'])
  const flat = join(place.dir, 'flat.tar')
  t.is(tool('tar', '-xOf', flat, 'etc/name'), 'nsrs')
  const piped = await images.shell('"$@" export tree:1 | "$@" import - tree:2')
  t.is(piped.code, 0, piped.stderr)
  t.is(piped.stdout, 'imported: docker.io/library/tree:2\n')
  await images.ok(['export', '-o', 'again.tar', 'tree:2'])
  t.is(tool('tar', '-tvf', join(place.dir, 'again.tar')), tool('tar', '-tvf', flat))
})

each('a password comes by standard input, is verified and kept', async (t, images) => {
  const login = ['login', '-u', USER, '--password-stdin', locked]
  await images.fails(['pull', `${locked}/box:1`], /\nhint: .*nsrs login/)
  await images.fails(login, /refuse|wrong|not/i, { input: 'wrong\n' })
  const kept = join(images.place.dir, 'home/.docker/config.json')
  t.false(existsSync(kept))
  t.is(
    (await images.run(login, { input: `${PASSWORD}\n` })).stderr,
    `logged in to ${locked} as ${USER}; credentials stored in ${kept}\n`,
  )
  t.truthy(JSON.parse(readFileSync(kept, 'utf8')).auths[locked])
  t.is(await images.ok(['pull', '-q', `${locked}/box:1`]), digestOf(`${address}/box:1`))
  await images.ok(['logout', locked])
  t.deepEqual(JSON.parse(readFileSync(kept, 'utf8')).auths, {})
  await images.fails(['login', '--password-stdin', locked], /--password-stdin needs a --username/)
})

each('what is wrong is said, with what to do', async (_, images) => {
  await images.ok(['pull', '-q', `${address}/box:1`])
  await images.ok(['tag', `${address}/box:1`, 'toolbox:stable'])
  const wrong: [string[], RegExp][] = [
    [['pull', `${address}/nothing`], /nothing.*\n/],
    [['pull', 'UPPER'], /invalid image reference "UPPER": .*lower case/],
    [['pull', '--platform', 'linux/s390x', `${address}/box:1`], /linux\/amd64|linux\/arm64/],
    [['pull', '--jobs', 'many', 'x'], /invalid --jobs "many": give a number/],
    [['pull', '--platfrom', 'x', 'y'], /unknown option '--platfrom' \(Did you mean --platform\?\)/],
    [['pull'], /missing required argument 'image'/],
    [['pul', 'x'], /unknown command 'pul' \(Did you mean pull\?\)/],
    [['images', '--format', 'yaml'], /Allowed choices are table, json/],
    [['rmi', 'tolbox:stable'], /not in the store\nhint: did you mean toolbox:stable\?/],
    [['save', 'toolbox:stabel'], /did you mean toolbox:stable\?/],
    [['save', '-o', '/nowhere/x.tar', 'toolbox:stable'], /write the archive \/nowhere\/x\.tar: no such file/],
    [['load', '-i', '/nowhere'], /open the archive \/nowhere: no such file/],
    [['load'], /the archive is empty/],
    [['import', 'tree', 'a@sha256:12'], /invalid image reference/],
  ]
  for (const [args, says] of wrong) await images.fails(args, says)
  await images.fails(['pull', '-q', `${address}/box:1`], /\/proc\/nsrs.*\nhint: .*NSRS_IMAGE_DIR/, {
    env: { NSRS_IMAGE_DIR: '/proc/nsrs' },
  })
})

test('every command is in a help that fits a screen, and has one of its own', async (t) => {
  const { nsrs } = await import('../helpers/cli.ts')
  const { verbs } = await import('../../cli/image-verbs.ts')
  const help = nsrs(['--help']).stdout
  t.true(help.split('\n').length <= 25 && help.split('\n').every((line) => line.length <= 80), help)
  for (const [verb, { onlyLong, long, flags }] of Object.entries(verbs)) {
    t.is(new RegExp(`\\b${verb} {2}`).test(help), !onlyLong, verb)
    const own = nsrs(['image', long ?? verb, '--help']).stdout
    for (const flag of flags) t.true(own.includes(flag.flags), `${verb} ${flag.flags}`)
    if (!onlyLong) t.is(nsrs(['help', verb]).stdout, own.replace(/^Usage: nsrs image \S+/, `Usage: nsrs ${verb}`))
  }
})
