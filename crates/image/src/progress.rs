//! Progress, warnings and errors on standard error: as JSON lines for programs, or as text for people. Standard output is
//! for results.

mod event;
mod live;
mod text;

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use event::{Phase, ProgressEvent};
use live::Screen;
use nsrs_base::error::{self, Error};
use nsrs_base::options::{Front, in_words_of};
use nsrs_base::text::{printable, printable_json};
use text::{closing, retry, short};

pub use text::size;

/// In which form progress is written to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A line for each layer, rewritten in place on a terminal.
    Live,
    /// A line for each layer that is finished.
    Plain,
    /// A line with a JSON object for each event, including errors, whose texts are for this reader.
    Json(Front),
    /// Nothing but warnings and errors.
    Quiet,
}

/// How often the bytes of one layer are reported.
const INTERVAL: Duration = Duration::from_millis(100);

/// Reports events. Cheap to clone, and usable from any thread.
#[derive(Clone, Debug)]
pub struct Progress {
    mode: Mode,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// When each layer was last reported, and in which phase.
    reported: HashMap<String, (Instant, Phase)>,
    screen: Screen,
    /// A thread will draw what the screen left out.
    will_catch_up: bool,
}

impl Progress {
    /// Reports to standard error in this form.
    #[must_use]
    pub fn new(mode: Mode) -> Progress {
        Progress { mode, state: Arc::default() }
    }

    /// The form in which it reports.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Reports an event; the bytes of a layer at most ten times a second. A closed standard error is not a failure, but in
    /// JSON mode it ends the program: the reader is gone.
    pub fn report(&self, event: &ProgressEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let ProgressEvent::Layer { digest, phase, .. } = event {
            let now = Instant::now();
            if let Some((last, before)) = state.reported.get(digest)
                && before == phase
                && now.duration_since(*last) < INTERVAL
            {
                return;
            }
            state.reported.insert(digest.clone(), (now, *phase));
        }
        let line = match self.mode {
            Mode::Json(_) => printable_json(&serde_json::to_string(event).unwrap_or_default()),
            Mode::Live => {
                state.screen.show(event);
                return self.catch_up_later(&mut state);
            }
            Mode::Quiet => match event {
                ProgressEvent::Warning { .. } => plain(event).unwrap_or_default(),
                _ => return,
            },
            Mode::Plain => match plain(event) {
                Some(line) => line,
                None => return,
            },
        };
        let written = writeln!(std::io::stderr(), "{line}");
        if matches!(self.mode, Mode::Json(_))
            && written.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
        {
            crate::output::end_without_reader();
        }
    }

    /// Draws what was left out, if no event follows soon (while the disk is busy, for example).
    fn catch_up_later(&self, state: &mut State) {
        if !state.screen.is_behind() || state.will_catch_up {
            return;
        }
        let shared = self.state.clone();
        let later = move || {
            std::thread::sleep(live::FRAME);
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            state.will_catch_up = false;
            state.screen.catch_up();
        };
        state.will_catch_up = std::thread::Builder::new().name("progress".into()).spawn(later).is_ok();
    }

    /// Reports a warning; where it names options, in the words of the reader.
    pub fn warn(&self, message: impl Into<String>) {
        let front = if let Mode::Json(front) = self.mode { front } else { Front::Shell };
        self.report(&ProgressEvent::Warning { message: in_words_of(front, &message.into()).into_owned() });
    }

    /// Reports the errors that end the program: `{"event":"error",…}` with the fields of the record in JSON mode.
    pub fn fail(&self, errors: &[Error]) {
        let Mode::Json(front) = self.mode else {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).screen.end();
            crate::output::print_error(&error::report(errors));
            return;
        };
        for error in errors {
            let error = &error.clone().in_words_of(front);
            let mut line = serde_json::to_value(error).unwrap_or_default();
            line["event"] = "error".into();
            line["code"] = error.code.name().into();
            line["message"] = error.to_string().into();
            let _ = writeln!(std::io::stderr(), "{}", printable_json(&line.to_string()));
        }
    }
}

/// The line for this event in plain mode, if it has one; safe to print.
fn plain(event: &ProgressEvent) -> Option<String> {
    let line = match event {
        ProgressEvent::Warning { message } => format!("nsrs: {message}"),
        ProgressEvent::Resolving { .. } => return None,
        ProgressEvent::Layer { digest, phase: Phase::Done, total, .. } => {
            format!("{}: done, {}", short(digest), size(*total))
        }
        ProgressEvent::Layer { digest, phase: Phase::Present, .. } => format!("{}: already exists", short(digest)),
        ProgressEvent::Layer { .. } => return None,
        ProgressEvent::Retry { message, wait } => retry(message, *wait),
        ProgressEvent::Done { reference, digest, milliseconds, present } => {
            closing(reference, digest, *milliseconds, *present)
        }
    };
    Some(printable(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_report_what_is_finished() {
        let digest = "sha256:0123456789abcdef".to_owned();
        let layer = |phase| ProgressEvent::Layer { digest: digest.clone(), phase, current: 1, total: 2000 };
        assert_eq!(plain(&layer(Phase::Downloading)), None);
        assert_eq!(plain(&layer(Phase::Done)).as_deref(), Some("0123456789ab: done, 2.0 kB"));
        assert_eq!(plain(&layer(Phase::Present)).as_deref(), Some("0123456789ab: already exists"));
    }
}
