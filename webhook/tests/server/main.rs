//! The admission server over real TLS: what it answers, what it survives, how it stops.

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

mod answers;
mod bad_input;
mod certificates;
mod client;
mod connections;
#[path = "../../../certs/tests/certs/fake.rs"]
#[expect(dead_code, reason = "the tests of the certificates use all of it")]
mod fake;
mod hostile;
mod memory;
mod process;
mod rotation;
mod stopping;
mod under_test;
