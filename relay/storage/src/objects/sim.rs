//! An object store in memory that fails as real ones do: for tests, driven from outside.
//!
//! Clones are the same store, and it outlives the servers that use it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Asking, ObjectError, Objects};
use crate::ids::UnitId;

/// A simulated store.
#[derive(Clone, Default)]
pub struct SimObjects(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, (String, BTreeMap<usize, Bytes>)>,
    next_upload: u64,
    /// Requests so far.
    requests: u64,
    /// Requests from this one on do not reach the store.
    away_from: Option<u64>,
    /// This one is done, but its answer is lost, as are all later requests.
    cut_at: Option<u64>,
    hangs: bool,
    /// The next object is kept otherwise than it was given.
    corrupts: bool,
}

impl SimObjects {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be reached.
    pub fn set_away(&self, is_away: bool) {
        let mut state = self.state();
        state.away_from = is_away.then_some(state.requests);
        state.cut_at = None;
    }

    /// From the request on that comes `after` so many further ones, it cannot be reached; with `is_done`, that one is still
    /// done, and only its answer is lost.
    pub fn cut(&self, after: u64, is_done: bool) {
        let mut state = self.state();
        let at = state.requests + after;
        (state.away_from, state.cut_at) = (Some(at + u64::from(is_done)), is_done.then_some(at));
    }

    /// Whether it takes requests and answers none.
    pub fn set_hanging(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// Keeps the next object otherwise than it is given, and says nothing.
    pub fn corrupt_next(&self) {
        self.state().corrupts = true;
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// All keys.
    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// Uploads that are neither completed nor given up.
    pub fn uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// Changes one byte of an object, behind everybody's back.
    pub fn flip(&self, key: &str, at: usize) {
        if let Some(object) = self.state().objects.get_mut(key) {
            let mut bytes = object.to_vec();
            bytes[at] ^= 0x40;
            *object = bytes.into();
        }
    }

    /// Loses an object, behind everybody's back.
    pub fn lose(&self, key: &str) {
        self.state().objects.remove(key);
    }

    /// The bytes of an object.
    pub fn contents(&self, key: &str) -> Option<Bytes> {
        self.state().objects.get(key).cloned()
    }

    /// Puts an object there, behind everybody's back.
    pub fn plant(&self, key: &str, bytes: &[u8]) {
        self.state().objects.insert(key.to_owned(), Bytes::copy_from_slice(bytes));
    }

    /// One request: done at once, or not at all, or for ever on its way.
    fn ask<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut State) -> Result<T, ObjectError> + Send + 'a,
    ) -> Asking<'a, T> {
        Box::pin(async move {
            let (hangs, answer) = {
                let mut state = self.state();
                let at = state.requests;
                state.requests += 1;
                let is_away = state.away_from.is_some_and(|from| from <= at);
                let answer = if is_away { Err(lost()) } else { work(&mut state) };
                (state.hangs, if state.cut_at == Some(at) { Err(lost()) } else { answer })
            };
            if hangs {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}

impl State {
    fn keep(&mut self, key: &str, bytes: &[u8]) {
        let mut kept = bytes.to_vec();
        if std::mem::take(&mut self.corrupts)
            && let Some(byte) = kept.last_mut()
        {
            *byte ^= 1;
        }
        self.objects.insert(key.to_owned(), kept.into());
    }
}

fn lost() -> ObjectError {
    ObjectError::Away("simulated: no route".to_owned())
}

impl Objects for SimObjects {
    fn read<'a>(&'a self, key: &'a str, range: Range<u64>) -> Asking<'a, Bytes> {
        self.ask(move |state| {
            let object = state.objects.get(key).ok_or(ObjectError::NotFound)?;
            let len = object.len() as u64;
            let place = |at: u64| usize::try_from(at.min(len)).unwrap_or(usize::MAX);
            Ok(object.slice(place(range.start)..place(range.end)))
        })
    }

    fn size<'a>(&'a self, key: &'a str) -> Asking<'a, u64> {
        self.ask(move |state| Ok(state.objects.get(key).ok_or(ObjectError::NotFound)?.len() as u64))
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> Asking<'a, ()> {
        self.ask(move |state| {
            state.keep(key, &bytes);
            Ok(())
        })
    }

    fn begin<'a>(&'a self, key: &'a str) -> Asking<'a, String> {
        self.ask(move |state| {
            state.next_upload += 1;
            let upload = format!("upload-{}", state.next_upload);
            state.uploads.insert(upload.clone(), (key.to_owned(), BTreeMap::new()));
            Ok(upload)
        })
    }

    fn put_part<'a>(
        &'a self,
        key: &'a str,
        upload: &'a str,
        index: usize,
        bytes: Bytes,
    ) -> Asking<'a, String> {
        self.ask(move |state| {
            let (of, parts) = state.uploads.get_mut(upload).ok_or(ObjectError::NotFound)?;
            if of != key {
                return Err(ObjectError::NotFound);
            }
            parts.insert(index, bytes);
            Ok(format!("part-{index}"))
        })
    }

    fn complete<'a>(&'a self, key: &'a str, upload: &'a str, parts: Vec<String>) -> Asking<'a, ()> {
        self.ask(move |state| {
            let (_, written) = state.uploads.remove(upload).ok_or(ObjectError::NotFound)?;
            let named = (0..parts.len()).filter_map(|index| written.get(&index).cloned());
            let whole: Vec<u8> = named.flatten().collect();
            state.keep(key, &whole);
            Ok(())
        })
    }

    fn abort<'a>(&'a self, _key: &'a str, upload: &'a str) -> Asking<'a, ()> {
        self.ask(move |state| {
            state.uploads.remove(upload);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, key: &'a str) -> Asking<'a, ()> {
        self.ask(move |state| {
            state.objects.remove(key);
            Ok(())
        })
    }

    fn uploads(&self, unit: UnitId) -> Asking<'_, Vec<(String, String)>> {
        self.ask(move |state| {
            let own = state.uploads.iter().filter(|(_, (key, _))| key.starts_with(&format!("{unit}/")));
            Ok(own.map(|(upload, (key, _))| (key.clone(), upload.clone())).collect())
        })
    }

    fn list<'a>(&'a self, unit: UnitId, after: Option<&'a str>) -> Asking<'a, Vec<String>> {
        self.ask(move |state| {
            let own = state.objects.keys().filter(|key| key.starts_with(&format!("{unit}/")));
            Ok(own.filter(|key| after.is_none_or(|after| key.as_str() > after)).take(3).cloned().collect())
        })
    }
}
