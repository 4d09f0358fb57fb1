/** What `images.push()` resolves with. */
export interface PushedImage {
  /** The full name it has in the registry. */
  reference: string
  /** The digest of what the registry has under that name now. */
  digest: string
}

/** What `images.pull()` resolves with. */
export interface PulledImage {
  /** The full name: `docker.io/library/busybox:latest`. */
  reference: string
  /** The digest that the registry has under the name: of an index, or of the image. */
  digest: string
  /** The digest of the image's manifest. */
  image: string
  /** Nothing was fetched: all of it was there. */
  present: boolean
}

/** An image of the store, as `images.list()` has it. */
export interface ImageSummary {
  /** The full name; `null` for an image without one. */
  name: string | null
  /** The short name without the tag: `busybox`; `<none>` without a name. */
  repository: string
  /** The tag; `<none>` without one. */
  tag: string
  /** The digest of the configuration. Missing where the image is damaged. */
  id?: string
  /** The digest of the manifest. */
  digest: string
  /** When it was made, as RFC 3339; `null` where it doesn't say. */
  created?: string | null
  /** Bytes of its packed layers. */
  size?: number
  /** How many layers it has. */
  layers?: number
  /** `linux/amd64`. */
  platform?: string
  /** What is wrong with it, where a part is missing or altered. */
  error?: string
}

/** Everything that is known of an image, by docker's names. */
export interface ImageDetails {
  /** The digest of the configuration. */
  Id: string
  /** The digest of the manifest. */
  Digest: string
  RepoTags: string[]
  RepoDigests: string[]
  Created: string | null
  Author: string | null
  Architecture: string
  Variant: string | null
  Os: string
  /** Bytes of its packed layers. */
  Size: number
  /** The configuration of its containers, as the image has it: `Env`, `Cmd`, `Entrypoint`, `User`, `WorkingDir`, … */
  Config: Record<string, unknown> | null
  RootFS: { Type: 'layers'; Layers: string[] }
  /** The descriptors of its packed layers, the lowest first. */
  Layers: { mediaType: string; digest: string; size: number }[]
  /** All layers are unpacked. */
  Unpacked: boolean
  Annotations: Record<string, string> | null
}

/** One step of how an image came to be. */
export interface ImageStep {
  /** When, as RFC 3339; `null` where it doesn't say. */
  created: string | null
  /** The command. */
  createdBy: string | null
  comment: string | null
  /** Bytes of its packed layer; 0 for a step without one. */
  size: number
  /** The digest of its layer, unpacked; `null` for a step without one. */
  diffId: string | null
}

/** An image that came from a file or a directory. */
export interface LoadedImage {
  /** The full name; `null` without one. */
  name: string | null
  /** The digest of the configuration. */
  id: string
  /** The digest of the manifest. */
  digest: string
}

/** What was given back. */
export interface PrunedSpace {
  /** Manifests, configurations and packed layers. */
  blobs: number
  /** Unpacked layers. */
  layers: number
  /** Unpacked layers that no image needs and a container still uses. */
  inUse: number
  /** Bytes of what was removed. */
  bytes: number
}

/** What `images.remove()` resolves with. */
export interface RemovedImages {
  /** The names that are gone; the digest of an image without one. */
  untagged: string[]
  /** What was given back; `null` where others use the store just now, and the next `prune` does it. */
  pruned: PrunedSpace | null
}

/** What `images.login()` resolves with. */
export interface LoggedIn {
  registry: string
  user: string
  /** The file or the helper that keeps the credentials. */
  kept: string
}
