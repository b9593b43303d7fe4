//! An attachment from a relay by its ticket, over HTTP (SPEC A22): taken up again where it broke, hashed while it comes.
//!
//! HTTP has no proof beside each piece, so nothing of it is shown before the last byte: the whole must have the blob's
//! id. A relay that sends more than the blob has, or something else, has sent nothing.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_RANGE, HeaderMap, IF_RANGE, RANGE, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use indicatif::ProgressBar;
use lighter_protocol::BlobId;
use lighter_transport::location::{HttpClient, http_client};
use tokio::time::timeout;

use super::Places;
use crate::failure::Failure;
use crate::limits::{HTTP_RESUMES_MAX, HTTP_SILENCE_MAX};
use crate::output::{Target, Unproved};
use crate::progress;

/// The field in which a relay names the store that has what it let go of.
const STORE_FIELD: &str = "lighter-store";
/// On a relay's 410: the last day on which it could be had.
const EXPIRED_FIELD: &str = "lighter-expired";

/// A link to an attachment.
pub(super) struct Relay {
    http: HttpClient,
    url: String,
}

/// Why the relay did not give it.
#[derive(Debug)]
pub(super) enum Missing {
    /// It let go of it: this store has it.
    At(Option<String>),
    /// The link opens nothing any more.
    Nothing,
    /// Not now.
    Later,
    /// Other bytes than the message speaks of.
    Wrong,
    /// It broke off too often.
    Broken(String),
    /// On this side.
    Here(Failure),
}

impl Missing {
    /// What the user is told (SPEC A22).
    pub(super) fn told(self, places: &Places) -> Failure {
        match self {
            Self::At(Some(store)) => {
                let state = match &places.store {
                    Some(known) if known.peer.to_string() == store => {
                        format!("; it is {} now", known.presence)
                    }
                    _ => String::new(),
                };
                Failure::failed(format!(
                    "the mail server has let go of it, after your store {store} had it{state}: open it there, or start \
                     the agent on that machine"
                ))
            }
            Self::At(None) => Failure::failed("the message was withdrawn"),
            Self::Nothing => Failure::failed(format!(
                "the mail server's link opens nothing any more: the time to fetch it is over. {}",
                places.elsewhere()
            )),
            Self::Later => Failure::temporary("the mail server cannot give it now: try again in a minute"),
            Self::Wrong => Failure::failed(
                "the mail server sent other bytes than the message speaks of: nothing of it was kept",
            ),
            Self::Broken(why) => Failure::temporary(format!("the mail server broke off ({why}): try again")),
            Self::Here(failure) => failure,
        }
    }
}

impl From<std::io::Error> for Missing {
    fn from(error: std::io::Error) -> Self {
        Self::Here(error.into())
    }
}

/// What one request brought.
enum Ended {
    Whole,
    /// It broke; what came is in the file.
    Broken(String),
}

/// A download under way.
struct Download {
    blob: BlobId,
    size: u64,
    unproved: Unproved,
    hasher: blake3::Hasher,
    have: u64,
    bar: ProgressBar,
}

impl Relay {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// Where no certificate is trusted.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, Failure> {
        let http = http_client(url.starts_with("https:"), ca_file).map_err(Failure::failed)?;
        Ok(Self { http, url: url.to_owned() })
    }

    /// Downloads it; what is given back has the blob's id.
    ///
    /// # Errors
    /// [`Missing`].
    pub(super) async fn get(
        &self,
        blob: BlobId,
        size: u64,
        name: &str,
        target: Target,
    ) -> Result<Unproved, Missing> {
        let mut download = Download {
            blob,
            size,
            unproved: Unproved::begin(target).map_err(Missing::Here)?,
            hasher: blake3::Hasher::new(),
            have: 0,
            bar: progress::shown(progress::bar(&name, size)),
        };
        let mut fruitless = 0;
        let done = loop {
            let before = download.have;
            match self.go_on(&mut download).await {
                Ok(Ended::Whole) => break Ok(()),
                Ok(Ended::Broken(why)) => {
                    fruitless = if download.have > before { 0 } else { fruitless + 1 };
                    if fruitless > HTTP_RESUMES_MAX {
                        break Err(Missing::Broken(why));
                    }
                    tracing::info!(%why, have = download.have, "a download is taken up again");
                    tokio::time::sleep(PAUSE * fruitless).await;
                }
                Err(missing) => break Err(missing),
            }
        };
        download.bar.finish_and_clear();
        done?;
        if download.hasher.finalize() == blob.hash() { Ok(download.unproved) } else { Err(Missing::Wrong) }
    }

    async fn go_on(&self, download: &mut Download) -> Result<Ended, Missing> {
        let mut request = Request::get(&self.url);
        if download.have > 0 {
            request = request
                .header(RANGE, format!("bytes={}-", download.have))
                .header(IF_RANGE, format!("\"{}\"", download.blob));
        }
        let request = request.body(Full::new(Bytes::new()));
        let request = request.map_err(|error| Missing::Here(Failure::failed(error)))?;
        let response = match timeout(HTTP_SILENCE_MAX, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Ok(Ended::Broken(error.to_string())),
            Err(_) => return Ok(Ended::Broken("no answer".to_owned())),
        };
        match response.status() {
            StatusCode::OK => download.begin_again()?,
            StatusCode::PARTIAL_CONTENT if goes_on_at(response.headers(), download.have) => {}
            StatusCode::GONE if response.headers().contains_key(EXPIRED_FIELD) => {
                return Err(Missing::Nothing);
            }
            StatusCode::GONE => return Err(Missing::At(store_of(response.headers()))),
            StatusCode::NOT_FOUND => return Err(Missing::Nothing),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => return Err(Missing::Later),
            StatusCode::RANGE_NOT_SATISFIABLE if download.have > 0 => return Err(Missing::Wrong),
            status => {
                let later = response.headers().contains_key(RETRY_AFTER);
                return Err(if later { Missing::Later } else { Missing::Broken(status.to_string()) });
            }
        }
        download.take(response).await
    }
}

/// Before a download that brought nothing is taken up again, times the tries so far.
const PAUSE: Duration = Duration::from_millis(200);

impl Download {
    fn begin_again(&mut self) -> std::io::Result<()> {
        self.unproved.clear()?;
        self.hasher.reset();
        self.have = 0;
        Ok(())
    }

    async fn take(&mut self, response: Response<hyper::body::Incoming>) -> Result<Ended, Missing> {
        let mut body = response.into_body();
        while self.have < self.size {
            let frame = match timeout(HTTP_SILENCE_MAX, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Ok(Ended::Broken(error.to_string())),
                Ok(None) => break,
                Err(_) => return Ok(Ended::Broken("nothing came any more".to_owned())),
            };
            let Ok(bytes) = frame.into_data() else { continue };
            if bytes.len() as u64 > self.size - self.have {
                return Err(Missing::Wrong);
            }
            self.hasher.update(&bytes);
            self.have += bytes.len() as u64;
            // Pieces are small, and the disk's cache takes them: this command has nothing else to do meanwhile.
            self.unproved.file().write_all(&bytes)?;
            self.bar.set_position(self.have);
        }
        // What says more than was asked for is no answer to it. Where nothing more is said, what came is judged as it is.
        match timeout(HTTP_SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) if frame.data_ref().is_some_and(|bytes| !bytes.is_empty()) => {
                Err(Missing::Wrong)
            }
            _ => Ok(Ended::Whole),
        }
    }
}

/// `Content-Range: bytes START-…` (RFC 9110 §14.4).
fn goes_on_at(headers: &HeaderMap, have: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
    have > 0 && start == Some(have)
}

fn store_of(headers: &HeaderMap) -> Option<String> {
    let peer: lighter_protocol::PeerId = headers.get(STORE_FIELD)?.to_str().ok()?.parse().ok()?;
    Some(peer.to_string())
}
