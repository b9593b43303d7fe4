//! Days pass, and clocks jump: what has had its day is gone everywhere, also where the relay was down meanwhile; nothing
//! goes before its day, and nothing by a clock that is in doubt.

use std::time::Duration;

use lighter_protocol::{Day, PeerId, UnixTime};
use lighter_storage::Class;
use lighter_storage::disk::Disk;
use lighter_storage::limits::{CLOCK_PROBATION, EXPIRY_INTERVAL};
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::world::World;

/// Where the deletion day stands in a header block.
const DELETION_DAY_AT: usize = 32;
const HOUR: i64 = 3600;

pub(super) async fn run(seed: u64) {
    let servers = if (seed / 7).is_multiple_of(2) { 2 } else { 3 };
    let mut world = World::new(seed, servers).await;
    for _ in 0..world.chance.random_range(2..7) {
        world.one_day().await;
        world.let_days_pass().await;
        world.open().await.expect("all servers are there");
        world.check().await;
        // By now each server has looked at what has had its day, also one that was off for long.
        sleep(CLOCK_PROBATION + EXPIRY_INTERVAL + Duration::from_secs(1)).await;
        world.check().await;
        world.all_of_the_past_is_gone();
    }
    world.finish().await;
}

impl World {
    /// Some work, and perhaps clocks that jump meanwhile.
    async fn one_day(&mut self) {
        for _ in 0..self.chance.random_range(1..4) {
            let array = self.array();
            let mut tasks = JoinSet::new();
            for _ in 0..self.chance.random_range(1..4) {
                let class = [Class::Days7, Class::Days7, Class::Days30][self.chance.random_range(0..3)];
                let len = self.chance.random_range(1..30_000);
                self.begin(&mut tasks, &array, class, len);
            }
            self.take_down(tasks).await;
            if self.chance.random_range(0..3) == 0 {
                self.jump().await;
            }
            sleep(Duration::from_secs(self.chance.random_range(0..20_000))).await;
            self.look(false).await;
        }
    }

    /// Somebody's clock jumps, and after a while it is right again.
    async fn jump(&mut self) {
        let mut parties: Vec<PeerId> = (0..self.count()).map(|index| self.servers.peer(index)).collect();
        parties.push(self.servers.writer());
        let party = parties[self.chance.random_range(0..parties.len())];
        let far = self.chance.random_range(2 * HOUR..60 * 24 * HOUR);
        let offset = if self.chance.random() { far } else { -far };
        tracing::info!(%party, offset, "a clock jumps");
        self.servers.clocks().set(party, offset);
        self.model.clocks_differ = true;
        self.store(2).await;
        sleep(Duration::from_secs(self.chance.random_range(0..3_000))).await;
        self.look(false).await;
        tracing::info!("all clocks are right");
        self.servers.clocks().heal();
        if party == self.servers.writer() {
            // It may have taken for expired what was not; its next start knows better.
            self.crash_relay().await;
            self.open().await.expect("all servers are there");
        }
        self.model.clocks_differ = false;
        self.check().await;
    }

    /// Everything is off for some days; perhaps a server's clock is weeks ahead at its start, until somebody sets it right.
    async fn let_days_pass(&mut self) {
        self.crash_relay().await;
        for index in 0..self.count() {
            let power = self.chance.random();
            self.stop(index, power).await;
        }
        let days = self.chance.random_range(0..12);
        tracing::info!(days, "everything is off");
        self.servers.clocks().skip(Duration::from_secs(days * 86_400));
        let is_wrong = self.chance.random_range(0..3) == 0;
        if is_wrong {
            let server = self.servers.peer(self.chance.random_range(0..self.count()));
            let ahead = self.chance.random_range(8 * 24 * HOUR..60 * 24 * HOUR);
            tracing::info!(%server, ahead, "a clock is wrong at its start");
            self.servers.clocks().set(server, ahead);
        }
        for index in 0..self.count() {
            assert!(self.servers.start(index), "its disk is well");
        }
        if is_wrong {
            sleep(Duration::from_secs(self.chance.random_range(0..3_000))).await;
            tracing::info!("all clocks are right");
            self.servers.clocks().heal();
        }
    }

    fn all_of_the_past_is_gone(&self) {
        let now: UnixTime = self.servers.clocks().now();
        for index in 0..self.count() {
            let disk = self.disk(index);
            for name in disk.list().expect("a disk that is well") {
                if !name.ends_with(".seg") && !name.ends_with(".aside") {
                    continue;
                }
                let day = disk.contents(&name)[DELETION_DAY_AT..][..4].try_into().map(u32::from_le_bytes);
                let day = Day(day.expect("four bytes"));
                assert!(day.end() > now, "{name} is still on {index}, and was to go on {day:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    // SPEC: C11
    #[test]
    fn bad_input_37_what_has_had_its_day_is_gone_and_nothing_else_whatever_clocks_do() {
        crate::storage::few(super::run);
    }
}
