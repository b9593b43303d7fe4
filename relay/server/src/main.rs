//! `lighter-relay`.
fn main() {}
