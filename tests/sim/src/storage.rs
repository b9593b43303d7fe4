//! The world `storage`: an array over simulated servers, and what befalls it. Each seed picks its story, and draws all
//! of it.

mod background;
mod changing;
mod days;
#[cfg(test)]
mod faults;
mod going_on;
mod healing;
mod model;
mod partitions;
mod rot;
mod whatever;
mod world;

/// Tells the story of a seed.
pub(crate) async fn run(seed: u64) {
    match seed % 8 {
        0 => whatever::run(seed).await,
        1 => going_on::run(seed).await,
        2 => healing::run(seed).await,
        3 => changing::run(seed).await,
        4 => partitions::run(seed).await,
        5 => rot::run(seed).await,
        6 => background::run(seed).await,
        _ => days::run(seed).await,
    }
}

/// A few seeds of one story, so that a change that breaks it is seen where it is made; `cargo sim` runs the many.
#[cfg(test)]
fn few<F: Future<Output = ()>>(story: impl Fn(u64) -> F) {
    lighter_storage::sim::seeds(8, |seed| lighter_storage::sim::run(story(seed)));
}
