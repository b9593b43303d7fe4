//! What every decoder must withstand: bytes of any kind, without a panic, and within what its documentation says.
//!
//! A *target* is a function that takes bytes, gives them to a decoder and checks what may be said of the result
//! whatever the bytes were ("what decodes encodes again", "two ways of cutting it give the same"). It panics where
//! that does not hold. Each has *seeds*: good inputs, from which the bad ones are made.
//!
//! Two things run them. The test of this crate ([`mutate`]) runs each on some thousand seeds that it damages, in the
//! same way each time: a stable toolchain and some seconds are enough, so CI does it. libFuzzer (`libfuzzer/`, see
//! `README.md`) runs one for as long as one likes, guided by coverage.

pub mod address_books;
pub mod kept;
pub mod mail;
pub mod message;
pub mod mutate;
pub mod objects;
pub mod programs;
pub mod protocol;
pub mod storage;
pub mod transport;

/// A decoder under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// As in `cargo fuzz run NAME`.
    pub name: &'static str,
    /// Takes any bytes; panics where the decoder does not keep its word.
    pub run: fn(&[u8]),
    /// Inputs that decode.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target, by crate. `tests::every_target_has_its_libfuzzer_binary` keeps `libfuzzer/` in step.
pub const TARGETS: &[&[Target]] = &[
    address_books::TARGETS,
    kept::TARGETS,
    mail::TARGETS,
    message::TARGETS,
    objects::TARGETS,
    programs::TARGETS,
    protocol::TARGETS,
    storage::TARGETS,
    transport::TARGETS,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Damaged inputs for each target.
    const ROUNDS: u64 = 4_000;

    #[test]
    fn every_decoder_withstands_damaged_inputs() {
        for target in TARGETS.iter().copied().flatten() {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} has no seeds", target.name);
            for seed in &seeds {
                (target.run)(seed);
            }
            for round in 0..ROUNDS {
                (target.run)(&mutate::damaged(target.name, &seeds, round));
            }
        }
    }

    #[test]
    fn every_target_has_its_libfuzzer_binary() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for target in TARGETS.iter().copied().flatten() {
            assert!(
                manifest.contains(&format!("name = \"{}\"", target.name)),
                "{} is not in Cargo.toml",
                target.name
            );
            let source = std::fs::read_to_string(folder.join(format!("targets/{}.rs", target.name))).unwrap();
            assert!(
                source.contains(&format!("::{}(data)", target.name)),
                "{} calls another function",
                target.name
            );
        }
    }
}
