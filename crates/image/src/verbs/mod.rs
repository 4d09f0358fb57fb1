//! What can be done with images, one verb a file.

mod remote;

use nsrs_core::error::{Code, Error, Result};

use crate::args::Args;
use crate::progress::Progress;

/// What every verb gets.
pub struct Call {
    /// Its arguments.
    pub args: Args,
    /// Where it tells what happens.
    pub progress: Progress,
    /// The result is written as JSON.
    pub json: bool,
}

/// Carries out a verb.
///
/// # Errors
/// Those of the verb; there is no such verb.
pub fn run(verb: &str, call: Call) -> Result<()> {
    match verb {
        "pull" => return remote::pull(call),
        "push" => return remote::push(call),
        "login" => return remote::login(call),
        "logout" => return remote::logout(call),
        _ => {}
    }
    Err(Error::new(Code::InvalidArgument, "start nsrs-image", "there is no such verb").on(verb))
}
