import type { Flag } from './flags.ts'

/** A flag of a verb. */
export interface VerbFlag extends Pick<Flag, 'flags' | 'help' | 'many' | 'choices'> {
  /** What nsrs-image calls it; default: its own long name. `null`: nsrs-image needs no word for it. */
  as?: string | null
}

/** Something that can be done with images: `nsrs VERB`, and the same below `nsrs image`. */
export interface Verb {
  /** What it is told, as commander takes it. */
  args: string
  /** A few words for the list of commands. */
  summary: string
  /** A sentence or two. */
  description: string
  flags: readonly VerbFlag[]
  /** Lines of an example. */
  examples: readonly string[]
  /** Its name below `nsrs image`, where docker has another one there. */
  long?: string
  /** It is only below `nsrs image`. */
  onlyLong?: true
}

const quiet = (help: string): VerbFlag => ({ flags: '-q, --quiet', help })
const progress: VerbFlag = {
  flags: '--progress <HOW>',
  help: 'live (on a terminal), plain, json (a line an event) or none',
  choices: ['live', 'plain', 'json', 'none'],
}
const format: VerbFlag = { flags: '--format <FORMAT>', help: 'table or json', choices: ['table', 'json'] }
const result: VerbFlag = { flags: '--format <FORMAT>', help: 'json: print the result as JSON', choices: ['json'] }
const jobs: VerbFlag = { flags: '--jobs <N>', help: 'layers at the same time, 1 to 16 (default 3)' }
const unpack: VerbFlag = { flags: '--no-unpack', help: 'leave the layers packed' }
const ratio: VerbFlag = {
  flags: '--max-ratio <N>',
  help: 'how many times its packed size a layer may unpack to, beyond 1 GiB (default 200)',
}
const registry: readonly VerbFlag[] = [
  { flags: '--authfile <FILE>', help: "credentials (default: docker's and podman's)" },
  { flags: '--ca-file <FILE>', help: 'certificates to trust besides those of the system' },
  { flags: '--plain-http', help: 'without encryption, to other hosts than this one too' },
]

/** Every verb. */
export const verbs: Record<string, Verb> = {
  pull: {
    args: '<image>',
    summary: 'get one from a registry',
    description:
      'Get an image from a registry and unpack it. What is here already is not fetched again.\n' +
      "NSRS_REGISTRY_MIRRORS is a list of [REGISTRY=]URL, docker.io's without a registry: they are asked first.",
    flags: [
      { flags: '--platform <OS/ARCH[/VARIANT]>', help: 'of another machine than this' },
      quiet('print the digest and nothing else'),
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
    summary: 'bring one to a registry',
    description:
      'Bring an image to the registry of its name, or under another name. Layers that are here unpacked go by gzip.',
    flags: [quiet('print the digest and nothing else'), progress, result, jobs, ...registry],
    examples: ['nsrs push registry.example/app:1', 'nsrs push app registry.example/app:1'],
  },
  images: {
    args: '[name]',
    summary: 'list them',
    description: 'List the images that are here, the newest first. A name without a tag means all its tags.',
    flags: [
      quiet('print the ids and nothing else'),
      { flags: '--digests', help: 'show the digests too' },
      { flags: '--no-trunc', help: 'show ids as a whole' },
      format,
    ],
    examples: ['nsrs images', 'nsrs images --format json busybox'],
    long: 'ls',
  },
  rmi: {
    args: '<image...>',
    summary: 'remove some',
    description:
      'Take names away, and with the last name of an image the image itself. What is not there is told behind the rest.',
    flags: [
      { flags: '-f, --force', help: 'remove an image given by its id that has several names' },
      { flags: '--no-prune', help: 'leave what no image needs any more to a later prune' },
      result,
    ],
    examples: ['nsrs rmi busybox', 'nsrs rmi -f 3f57d9401f8d'],
    long: 'rm',
  },
  tag: {
    args: '<image> <name...>',
    summary: 'give one a further name',
    description: 'Give an image a further name, or several.',
    flags: [],
    examples: ['nsrs tag busybox registry.example/tools/busybox:1'],
  },
  inspect: {
    args: '<image...>',
    summary: 'tell all about one',
    description: "Tell everything that is known of images, as JSON by docker's names.",
    flags: [],
    examples: ['nsrs inspect busybox'],
  },
  history: {
    args: '<image>',
    summary: 'tell how one came to be',
    description: 'Tell how the layers of an image came to be, the last one first.',
    flags: [{ flags: '--no-trunc', help: 'show commands as a whole' }, format],
    examples: ['nsrs history busybox'],
  },
  load: {
    args: '[file]',
    summary: 'get some from an archive',
    description:
      'Get images from an archive (docker save, an OCI layout; plain or packed by gzip or zstd), from standard\ninput without a file, or from the directory of an OCI layout.',
    flags: [
      { flags: '-i, --input <FILE>', help: 'the archive or directory' },
      { flags: '--name <NAME>', help: 'for an image that has none' },
      quiet('print the ids and nothing else'),
      progress,
      result,
      unpack,
      ratio,
    ],
    examples: ['nsrs load -i app.tar', 'docker save app | nsrs load'],
  },
  save: {
    args: '<image...>',
    summary: 'write some as an archive',
    description: 'Write images as one archive, to standard output without a file.',
    flags: [
      { flags: '-o, --output <FILE>', help: 'the archive; it appears when it is complete' },
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
    summary: 'make one of a root tree',
    description:
      'Make an image of a root file system: a tar archive (plain or packed by gzip or zstd), a directory,\nor - for standard input.',
    flags: [
      { flags: '-c, --change <INSTRUCTION>', help: 'of a Dockerfile, such as \'CMD ["sh"]\'', many: true },
      { flags: '-m, --message <TEXT>', help: 'what its history says' },
      { flags: '--arch <ARCH>', help: "the architecture (default: this machine's)" },
      quiet('print the id and nothing else'),
      result,
      ratio,
    ],
    examples: ['nsrs import ./debian-root debian:mine', "xz -dc root.tar.xz | nsrs import -c 'CMD bash' - debian:mine"],
  },
  export: {
    args: '<image>',
    summary: 'write its root as a tar',
    description: 'Write the root file system of an image as one flat tar archive, to standard output without a file.',
    flags: [{ flags: '-o, --output <FILE>', help: 'the archive; it appears when it is complete' }, progress, ratio],
    examples: ['nsrs export busybox | tar tv', 'nsrs export -o root.tar busybox'],
  },
  login: {
    args: '[registry]',
    summary: 'log in to a registry',
    description: 'Verify who you are to a registry (default docker.io), and keep that where docker and podman do.',
    flags: [
      { flags: '-u, --username <USER>', help: 'the user; asked for if left out' },
      { flags: '--password-stdin', help: 'the password is a line of standard input', as: null },
      ...registry,
    ],
    examples: ['nsrs login registry.example', 'nsrs login -u ann --password-stdin registry.example < password'],
  },
  logout: {
    args: '[registry]',
    summary: 'log out of it',
    description: 'Forget who you are to a registry (default docker.io).',
    flags: registry.slice(0, 1),
    examples: ['nsrs logout registry.example'],
  },
  prune: {
    args: '',
    summary: 'give space back',
    description: 'Remove images without a name, and what no image needs.',
    flags: [
      { flags: '-a, --all', help: 'also images with a name, unless a container uses them' },
      { flags: '-f, --force', help: "don't ask, which nsrs never does: for docker's scripts", as: null },
      result,
    ],
    examples: ['nsrs image prune'],
    onlyLong: true,
  },
}
