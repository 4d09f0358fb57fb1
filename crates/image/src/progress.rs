//! What happens, told while it happens: as a program reads it (JSON lines) or as a person does.
//!
//! All of it goes to the standard error: the standard output is for results.

mod live;

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nsrs_base::error::{self, Error};
use serde::Serialize;

use live::Screen;

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A line a layer, rewritten in place (a terminal).
    Live,
    /// A line for each thing that is finished.
    Plain,
    /// One JSON object a line, errors included.
    Json,
    /// Warnings and errors only.
    Quiet,
}

/// What a layer (or any blob that is worth a line) is going through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// In the queue, or another process fetches the same blob.
    Waiting,
    /// Bytes come in; they are unpacked at the same time.
    Downloading,
    /// Bytes go out.
    Uploading,
    /// All bytes are there: digest and size are held against the manifest, and the disk is waited for.
    Verifying,
    /// The rest is being unpacked.
    Unpacking,
    /// Nothing was to be done: it was there.
    Present,
    /// Finished.
    Done,
}

impl Phase {
    /// Is there nothing more to come?
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Phase::Present | Phase::Done)
    }
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// An image is looked up in a registry.
    Resolving {
        /// Its full name.
        reference: String,
    },
    /// A layer got further.
    Layer {
        /// The digest of its blob.
        digest: String,
        /// What it is going through.
        phase: Phase,
        /// Bytes of this phase so far.
        current: u64,
        /// How many there will be, 0 if unknown.
        total: u64,
    },
    /// Something the user should know and that stops nothing.
    Warning {
        /// What, in a sentence.
        message: String,
    },
    /// Something is done again after a failure.
    Retry {
        /// What and why.
        message: String,
        /// After how many milliseconds.
        wait: u64,
    },
    /// All is done.
    Done {
        /// The name of the image.
        reference: String,
        /// The digest of its manifest.
        digest: String,
        /// How long it took.
        milliseconds: u64,
        /// Nothing was fetched: all of it was there.
        present: bool,
    },
}

/// How often the bytes of one layer are told.
const OFTEN: Duration = Duration::from_millis(100);

/// Where events go; cheap to clone, may be used by any thread.
#[derive(Clone, Debug)]
pub struct Progress {
    mode: Mode,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// When each layer was last told, and in which phase.
    told: HashMap<String, (Instant, Phase)>,
    screen: Screen,
    /// Somebody will draw what the screen left out.
    is_awaited: bool,
}

impl Progress {
    /// Tells events in this way.
    #[must_use]
    pub fn new(mode: Mode) -> Progress {
        Progress { mode, state: Arc::default() }
    }

    /// How it tells.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Tells one event. That nobody listens is no failure, but the end where a program was told: it has gone. Bytes of a layer are told ten times a second at most.
    pub fn tell(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::Layer { digest, phase, .. } = event {
            let now = Instant::now();
            if let Some((last, before)) = state.told.get(digest)
                && before == phase
                && now.duration_since(*last) < OFTEN
            {
                return;
            }
            state.told.insert(digest.clone(), (now, *phase));
        }
        let line = match self.mode {
            Mode::Json => serde_json::to_string(event).unwrap_or_default(),
            Mode::Live => {
                state.screen.show(event);
                return self.catch_up_later(&mut state);
            }
            Mode::Quiet => match event {
                Event::Warning { message } => format!("nsrs: {message}"),
                _ => return,
            },
            Mode::Plain => match plain(event) {
                Some(line) => line,
                None => return,
            },
        };
        let told = writeln!(std::io::stderr(), "{line}");
        if self.mode == Mode::Json && told.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            crate::output::end_without_reader();
        }
    }

    /// Nothing more may be told for long, as while the disk is waited for: what was left out is drawn all the same.
    fn catch_up_later(&self, state: &mut State) {
        if !state.screen.is_behind() || state.is_awaited {
            return;
        }
        let shared = self.state.clone();
        let later = move || {
            std::thread::sleep(live::FRAME);
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_awaited = false;
            state.screen.catch_up();
        };
        state.is_awaited = std::thread::Builder::new().name("progress".into()).spawn(later).is_ok();
    }

    /// Tells a warning.
    pub fn warn(&self, message: impl Into<String>) {
        self.tell(&Event::Warning { message: message.into() });
    }

    /// Tells the errors that end the program: `{"event":"error",…}` with the fields of the record in JSON mode.
    pub fn fail(&self, errors: &[Error]) {
        if self.mode != Mode::Json {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).screen.end();
            crate::output::tell(&error::report(errors));
            return;
        }
        for error in errors {
            let mut line = serde_json::to_value(error).unwrap_or_default();
            line["event"] = "error".into();
            line["code"] = error.code.name().into();
            line["message"] = error.to_string().into();
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

/// The line for this event where lines are not rewritten, if it is worth one.
fn plain(event: &Event) -> Option<String> {
    Some(match event {
        Event::Warning { message } => format!("nsrs: {message}"),
        Event::Resolving { .. } => return None,
        Event::Layer { digest, phase: Phase::Done, total, .. } => format!("{}: done, {}", short(digest), size(*total)),
        Event::Layer { digest, phase: Phase::Present, .. } => format!("{}: already there", short(digest)),
        Event::Layer { .. } => return None,
        Event::Retry { message, wait } => format!("{message}; again in {:.1} s", *wait as f64 / 1000.0),
        Event::Done { reference, digest, milliseconds, present } => closing(reference, digest, *milliseconds, *present),
    })
}

/// The closing line.
fn closing(reference: &str, digest: &str, milliseconds: u64, present: bool) -> String {
    let time = match milliseconds {
        ..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", milliseconds as f64 / 1000.0),
    };
    format!("{reference}: {digest} {}in {time}", if present { "is here already; looked up " } else { "" })
}

/// The first twelve digits of a digest.
fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

/// Bytes for people: `312 B`, `1.2 kB`, `45.1 MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (45_123_456, "45.1 MB"), (999_950, "1.0 MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn plain_lines_tell_what_is_finished() {
        let digest = "sha256:0123456789abcdef".to_owned();
        let layer = |phase| Event::Layer { digest: digest.clone(), phase, current: 1, total: 2000 };
        assert_eq!(plain(&layer(Phase::Downloading)), None);
        assert_eq!(plain(&layer(Phase::Done)).as_deref(), Some("0123456789ab: done, 2.0 kB"));
        assert_eq!(plain(&layer(Phase::Present)).as_deref(), Some("0123456789ab: already there"));
        assert_eq!(closing("box", "sha256:a", 2345, false), "box: sha256:a in 2.3 s");
        assert_eq!(closing("box", "sha256:a", 14, true), "box: sha256:a is here already; looked up in 14 ms");
    }
}
