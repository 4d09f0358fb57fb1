/** An image is being looked up in a registry. */
export interface ResolvingEvent {
  event: 'resolving'
  /** Its full name. */
  reference: string
}

/**
 * What is being done with a layer. It is unpacked while it is downloaded; `unpacking` is what is left after that.
 * `present` means that it was there already.
 */
export type LayerPhase = 'waiting' | 'downloading' | 'uploading' | 'verifying' | 'unpacking' | 'present' | 'done'

/** Progress of a layer: each new phase, and up to ten times a second while data is transferred. */
export interface LayerEvent {
  event: 'layer'
  /** The digest of its blob. */
  digest: string
  phase: LayerPhase
  /** Bytes of this phase so far. */
  current: number
  /** Total bytes of this phase; 0 if unknown. */
  total: number
}

/** A warning. The work goes on. */
export interface WarningEvent {
  event: 'warning'
  message: string
}

/** A step failed and will be retried. */
export interface RetryEvent {
  event: 'retry'
  /** Which step, and why it failed. */
  message: string
  /** Milliseconds until the next attempt. */
  wait: number
}

/** An image has been pulled or pushed completely. */
export interface DoneEvent {
  event: 'done'
  /** Its full name. */
  reference: string
  /** The digest that the registry has under the name. */
  digest: string
  /** How long it took, in milliseconds. */
  milliseconds: number
  /** Nothing was transferred: everything was there already. */
  present: boolean
}

/** What happens during work on images. */
export type ImageEvent = ResolvingEvent | LayerEvent | WarningEvent | RetryEvent | DoneEvent
