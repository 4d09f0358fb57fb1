/** An image is looked up in a registry. */
export interface ResolvingEvent {
  event: 'resolving'
  /** Its full name. */
  reference: string
}

/**
 * What a layer is going through: in the queue; bytes come in, unpacked at the same time; bytes go out; all are there and
 * are held against their digest; the rest is unpacked; it was there already; it is finished.
 */
export type LayerPhase = 'waiting' | 'downloading' | 'uploading' | 'verifying' | 'unpacking' | 'present' | 'done'

/** A layer got further. While bytes move it is told ten times a second at most. */
export interface LayerEvent {
  event: 'layer'
  /** The digest of its blob. */
  digest: string
  phase: LayerPhase
  /** Bytes of this phase so far. */
  current: number
  /** How many there will be; 0 where that is unknown. */
  total: number
}

/** Something that one should know and that stops nothing. */
export interface WarningEvent {
  event: 'warning'
  message: string
}

/** Something is done again after a failure. */
export interface RetryEvent {
  event: 'retry'
  /** What, and why. */
  message: string
  /** After how many milliseconds. */
  wait: number
}

/** An image has come, or gone, as a whole. */
export interface DoneEvent {
  event: 'done'
  /** Its full name. */
  reference: string
  /** The digest that the registry has under the name. */
  digest: string
  /** How long it took. */
  milliseconds: number
  /** Nothing was fetched: all of it was there. */
  present: boolean
}

/** What happens while images are handled. */
export type ImageEvent = ResolvingEvent | LayerEvent | WarningEvent | RetryEvent | DoneEvent
