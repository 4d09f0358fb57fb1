/** Options of every call. */
export interface ImageOptions {
  /**
   * Ends the call when it is aborted; the call rejects with the signal's reason. The store stays consistent, and the next
   * call continues from what is complete.
   */
  signal?: AbortSignal | undefined
}

/** How a registry is reached. */
export interface RegistryOptions extends ImageOptions {
  /** Use HTTP without TLS, even for registries that aren't on this machine. Default false. */
  plainHttp?: boolean | undefined
  /** A file of certificates to trust in addition to the system's. */
  caFile?: string | undefined
  /** The file of credentials. Default: `$REGISTRY_AUTH_FILE`, then those of docker and podman. */
  authFile?: string | undefined
}

/** How layers are unpacked. */
export interface UnpackOptions extends ImageOptions {
  /**
   * How many times its compressed size a layer may unpack to, beyond 1 GiB: a limit against archives made to fill the disk.
   * Default 200.
   */
  maxRatio?: number | undefined
}

/** What `images.pull()` takes. */
export interface PullOptions extends RegistryOptions, UnpackOptions {
  /** The platform, such as `linux/arm64` or `linux/arm/v7`. Default: this machine's. */
  platform?: string | undefined
  /** How many layers to transfer at the same time, 1 to 16. Default 3. */
  jobs?: number | undefined
  /** Also unpack the layers. Default true. */
  unpack?: boolean | undefined
}

/** What `images.push()` takes. */
export interface PushOptions extends RegistryOptions {
  /** The name to push to. Default: the image's own. */
  to?: string | undefined
  /** How many layers to transfer at the same time, 1 to 16. Default 3. */
  jobs?: number | undefined
}

/** What `images.list()` takes. */
export interface ListOptions extends ImageOptions {
  /** List only images of this name; without a tag, all tags of the repository. */
  name?: string | undefined
}

/** What `images.load()` takes. */
export interface LoadOptions extends UnpackOptions {
  /** The name for an image that has none in the archive. */
  name?: string | undefined
  /** Also unpack the layers. Default true. */
  unpack?: boolean | undefined
}

/** What `images.save()` takes. */
export interface SaveOptions extends ImageOptions {
  /** The format of the archive: that of `docker save`, or an OCI layout. Default `'docker'`. */
  format?: 'docker' | 'oci' | undefined
}

/** What `images.import()` takes. */
export interface ImportOptions extends UnpackOptions {
  /** The name of the image. Default: it has an id only. */
  name?: string | undefined
  /** The comment in its history. */
  message?: string | undefined
  /** Dockerfile instructions to apply to its configuration: `CMD ["sh"]`, `ENV A=b`. */
  changes?: readonly string[] | undefined
  /** The architecture, such as `arm64`. Default: this machine's. */
  arch?: string | undefined
}

/** What `images.remove()` takes. */
export interface RemoveOptions extends ImageOptions {
  /** Remove an image that is given by its id even if it has several names. Default false. */
  force?: boolean | undefined
  /** Also remove what no image needs any more. Default true. */
  prune?: boolean | undefined
}

/** What `images.prune()` takes. */
export interface PruneOptions extends ImageOptions {
  /** Also remove images that have a name, unless a container uses them. Default false. */
  all?: boolean | undefined
}

/** What `images.login()` takes. */
export interface LoginOptions extends RegistryOptions {
  /** The registry. Default `docker.io`. */
  registry?: string | undefined
  username: string
  password: string
}

/** What `images.logout()` takes. */
export interface LogoutOptions extends RegistryOptions {
  /** The registry. Default `docker.io`. */
  registry?: string | undefined
}
