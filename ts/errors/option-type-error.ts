/** A wrong type in a call; quotes the option and the value. */
export class OptionTypeError extends TypeError {
  readonly code = 'ERR_NSRS_INVALID_ARG_TYPE'
}
OptionTypeError.prototype.name = 'TypeError'
