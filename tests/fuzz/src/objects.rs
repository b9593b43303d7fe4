//! `lighter-storage`: what stays of a segment whose records were moved to an object store.

use lighter_protocol::UnixTime;
use lighter_storage::ids::ObjectId;
use lighter_storage::objects::ObjectName;
use lighter_storage::segment::RECORDS_AT;
use lighter_storage::segment::footer::{SUMMARY_LEN, Summary};
use lighter_storage::segment::header::SegmentHeader;
use lighter_storage::segment::stub::{ObjectPlace, Stub, object_len};
use lighter_storage::{SegmentId, UnitId};

use crate::Target;
use crate::storage::{footer_seeds, header_seeds};

/// This format's target.
pub const TARGETS: &[Target] = &[Target { name: "segment_stub", run: segment_stub, seeds: stub_seeds }];

const SEGMENT: SegmentId = SegmentId([7; 16]);

/// A stub, as a start finds it.
pub fn segment_stub(data: &[u8]) {
    let Ok(stub) = Stub::decode(data, SEGMENT) else { return };
    assert!(stub.encode() == data, "one stub, two encodings");
    assert!(stub.header.segment == SEGMENT && stub.summary.segment == SEGMENT);
    assert!(stub.place.name.segment == SEGMENT);
    assert!(
        stub.summary.length >= RECORDS_AT && object_len(&stub.summary) == stub.summary.length - RECORDS_AT
    );
    assert!(stub.summary.decode_index(&stub.index).is_ok(), "an index that cannot be read");
    let key = stub.place.name.key(stub.place.unit);
    assert!(
        ObjectName::of_key(stub.place.unit, &key) == Some(stub.place.name),
        "a key that names another object"
    );
}

fn stub_seeds() -> Vec<Vec<u8>> {
    let header = SegmentHeader::decode(&header_seeds()[0]).expect("a seed");
    let header = SegmentHeader { segment: SEGMENT, ..header };
    let footers = footer_seeds().into_iter().zip([0, 4096, 4096]);
    let stubs = footers.map(|(footer, records_len)| {
        let (index, summary) = footer.split_at(footer.len() - SUMMARY_LEN);
        let file_len = RECORDS_AT + records_len + footer.len() as u64;
        // The seeds of footers are of a segment of their own.
        let mut segment = [0; 16];
        segment.copy_from_slice(&summary[8..24]);
        let summary = Summary::decode(summary, SegmentId(segment), file_len).expect("a seed");
        let name = ObjectName { segment: SEGMENT, object: ObjectId([4; 16]) };
        let place = ObjectPlace { unit: UnitId([1; 16]), name, moved: UnixTime(1_795_260_000) };
        let (summary, index) = (Summary { segment: SEGMENT, ..summary }, index.to_vec());
        Stub { header: header.clone(), summary, index, place }.encode()
    });
    stubs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_stubs() {
        for seed in stub_seeds() {
            Stub::decode(&seed, SEGMENT).unwrap();
        }
    }
}
