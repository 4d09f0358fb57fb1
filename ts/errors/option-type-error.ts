/** An argument or option of the wrong type. The message quotes its name and value. */
export class OptionTypeError extends TypeError {
  readonly code = 'ERR_NSRS_INVALID_ARG_TYPE'
}
OptionTypeError.prototype.name = 'TypeError'
