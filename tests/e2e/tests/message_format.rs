//! `lighter-relay detach` and `lighter-agent restore`, the real programs, from a shell (DESIGN §12): every message of
//! the folder that `LIGHTER_CORPUS` names comes back byte for byte.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lighter_e2e::{contains, head};
use lighter_harness::programs::{program, run, run_ok};
use tokio::task::JoinSet;

/// Ways to detach: the defaults, and whatever can be proved.
const WAYS: [&[&str]; 2] = [&[], &["--min-size", "1", "--everything"]];
/// Messages at a time: as many as a small machine has cores.
const AT_A_TIME: usize = 4;

// SPEC: D1
#[tokio::test]
async fn every_message_of_the_corpus_comes_back_through_the_programs() -> Result<()> {
    let Some(folder) = std::env::var_os("LIGHTER_CORPUS") else {
        eprintln!("SKIPPED: LIGHTER_CORPUS names no folder with test mail");
        return Ok(());
    };
    let messages = files(Path::new(&folder))?;
    ensure!(!messages.is_empty(), "no messages in {}", folder.display());
    let mut at_work: JoinSet<Result<usize>> = JoinSet::new();
    let (mut count, mut stubs) = (0, 0);
    for path in messages {
        while at_work.len() >= AT_A_TIME {
            stubs += at_work.join_next().await.context("nothing at work")???;
        }
        count += 1;
        at_work.spawn(async move { comes_back(&path).await.with_context(|| path.display().to_string()) });
    }
    while let Some(done) = at_work.join_next().await {
        stubs += done??;
    }
    println!("{count} messages, {stubs} stubs of them");
    ensure!(stubs > 0, "nothing was detached");
    Ok(())
}

// SPEC: D1
#[tokio::test]
async fn a_stub_that_a_server_rewrote_comes_back_by_its_manifest() -> Result<()> {
    let message =
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
        Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n--b--\r\n";
    let folder = tempfile::tempdir()?;
    let stub = detach(folder.path(), WAYS[1], message).await?;
    let text = String::from_utf8(stub)?.replace("Subject: x", "Subject: [list] x");
    let changed = format!("Received: by mx\r\n{text}");
    let restored = restore(folder.path(), changed.as_bytes()).await?;
    assert_eq!(restored, [&b"Received: by mx\r\n"[..], message].concat());
    // Without the manifest it cannot be proved: nothing is given out.
    for path in files(folder.path())? {
        if path.extension().is_some_and(|extension| extension == "manifest") {
            std::fs::remove_file(path)?;
        }
    }
    let output =
        run(&program("lighter-agent")?, restore_arguments(folder.path()), changed.as_bytes()).await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    Ok(())
}

// Rule 4: a blob that is not what its name says restores nothing.
#[tokio::test]
async fn bad_input_35_a_damaged_blob_gives_no_message() -> Result<()> {
    let message = b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n";
    for damage in [&b"ABD"[..], b"AB", b"ABCD", b""] {
        let folder = tempfile::tempdir()?;
        let stub = detach(folder.path(), WAYS[1], message).await?;
        let blob = folder.path().join(blake3::hash(b"ABC").to_string());
        ensure!(blob.is_file(), "no blob: {}", head(&stub));
        std::fs::write(blob, damage)?;
        let output = run(&program("lighter-agent")?, restore_arguments(folder.path()), &stub).await?;
        assert_eq!(output.status.code(), Some(1), "{damage:?}");
        assert!(output.stdout.is_empty(), "{damage:?}");
    }
    Ok(())
}

/// Detaches and restores one message, in every way; says how often it became a stub.
async fn comes_back(path: &Path) -> Result<usize> {
    let message = tokio::fs::read(path).await?;
    let mut stubs = 0;
    for way in WAYS {
        let folder = tempfile::tempdir()?;
        let stub = detach(folder.path(), way, &message).await?;
        if files(folder.path())?.is_empty() {
            ensure!(stub == message, "{way:?}: nothing was taken out, and it is not the same");
            continue;
        }
        ensure!(contains(&stub, b"Lighter-Message:"), "{way:?}: not a stub:\n{}", head(&stub));
        stubs += 1;
        let restored = restore(folder.path(), &stub).await?;
        ensure!(restored == message, "{way:?}: restored to something else:\n{}", head(&restored));
    }
    Ok(stubs)
}

async fn detach(folder: &Path, way: &[&str], message: &[u8]) -> Result<Vec<u8>> {
    let mut arguments = vec!["detach".into(), "--blobs".into(), folder.as_os_str().to_owned()];
    arguments.extend(way.iter().map(|argument| argument.into()));
    run_ok(&program("lighter-relay")?, arguments, message).await
}

async fn restore(folder: &Path, stub: &[u8]) -> Result<Vec<u8>> {
    run_ok(&program("lighter-agent")?, restore_arguments(folder), stub).await
}

fn restore_arguments(folder: &Path) -> [std::ffi::OsString; 3] {
    ["restore".into(), "--blobs".into(), folder.as_os_str().to_owned()]
}

/// Every file below a folder, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        // Rules for git, not a message.
        if path.ends_with(".gitattributes") {
            continue;
        }
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}
