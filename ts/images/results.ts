/** What `images.push()` resolves with. */
export interface PushedImage {
  /** Its full name in the registry. */
  reference: string
  /** The digest that the registry now has under that name. */
  digest: string
}

/** What `images.pull()` resolves with. */
export interface PulledImage {
  /** The full name: `docker.io/library/busybox:latest`. */
  reference: string
  /** The digest that the registry has under that name: that of an index, or of the image's manifest. */
  digest: string
  /** The digest of the image's manifest. */
  image: string
  /** Nothing was transferred: everything was there already. */
  present: boolean
}

/** An image of the store, as listed by `images.list()`. */
export interface ImageSummary {
  /** The full name; `null` if it has none. */
  name: string | null
  /** The short name without the tag, such as `busybox`; `<none>` if it has no name. */
  repository: string
  /** The tag; `<none>` if it has none. */
  tag: string
  /** The digest of the configuration. Missing if the image is damaged. */
  id?: string
  /** The digest of the manifest. */
  digest: string
  /** When it was made, by RFC 3339; `null` if unknown. */
  created?: string | null
  /** Size of its compressed layers in bytes. */
  size?: number
  /** The number of its layers. */
  layers?: number
  /** Operating system and architecture, such as `linux/amd64`. */
  platform?: string
  /** What is wrong with it, if a part is missing or damaged. */
  error?: string
}

/** Everything known about an image, under docker's names. */
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
  /** Size of its compressed layers in bytes. */
  Size: number
  /** The configuration of its containers as stored in the image: `Env`, `Cmd`, `Entrypoint`, `User`, `WorkingDir`, … */
  Config: Record<string, unknown> | null
  RootFS: { Type: 'layers'; Layers: string[] }
  /** The descriptors of its compressed layers, the lowest first. */
  Layers: { mediaType: string; digest: string; size: number }[]
  /** Whether all layers are unpacked. */
  Unpacked: boolean
  Annotations: Record<string, string> | null
}

/** One step in the history of an image. */
export interface ImageStep {
  /** When it was done, by RFC 3339; `null` if unknown. */
  created: string | null
  /** The command that was run. */
  createdBy: string | null
  comment: string | null
  /** Size of its compressed layer in bytes; 0 if it made none. */
  size: number
  /** The digest of its uncompressed layer; `null` if it made none. */
  diffId: string | null
}

/** An image that was loaded or imported. */
export interface LoadedImage {
  /** The full name; `null` if it has none. */
  name: string | null
  /** The digest of the configuration. */
  id: string
  /** The digest of the manifest. */
  digest: string
}

/** What was removed to reclaim disk space. */
export interface PrunedSpace {
  /** Number of removed manifests, configurations and compressed layers. */
  blobs: number
  /** Number of removed unpacked layers. */
  layers: number
  /** Number of unpacked layers that no image needs, but that were kept because a container uses them. */
  inUse: number
  /** Reclaimed bytes. */
  bytes: number
}

/** What `images.remove()` resolves with. */
export interface RemovedImages {
  /** The removed names; for an image without a name, its digest. */
  untagged: string[]
  /** What was removed with them; `null` if the store was in use, in which case the next `prune` removes it. */
  pruned: PrunedSpace | null
}

/** What `images.login()` resolves with. */
export interface LoggedIn {
  registry: string
  user: string
  /** The file or credential helper that stores the credentials. */
  kept: string
}
