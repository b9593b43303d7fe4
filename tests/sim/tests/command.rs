//! The command as it is used.
#![expect(clippy::unwrap_used, reason = "a test: what does not run fails it")]

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lighter-sim")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_same_seed_is_the_same_run_to_the_last_step() {
    let mut traces = Vec::new();
    for world in ["storage", "queue"] {
        for seed in 0..8 {
            let replay = ["--world", world, "--seed", &seed.to_string(), "--trace"];
            let (first, again) = (sim(&replay), sim(&replay));
            assert!(first.status.success(), "{}", stdout(&first));
            assert!(first.stdout == again.stdout, "{replay:?}");
            let lines = stdout(&first);
            let mut end = lines.lines().rev();
            assert_eq!(end.next(), Some("1 seeds, 0 failed"));
            traces.push(end.next().unwrap().to_owned());
        }
    }
    assert!(traces.iter().all(|trace| trace.starts_with("trace ")), "{traces:?}");
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 16, "another seed is another run");
}

#[test]
fn the_last_line_counts_the_seeds_and_json_says_the_same() {
    let told = sim(&["--seeds", "6", "--from", "100", "--jobs", "2"]);
    assert_eq!((told.status.code(), stdout(&told).as_str()), (Some(0), "6 seeds, 0 failed\n"));
    let told = sim(&["--seeds", "3", "--world", "queue", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(
        (&told["seeds"], &told["failed"], &told["interrupted"]),
        (&3.into(), &0.into(), &false.into())
    );
    assert_eq!(sim(&["--seed", "1", "--seeds", "2"]).status.code(), Some(2), "wrong use");
}
