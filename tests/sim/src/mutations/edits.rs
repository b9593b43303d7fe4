//! In which ways the code is broken: one edit of one place each.

use anyhow::{Result, ensure};

/// One way to break the code.
pub(super) struct Edit {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) file: &'static str,
    /// What stands there, once.
    find: &'static str,
    /// What stands there then: what stood there, or what is wrong where its name was given.
    replace: &'static str,
}

/// Gives the name of what is broken.
pub(super) const VARIABLE: &str = "LIGHTER_SIM_BROKEN";
/// Where the edits ask whether they are meant.
pub(super) const SWITCH_FILE: &str = "relay/storage/src/lib.rs";
/// How they ask: at the end of that file, in the copy.
pub(super) const SWITCH: &str = r#"
/// Whether this is what is broken.
pub fn broken(name: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var("LIGHTER_SIM_BROKEN").ok()).as_deref() == Some(name)
}
"#;

impl Edit {
    /// The text of the file with it.
    pub(super) fn apply(&self, text: &str) -> Result<String> {
        let Self { name, file, find, replace, .. } = self;
        let count = text.matches(find).count();
        ensure!(count == 1, "{name}: what it replaces in {file} stands there {count} times: mend the edit");
        Ok(text.replacen(find, replace, 1))
    }
}

/// All of them.
pub(super) const EDITS: &[Edit] = &[
    Edit {
        name: "skip-directory-sync",
        what: "a new segment's name is not synced",
        file: "relay/storage/src/unit.rs",
        find: "        file.sync_data()?;\n        self.disk.sync_dir()?;\n        Ok(file)",
        replace: "        file.sync_data()?;\n        if !crate::broken(\"skip-directory-sync\") {\n            \
                  self.disk.sync_dir()?;\n        }\n        Ok(file)",
    },
    Edit {
        name: "ack-before-sync",
        what: "a server acknowledges what it has written and not synced",
        file: "relay/storage/src/unit/append.rs",
        find: "        match shelved.file.sync_data() {",
        replace: "        match if crate::broken(\"ack-before-sync\") { Ok(()) } else { shelved.file.sync_data() } {",
    },
    Edit {
        name: "ack-on-one-copy",
        what: "the relay takes one member's acknowledgement for that of all",
        file: "relay/storage/src/array/group.rs",
        find: "if failed.is_none() { Ok(acknowledged) }",
        replace: "let one = crate::broken(\"ack-on-one-copy\") && !acknowledged.took.is_empty();\n        \
                  if failed.is_none() || one { Ok(acknowledged) }",
    },
    Edit {
        name: "close-below-what-is-kept",
        what: "mirroring in the background: a segment is closed at what all members have",
        file: "relay/storage/src/array/lane/go_on.rs",
        find: "length: active.kept, goes_on: true };",
        replace: "length: if crate::broken(\"close-below-what-is-kept\") { active.acked } else { active.kept }, goes_on: true };",
    },
    Edit {
        name: "start-without-who-may-have-more",
        what: "mirroring in the background: a start takes the longest copy that is there",
        file: "relay/storage/src/array/unmirrored.rs",
        find: "            if !is_known {",
        replace: "            if !is_known && !crate::broken(\"start-without-who-may-have-more\") {",
    },
    Edit {
        name: "accept-old-epoch",
        what: "a server takes what a relay of an older epoch sends",
        file: "relay/storage/src/unit.rs",
        find: "if epoch == present { Ok(()) }",
        replace: "if epoch == present || crate::broken(\"accept-old-epoch\") { Ok(()) }",
    },
    Edit {
        name: "keep-the-tail",
        what: "a member that comes back is not cut to where its segment was closed",
        file: "relay/storage/src/array/settle.rs",
        find: "CopyState::Open if info.length <= length => return Ok(()),",
        replace: "CopyState::Open if info.length <= length || crate::broken(\"keep-the-tail\") => return Ok(()),",
    },
    Edit {
        name: "close-nothing",
        what: "the header of a new segment does not say what it closes",
        file: "relay/storage/src/array/state.rs",
        find: "        let is_unfinished = |segment: &SegmentId|",
        replace: "        if crate::broken(\"close-nothing\") {\n            return Vec::new();\n        }\n        \
                  let is_unfinished = |segment: &SegmentId|",
    },
    Edit {
        name: "count-what-is-being-made",
        what: "the log is read from a copy that is being made",
        file: "relay/storage/src/array/replay.rs",
        find: "let is_whole = reached >= length;",
        replace: "let is_whole = reached >= length || crate::broken(\"count-what-is-being-made\");",
    },
    Edit {
        name: "believe-any-clock",
        what: "a server's clock is never in doubt",
        file: "relay/storage/src/unit/expiry.rs",
        find: "if has_jumped || went_back || self.peer_disagrees {",
        replace: "if (has_jumped || went_back || self.peer_disagrees) && !crate::broken(\"believe-any-clock\") {",
    },
    Edit {
        name: "believe-any-start",
        what: "a server that starts weeks ahead believes its clock at once",
        file: "relay/storage/src/unit/expiry.rs",
        find: "let is_far_ahead = wall > self.latest.plus(CLOCK_LEAP);",
        replace: "let is_far_ahead =\n            wall > self.latest.plus(CLOCK_LEAP) && !crate::broken(\"believe-any-start\");",
    },
    Edit {
        name: "scrub-sees-nothing",
        what: "what a scrub finds is not told",
        file: "relay/storage/src/unit/scrub.rs",
        find: "Ok(Verified::Whole { damaged }) => Scrubbed::Whole(damaged),",
        replace: "Ok(Verified::Whole { damaged }) => {\n                \
                  Scrubbed::Whole(if crate::broken(\"scrub-sees-nothing\") { 0 } else { damaged })\n            }",
    },
];
