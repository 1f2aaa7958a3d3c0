//! Ctrl-C (SIGINT) and SIGTERM: a command that can be stopped ends at its next callback, with everything
//! closed. A second signal ends the process at once, which is safe too: it leaves what a crash leaves.

use crate::outcome::exit;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static STOPPED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on a signal is noted, and [`go_on`] tells.
pub(crate) fn listen() {
    let stopped = STOPPED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // If no handler can be set, the signal keeps its default effect.
        let code = exit::STOPPED.into();
        let _ = signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(stopped));
        let _ = signal_hook::flag::register(signal, Arc::clone(stopped));
    }
}

pub(crate) fn is_stopped() -> bool {
    STOPPED.get().is_some_and(|stopped| stopped.load(Ordering::Relaxed))
}

/// What a callback answers.
pub(crate) fn go_on() -> ControlFlow<()> {
    if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
