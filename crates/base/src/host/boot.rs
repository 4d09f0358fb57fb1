//! Which boot of the host this is.

use std::sync::LazyLock;

/// The identity of this boot, a UUID as text (random(4)); empty where /proc/sys is hidden. Read once.
#[must_use]
pub fn boot_id() -> &'static str {
    static BOOT: LazyLock<String> =
        LazyLock::new(|| super::read_trimmed("/proc/sys/kernel/random/boot_id").unwrap_or_default());
    &BOOT
}
