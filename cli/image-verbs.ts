import type { Flag } from './flags.ts'

/** A flag of a verb. */
export interface VerbFlag extends Pick<Flag, 'flags' | 'help' | 'repeatable' | 'choices'> {
  /** Its name for nsrs-image. Default: its own long name. `null`: it is not passed on. */
  as?: string | null
}

/** A command for images: `nsrs VERB`, also available as a subcommand of `nsrs image`. */
export interface Verb {
  /** Its arguments, in the syntax of commander. */
  args: string
  /** A few words for the list of commands. */
  summary: string
  /** One or two sentences. */
  description: string
  flags: readonly VerbFlag[]
  /** Example command lines. */
  examples: readonly string[]
  /** Its name as a subcommand of `nsrs image`, if docker's differs there. */
  long?: string
  /** It is available as a subcommand of `nsrs image` only. */
  onlyLong?: true
}

const quiet = (help: string): VerbFlag => ({ flags: '-q, --quiet', help })
const progress: VerbFlag = {
  flags: '--progress <HOW>',
  help: 'live (on a terminal), plain, json (one event per line) or none',
  choices: ['live', 'plain', 'json', 'none'],
}
const format: VerbFlag = {
  flags: '--format <FORMAT>',
  help: 'output format: table or json',
  choices: ['table', 'json'],
}
const result: VerbFlag = { flags: '--format <FORMAT>', help: 'json: print the result as JSON', choices: ['json'] }
const jobs: VerbFlag = { flags: '--jobs <N>', help: 'transfer up to N layers at the same time, 1 to 16 (default 3)' }
const unpack: VerbFlag = { flags: '--no-unpack', help: 'do not unpack the layers' }
const ratio: VerbFlag = {
  flags: '--max-ratio <N>',
  help: 'let a layer unpack to N times its compressed size, beyond 1 GiB (default 200)',
}
const registry: readonly VerbFlag[] = [
  { flags: '--authfile <FILE>', help: "file of credentials (default: docker's and podman's)" },
  { flags: '--ca-file <FILE>', help: "certificates to trust in addition to the system's" },
  { flags: '--plain-http', help: 'use HTTP without TLS, even for other hosts' },
]

/** Every verb by its name. */
export const verbs: Record<string, Verb> = {
  pull: {
    args: '<image>',
    summary: 'pull an image',
    description:
      'Pull an image from a registry and unpack it. Layers that are in the store already are not fetched again.\n' +
      'The mirrors in NSRS_REGISTRY_MIRRORS, a list of [REGISTRY=]URL (default registry docker.io), are tried first.',
    flags: [
      { flags: '--platform <OS/ARCH[/VARIANT]>', help: "platform of the image (default: this machine's)" },
      quiet('print only the digest'),
      progress,
      result,
      jobs,
      unpack,
      ratio,
      ...registry,
    ],
    examples: ['nsrs pull busybox', 'nsrs pull --platform linux/arm64 ghcr.io/owner/app:1.2'],
  },
  push: {
    args: '<image> [to]',
    summary: 'push an image',
    description:
      'Push an image to the registry in its name, or under another name. Layers stored only unpacked are compressed by gzip.',
    flags: [quiet('print only the digest'), progress, result, jobs, ...registry],
    examples: ['nsrs push registry.example/app:1', 'nsrs push app registry.example/app:1'],
  },
  images: {
    args: '[name]',
    summary: 'list images',
    description: 'List the images in the store, the newest first. A name without a tag lists all its tags.',
    flags: [
      quiet('print only the ids'),
      { flags: '--digests', help: 'also show digests' },
      { flags: '--no-trunc', help: 'show full ids' },
      format,
    ],
    examples: ['nsrs images', 'nsrs images --format json busybox'],
    long: 'ls',
  },
  rmi: {
    args: '<image...>',
    summary: 'remove images',
    description: 'Remove names, and each image with its last name. Names that do not exist are reported at the end.',
    flags: [
      { flags: '-f, --force', help: 'remove an image given by its id even if it has several names' },
      { flags: '--no-prune', help: 'leave unneeded layers to a later prune' },
      result,
    ],
    examples: ['nsrs rmi busybox', 'nsrs rmi -f 3f57d9401f8d'],
    long: 'rm',
  },
  tag: {
    args: '<image> <name...>',
    summary: 'add a name to an image',
    description: 'Add one or more names to an image.',
    flags: [],
    examples: ['nsrs tag busybox registry.example/tools/busybox:1'],
  },
  inspect: {
    args: '<image...>',
    summary: 'show all about an image',
    description: "Show everything known about images, as JSON with docker's names.",
    flags: [],
    examples: ['nsrs inspect busybox'],
  },
  history: {
    args: '<image>',
    summary: 'show its history',
    description: 'Show the history of an image, the last step first.',
    flags: [{ flags: '--no-trunc', help: 'show full commands' }, format],
    examples: ['nsrs history busybox'],
  },
  load: {
    args: '[file]',
    summary: 'load an archive',
    description:
      'Load images from an archive (of docker save, or an OCI layout; plain, gzip or zstd) or from a directory with an OCI layout.\nWithout a file, the archive is read from standard input.',
    flags: [
      { flags: '-i, --input <FILE>', help: 'archive or directory to load' },
      { flags: '--name <NAME>', help: 'name for an image that has none' },
      quiet('print only the ids'),
      progress,
      result,
      unpack,
      ratio,
    ],
    examples: ['nsrs load -i app.tar', 'docker save app | nsrs load'],
  },
  save: {
    args: '<image...>',
    summary: 'save an archive',
    description: 'Write images to one archive; without a file, to standard output.',
    flags: [
      { flags: '-o, --output <FILE>', help: 'archive to write; it appears when it is complete' },
      {
        flags: '--format <FORMAT>',
        help: 'docker (default) or oci',
        choices: ['docker', 'oci', 'docker-archive', 'oci-archive'],
        as: '--type',
      },
    ],
    examples: ['nsrs save -o app.tar app', 'nsrs save app | docker load'],
  },
  import: {
    args: '<file|directory|-> [name]',
    summary: 'make an image of a tree',
    description:
      'Make an image from a root file system: a tar archive (plain, gzip or zstd), a directory, or - for standard input.',
    flags: [
      {
        flags: '-c, --change <INSTRUCTION>',
        help: 'apply a Dockerfile instruction, such as \'CMD ["sh"]\'',
        repeatable: true,
      },
      { flags: '-m, --message <TEXT>', help: 'comment for its history' },
      { flags: '--arch <ARCH>', help: "architecture (default: this machine's)" },
      quiet('print only the id'),
      result,
      ratio,
    ],
    examples: ['nsrs import ./debian-root debian:mine', "xz -dc root.tar.xz | nsrs import -c 'CMD bash' - debian:mine"],
  },
  export: {
    args: '<image>',
    summary: 'write its root as a tar',
    description: 'Write the root file system of an image to one flat tar archive; without a file, to standard output.',
    flags: [
      { flags: '-o, --output <FILE>', help: 'archive to write; it appears when it is complete' },
      progress,
      ratio,
    ],
    examples: ['nsrs export busybox | tar tv', 'nsrs export -o root.tar busybox'],
  },
  login: {
    args: '[registry]',
    summary: 'log in to a registry',
    description: 'Log in to a registry (default docker.io) and store the credentials where docker and podman do.',
    flags: [
      { flags: '-u, --username <USER>', help: 'user name; asked for if left out' },
      { flags: '--password-stdin', help: 'read the password from standard input, as one line', as: null },
      ...registry,
    ],
    examples: ['nsrs login registry.example', 'nsrs login -u ann --password-stdin registry.example < password'],
  },
  logout: {
    args: '[registry]',
    summary: 'log out of a registry',
    description: 'Remove the stored credentials of a registry (default docker.io).',
    flags: registry.slice(0, 1),
    examples: ['nsrs logout registry.example'],
  },
  prune: {
    args: '',
    summary: 'reclaim disk space',
    description: 'Reclaim disk space: remove images without a name and everything that no image needs.',
    flags: [
      { flags: '-a, --all', help: 'also remove images with a name, unless a container uses them' },
      { flags: '-f, --force', help: 'no effect: nsrs never asks', as: null },
      result,
    ],
    examples: ['nsrs image prune'],
    onlyLong: true,
  },
}
