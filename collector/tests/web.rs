//! What the web promises, tried through the router as a browser or a program would, without
//! sockets. One file per promise.

#![expect(clippy::panic, reason = "a test that cannot go on says why")]

#[path = "web/specimen.rs"]
mod specimen;

#[path = "web/browser.rs"]
mod browser;

#[path = "web/pages_tell_the_state.rs"]
mod pages_tell_the_state;

#[path = "web/strangers_are_refused.rs"]
mod strangers_are_refused;

#[path = "web/people_log_in_and_out.rs"]
mod people_log_in_and_out;

#[path = "web/programs_get_what_is_described.rs"]
mod programs_get_what_is_described;

#[path = "web/decisions_are_made_by_those_who_may.rs"]
mod decisions_are_made_by_those_who_may;

#[path = "web/pages_stay_up_to_date.rs"]
mod pages_stay_up_to_date;
