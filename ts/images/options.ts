/** What every call takes. */
export interface ImageOptions {
  /**
   * Ends the call when it is aborted, which then rejects with the signal's reason. The store stays consistent; what came
   * whole is there for the next call.
   */
  signal?: AbortSignal | undefined
}

/** How a registry is reached. */
export interface RegistryOptions extends ImageOptions {
  /** Speak without encryption to registries that aren't on this machine too. Default false. */
  plainHttp?: boolean | undefined
  /** A file of certificates that are trusted besides those of the system. */
  caFile?: string | undefined
  /** The file of credentials. Default: those of docker and podman, `$REGISTRY_AUTH_FILE` first. */
  authFile?: string | undefined
}

/** How layers are unpacked. */
export interface UnpackOptions extends ImageOptions {
  /**
   * How many times its packed size a layer may unpack to, beyond 1 GiB: a bound against archives made to fill the disk.
   * Default 200.
   */
  maxRatio?: number | undefined
}

/** What `images.pull()` takes. */
export interface PullOptions extends RegistryOptions, UnpackOptions {
  /** For which platform, as `linux/arm64` or `linux/arm/v7`. Default: that of this machine. */
  platform?: string | undefined
  /** How many layers at the same time, 1 to 16. Default 3. */
  jobs?: number | undefined
  /** Unpack the layers too. Default true. */
  unpack?: boolean | undefined
}

/** What `images.push()` takes. */
export interface PushOptions extends RegistryOptions {
  /** The name to push to, where it is another. */
  to?: string | undefined
  /** How many layers at the same time, 1 to 16. Default 3. */
  jobs?: number | undefined
}

/** What `images.list()` takes. */
export interface ListOptions extends ImageOptions {
  /** Only images of this name; without a tag all of the repository. */
  name?: string | undefined
}

/** What `images.load()` takes. */
export interface LoadOptions extends UnpackOptions {
  /** The name of an image that has none in the archive. */
  name?: string | undefined
  /** Unpack the layers too. Default true. */
  unpack?: boolean | undefined
}

/** What `images.save()` takes. */
export interface SaveOptions extends ImageOptions {
  /** What the archive is like: docker's, or an OCI layout. Default `'docker'`. */
  format?: 'docker' | 'oci' | undefined
}

/** What `images.import()` takes. */
export interface ImportOptions extends UnpackOptions {
  /** The name of the image. Default: none, only an id. */
  name?: string | undefined
  /** What its history says. */
  message?: string | undefined
  /** Instructions of a Dockerfile that the configuration follows: `CMD ["sh"]`, `ENV A=b`. */
  changes?: readonly string[] | undefined
  /** The architecture, as `arm64`. Default: that of this machine. */
  arch?: string | undefined
}

/** What `images.remove()` takes. */
export interface RemoveOptions extends ImageOptions {
  /** Remove an image that is given by its id and has several names. Default false. */
  force?: boolean | undefined
  /** Remove what no image needs any more. Default true. */
  prune?: boolean | undefined
}

/** What `images.prune()` takes. */
export interface PruneOptions extends ImageOptions {
  /** Remove images with a name too, unless a container uses them. Default false. */
  all?: boolean | undefined
}

/** What `images.login()` takes. */
export interface LoginOptions extends RegistryOptions {
  /** Which registry. Default `docker.io`. */
  registry?: string | undefined
  username: string
  password: string
}

/** What `images.logout()` takes. */
export interface LogoutOptions extends RegistryOptions {
  /** Which registry. Default `docker.io`. */
  registry?: string | undefined
}
