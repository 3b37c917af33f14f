//! Ctrl-C and SIGTERM end the demo at its next step, so that it removes what it made.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// From here on the signals are only noted.
pub(crate) fn install() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler: extern "C" fn(libc::c_int) = note;
        // SAFETY: the handler only stores to an atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    // A step that the same Ctrl-C broke fails in its own words, which nobody needs to read.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !happened() {
            hook(panic);
        }
    }));
}

/// Whether a signal came.
pub(crate) fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// Fails if a signal came.
pub(crate) fn check() -> anyhow::Result<()> {
    ensure!(!happened(), "interrupted");
    Ok(())
}

extern "C" fn note(_signal: libc::c_int) {
    HAPPENED.store(true, Ordering::Relaxed);
}
