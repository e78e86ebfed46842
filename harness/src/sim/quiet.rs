//! Panics that are looked for, and are not to fill the screen.

use std::any::Any;
use std::cell::Cell;
use std::panic::{set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Panics in this thread are not printed from now on: someone else reports them.
pub(super) fn forever() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    QUIET.set(true);
}

/// Panics in this thread are not printed while `work` runs.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let before = QUIET.get();
    forever();
    let result = work();
    QUIET.set(before);
    result
}

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
