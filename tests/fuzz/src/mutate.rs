//! Good inputs, damaged: the same ones each time, so that what failed once fails again.

/// The `round`-th damaged input for the target of this name.
pub fn damaged(target: &str, seeds: &[Vec<u8>], round: u64) -> Vec<u8> {
    let mut chance = Chance::new(target, round);
    let mut input = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(4) {
        damage(&mut input, seeds, &mut chance);
    }
    input
}

/// Does one thing that transport, disks and attackers do to bytes.
fn damage(input: &mut Vec<u8>, seeds: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.below(input.len() + 1);
    match chance.below(8) {
        0 => input.truncate(at),
        1 => input.insert(at, chance.byte()),
        2 if at < input.len() => input[at] = chance.byte(),
        3 if at < input.len() => input[at] ^= 1 << chance.below(8),
        4 => {
            // A number at its edges: lengths and counts lie so.
            let edge = [0x00, 0x01, 0x7f, 0x80, 0xff][chance.below(5)];
            let end = (at + 1 + chance.below(8)).min(input.len());
            input[at.min(end)..end].fill(edge);
        }
        5 => {
            let end = (at + chance.below(64)).min(input.len());
            input.drain(at..end);
        }
        6 => {
            let end = (at + chance.below(64)).min(input.len());
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        _ => {
            // The front of this one, the back of another.
            let other = &seeds[chance.below(seeds.len())];
            input.truncate(at);
            input.extend_from_slice(&other[chance.below(other.len() + 1)..]);
        }
    }
}

/// Draws numbers, from BLAKE3's output: the same in every version of every crate.
struct Chance(blake3::OutputReader);

impl Chance {
    fn new(target: &str, round: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(target.as_bytes()).update(&round.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.fill(&mut byte);
        byte[0]
    }

    /// Below `end`; 0 where `end` is 0.
    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        let drawn = u64::from_le_bytes(bytes) % u64::try_from(end.max(1)).unwrap_or(1);
        usize::try_from(drawn).unwrap_or(0)
    }
}
