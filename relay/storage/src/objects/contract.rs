//! What every [`Objects`] does, the simulated store and a real S3 server alike.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lighter_harness::peers::Garage;
use rand::{RngExt, SeedableRng};

use super::s3::{S3Config, S3Credentials, S3Objects};
use super::sim::SimObjects;
use super::{Depot, DepotRules, ObjectError, Objects, ReadFault};
use crate::ids::{ObjectId, SegmentId, UnitId};
use crate::objects::ObjectName;

/// More than S3's least length of a part.
const PART_LEN: usize = 5 * 1024 * 1024 + 77;

pub(crate) fn config(garage: &Garage) -> S3Config {
    S3Config {
        endpoint: Some(garage.endpoint()),
        region: Garage::REGION.to_owned(),
        bucket: Garage::BUCKET.to_owned(),
        prefix: "a/prefix".to_owned(),
        credentials: S3Credentials {
            key_id: Garage::KEY_ID.to_owned(),
            secret: Garage::SECRET.to_owned(),
            token: None,
        },
        path_style: true,
        allow_http: true,
        tls_ca: None,
    }
}

fn random(len: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes.into()
}

async fn check(objects: &dyn Objects) {
    let (unit, other) = (UnitId([5; 16]), UnitId([6; 16]));
    let (small, large) = (format!("{unit}/small"), format!("{unit}/large"));
    assert_eq!(objects.read(&small, 0..10).await, Err(ObjectError::NotFound));
    assert_eq!(objects.size(&small).await, Err(ObjectError::NotFound));
    objects.remove(&small).await.unwrap();

    let bytes = random(100_000, 1);
    objects.put(&small, bytes.clone()).await.unwrap();
    assert_eq!(objects.size(&small).await, Ok(100_000));
    for range in [0..100_000, 0..1, 99_999..100_000, 5_000..70_000] {
        let part = bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        assert!(objects.read(&small, range.clone()).await.unwrap() == part, "{range:?}");
    }
    assert_eq!(
        objects.read(&small, 99_000..101_000).await.unwrap(),
        bytes.slice(99_000..),
        "as far as it goes"
    );

    let parts = [random(PART_LEN, 2), random(PART_LEN, 3), random(1000, 4)];
    let upload = objects.begin(&large).await.unwrap();
    let mut named = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        named.push(objects.put_part(&large, &upload, index, part.clone()).await.unwrap());
    }
    assert_eq!(objects.size(&large).await, Err(ObjectError::NotFound), "not before it is complete");
    assert_eq!(objects.uploads(unit).await.unwrap(), [(large.clone(), upload.clone())]);
    assert_eq!(objects.uploads(other).await.unwrap(), []);
    objects.complete(&large, &upload, named).await.unwrap();
    assert_eq!(objects.uploads(unit).await.unwrap(), []);
    let whole = parts.concat();
    assert_eq!(objects.size(&large).await, Ok(whole.len() as u64));
    let around = PART_LEN - 1000..PART_LEN + 1000;
    let read = objects.read(&large, around.start as u64..around.end as u64).await.unwrap();
    assert!(read == whole[around], "across two parts");

    let given_up = objects.begin(&small).await.unwrap();
    objects.put_part(&small, &given_up, 0, parts[0].clone()).await.unwrap();
    for _ in 0..2 {
        objects.abort(&small, &given_up).await.unwrap();
    }
    assert_eq!(objects.uploads(unit).await.unwrap(), []);
    assert_eq!(objects.size(&small).await, Ok(100_000), "what was there is there");

    objects.put(&format!("{other}/small"), bytes).await.unwrap();
    let mut keys = Vec::new();
    while let Some(last) = {
        let after = keys.last().cloned();
        let page: Vec<String> = objects.list(unit, after.as_deref()).await.unwrap();
        keys.extend(page.iter().cloned());
        page.last().cloned()
    } {
        assert!(keys.contains(&last) && keys.len() < 10);
    }
    assert_eq!(keys, [large.clone(), small.clone()], "in order, and of this unit only");
    for key in [&large, &large, &small, &format!("{other}/small")] {
        objects.remove(key).await.unwrap();
    }
    assert_eq!(objects.list(unit, None).await.unwrap(), Vec::<String>::new());
}

// SPEC: D10
#[tokio::test]
async fn the_simulated_store_does_what_is_asked() {
    check(&SimObjects::new()).await;
}

// SPEC: D10
#[tokio::test]
async fn a_real_s3_server_does_what_is_asked() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let garage = Garage::start(folder.path()).await.unwrap();
    check(&S3Objects::new(&config(&garage)).unwrap()).await;
    check(&S3Objects::new(&S3Config { prefix: String::new(), ..config(&garage) }).unwrap()).await;
}

#[tokio::test]
async fn a_real_store_that_refuses_says_what_to_look_at_and_one_that_is_gone_is_away_in_time() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let mut garage = Garage::start(folder.path()).await.unwrap();
    let right = config(&garage);
    let rules = DepotRules { after_days: 0, keep_local_bytes: 0 };
    let depot = |config: &S3Config| {
        Depot::new(Arc::new(S3Objects::new(config).unwrap()), "a real store".to_owned(), rules)
    };
    depot(&right).probe().await.unwrap();
    let secret = S3Credentials { secret: "0".repeat(64), ..right.credentials.clone() };
    let key = S3Credentials { key_id: "GKffffffffffffffffffffffff".to_owned(), ..right.credentials.clone() };
    let wrong = [
        (S3Config { credentials: secret, ..right.clone() }, "access key"),
        (S3Config { credentials: key, ..right.clone() }, "access key"),
        (S3Config { bucket: "none".to_owned(), ..right.clone() }, "bucket"),
    ];
    let (unit, name) =
        (UnitId([5; 16]), ObjectName { segment: SegmentId([7; 16]), object: ObjectId([1; 16]) });
    for (config, advice) in wrong {
        let error = depot(&config).probe().await.unwrap_err();
        assert!(matches!(&error, ObjectError::Refused(said) if said.contains(advice)), "{advice}: {error}");
        // None of it makes a copy look lost.
        let read = depot(&config).read(unit, &name, 0..10).await;
        assert!(matches!(read, Err(ReadFault::Away(_))), "{advice}: {read:?}");
    }
    // Neither does an empty bucket; only one that has the unit's marker and not the object does.
    let first = depot(&right);
    assert!(matches!(first.read(unit, &name, 0..10).await, Err(ReadFault::Away(ObjectError::Refused(_)))));
    assert!(matches!(first.settle(unit, true).await, Err(ObjectError::Refused(_))));
    first.settle(unit, false).await.unwrap();
    let right = depot(&right);
    assert_eq!(right.read(unit, &name, 0..10).await, Err(ReadFault::Lost));
    right.put(&name.key(unit), Bytes::from_static(b"short")).await.unwrap();
    assert_eq!(right.read(unit, &name, 0..10).await, Err(ReadFault::Lost));
    assert_eq!(right.read(unit, &name, 6..10).await, Err(ReadFault::Lost), "behind its end");
    garage.stop();
    let asked = tokio::time::Instant::now();
    assert!(matches!(right.read(unit, &name, 0..5).await, Err(ReadFault::Away(ObjectError::Away(_)))));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(!right.counters().is_well);
    let asked = tokio::time::Instant::now();
    assert!(matches!(right.read(unit, &name, 0..5).await, Err(ReadFault::Away(ObjectError::Away(_)))));
    assert!(asked.elapsed() < Duration::from_secs(1), "asked again a moment later, nobody waits");
    garage.go_on().await.unwrap();
    let read = loop {
        match right.read(unit, &name, 0..5).await {
            Err(ReadFault::Away(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => break other,
        }
    };
    assert_eq!(read.unwrap(), "short");
    assert!(right.counters().is_well);
}
