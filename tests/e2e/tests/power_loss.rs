//! The power is cut at every moment of a storage server's life: what the real server did to its disk under load is
//! recorded, and the folder that each beginning of the record leaves is opened as the server's start does it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lighter_e2e::arrived::assert_delivered_once;
use lighter_e2e::load::{Load, send_until_taken};
use lighter_e2e::power_loss::{Folder, Luck, Moment, Remains, moments};
use lighter_harness::World;
use lighter_harness::strace::{Operation, Strace, Traced};
use lighter_harness::watch::{wait_for, wait_until_healed};
use lighter_harness::world::{Options, StorageOptions};
use lighter_protocol::{PeerId, UnixTime};
use lighter_storage::disk::RealDisk;
use lighter_storage::limits::GROUP_LEN_MAX;
use lighter_storage::record::RecordHeader;
use lighter_storage::segment::RECORDS_AT;
use lighter_storage::segment::header::SegmentHeader;
use lighter_storage::unit::{Phase, Unit};
use lighter_storage::{Epoch, SegmentId};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Longer than any single write of a unit.
const DATA_LEN_MAX: usize = 2 * GROUP_LEN_MAX;
/// Senders at once: few, since every byte is written down.
const SENDERS: u64 = 2;
/// What may be there of names and of contents that were not synced.
const LUCK: [(Luck, Luck); 6] = [
    (Luck::Nothing, Luck::Nothing),
    (Luck::Everything, Luck::Nothing),
    (Luck::Nothing, Luck::Everything),
    (Luck::Everything, Luck::Everything),
    (Luck::Drawn, Luck::Drawn),
    (Luck::Drawn, Luck::Drawn),
];

// SPEC: B12, C2, C10; bad_input_32 — DESIGN §3 rule 1
#[tokio::test]
async fn bad_input_32_power_cut_at_any_moment_of_a_real_servers_life_costs_nothing_acknowledged() -> Result<()>
{
    let seed = std::env::var("LIGHTER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("replay with LIGHTER_SEED={seed}");
    let (records, server, unit) = record().await?;
    let scratch = scratch()?;
    let mut remains = Remains::new(&scratch.path().join("unit"))?;
    let (mut folder, mut promised) = (Folder::new(&unit), Promised::default());
    let (mut chance, began) = (StdRng::seed_from_u64(seed), Instant::now());
    let (mut cuts, mut openings) = (0, 0);
    for traced in &records {
        folder.restart();
        for moment in moments(traced) {
            if let Moment::Begun(one) = moment {
                promised.see(one, &folder)?;
            }
            if !folder.take(moment)? {
                continue;
            }
            cuts += 1;
            for (names, contents) in LUCK {
                folder.cut(&mut remains, names, contents, &mut chance)?;
                let checked = promised.check(remains.path(), server, &folder, &mut chance);
                checked.with_context(|| format!("cut {cuts}, names {names:?}, contents {contents:?}"))?;
                openings += 1;
            }
        }
    }
    let segments = promised.segments.len();
    println!("{segments} segments, {cuts} moments, {openings} openings in {:.0?}", began.elapsed());
    ensure!(segments > 3 && cuts > 200, "hardly anything was recorded");
    Ok(())
}

/// What the server has acknowledged so far, as the record itself shows it.
#[derive(Debug, Default)]
struct Promised {
    /// Segments that have records: so their opening was acknowledged. All below the offset was, too: a later record
    /// says so (`acked_through`), which its writer placed once it had the acknowledgement.
    segments: BTreeMap<SegmentId, u64>,
    /// The writer has opened a segment in this epoch, and so had the server's word for it.
    epochs: BTreeMap<PeerId, Epoch>,
}

impl Promised {
    /// An operation begins: what had to be acknowledged before?
    fn see(&mut self, traced: &Traced, folder: &Folder) -> Result<()> {
        match &traced.operation {
            Operation::Write { fd, offset, bytes } => {
                let Some(segment) = folder.name_of(*fd).and_then(segment_of) else { return Ok(()) };
                if *offset == 0 {
                    return Ok(());
                }
                let mut rest = bytes.as_slice();
                while let Ok(record) = RecordHeader::decode(rest) {
                    ensure!(record.segment == segment, "a record of another segment");
                    let acked = self.segments.entry(segment).or_insert(RECORDS_AT);
                    *acked = record.acked_through.max(*acked);
                    rest = rest.get(record.record_len()..).unwrap_or_default();
                    let name = lighter_storage::segment::file_name(segment);
                    let header = folder.content(&name).context("records before the header")?;
                    let header = SegmentHeader::decode(header.get(..4096).context("no header")?)?;
                    let epoch = self.epochs.entry(header.writer).or_default();
                    *epoch = header.epoch.max(*epoch);
                }
            }
            // It goes by its writer's word.
            Operation::Remove { path } | Operation::Rename { from: path, .. } => {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if let Some(segment) = segment_of(name) {
                    self.segments.remove(&segment);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens the unit that a power cut left at `place`: everything promised is there, and right.
    fn check(&self, place: &Path, server: PeerId, folder: &Folder, chance: &mut StdRng) -> Result<()> {
        let disk = RealDisk::open(place)?;
        let (unit, report) =
            Unit::open(disk, server, UnixTime::now(), chance).context("the unit does not open")?;
        ensure!(report.damaged == 0 && report.set_aside == 0, "{report:?}");
        for (writer, epoch) in &self.epochs {
            ensure!(
                unit.epoch(writer) >= *epoch,
                "{epoch:?} was promised, {:?} is there",
                unit.epoch(writer)
            );
        }
        for (segment, acked) in &self.segments {
            let found = unit.shelf().get(*segment).with_context(|| format!("{segment} is gone"))?;
            let readable = found.readable();
            ensure!(readable >= *acked, "{segment}: {acked} were acknowledged, {readable} are there");
            // A sealed one is believed without being read: all of it must be there.
            let upto = match found.phase() {
                Phase::Sealed(summary) => summary.length.max(*acked),
                _ => *acked,
            };
            let written =
                folder.content(&lighter_storage::segment::file_name(*segment)).context("no file")?;
            let mut at = RECORDS_AT;
            while at < upto {
                let len = (upto - at).min(GROUP_LEN_MAX as u64);
                let bytes = unit.shelf().read_range(*segment, at, u32::try_from(len)?)?;
                let (from, to) = (usize::try_from(at)?, usize::try_from(at + len)?);
                ensure!(bytes == written[from..to], "{segment}: other bytes between {at} and {}", at + len);
                at += len;
            }
        }
        Ok(())
    }
}

fn segment_of(name: &str) -> Option<SegmentId> {
    lighter_storage::segment::segment_of(name)
}

/// Who is killed while the server is recorded.
enum Victim {
    Relay,
    OtherServer,
}

/// Records a storage server's life: mail comes in, the relay and the other server are killed, the array key is changed,
/// and the server itself is killed and goes on. Gives the records, the server's PeerId, and its unit's folder.
async fn record() -> Result<(Vec<Vec<Traced>>, PeerId, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let strace = |number: u32| Strace {
        record: folder.path().join(format!("record-{number}")),
        inject: Vec::new(),
        data_len_max: DATA_LEN_MAX,
    };
    let recorded = StorageOptions { through: strace(1).through(), ..StorageOptions::default() };
    let mut world = World::start_with(&Options { storage: vec![recorded], ..Options::default() }).await?;
    let mut alice = world.agent("alice").await?;
    let (smtp, mut sent) = (world.smtp()?, Vec::new());
    for round in 0..2 {
        for victim in [Victim::Relay, Victim::OtherServer] {
            let load = Load::start(smtp, &alice.mailbox, SENDERS, sent.len() as u64);
            load.wait_for_replies(SENDERS + round).await?;
            let member = match victim {
                Victim::Relay => &mut world.relay,
                Victim::OtherServer => &mut world.storage[1],
            };
            member.kill().await?;
            member.start().await?;
            sent.extend(load.stop().await);
            sent.push(send_until_taken(smtp, &alice.mailbox, sent.len() as u64).await?);
        }
    }
    world.relay_command(&["keys", "rotate"]).await?;
    wait_for("the array key to be changed", async || {
        let status = world.relay_command(&["keys", "status"]).await?;
        Ok((status["array_key"] == "settled").then_some(()))
    })
    .await?;
    let unit = world.storage[0].data().join("server").join("unit-0");
    let server = world.storage[0].addresses()?;
    let server =
        server.pointer("/storage/0/peer").and_then(serde_json::Value::as_str).context("no peer")?.parse()?;
    let load = Load::start(smtp, &alice.mailbox, SENDERS, sent.len() as u64);
    load.wait_for_replies(SENDERS).await?;
    world.storage[0].kill().await?;
    world.storage[0].through = strace(2).through();
    world.storage[0].start().await?;
    sent.extend(load.stop().await);
    sent.push(send_until_taken(smtp, &alice.mailbox, sent.len() as u64).await?);
    assert_delivered_once(&world, &mut alice, &sent).await?;
    wait_until_healed(&world).await?;
    world.storage[0].stop().await?;
    Ok((vec![strace(1).read().await?, strace(2).read().await?], server, unit))
}

/// A folder in memory where the machine has one: thousands of openings sync a lot.
fn scratch() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    Ok(made.or_else(|_| tempfile::tempdir())?)
}
