//! One attachment's bytes as an HTTP answer.

use std::io;
use std::ops::Range;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use lighter_protocol::UnixTime;
use tokio::sync::OwnedSemaphorePermit;

use super::attachments::{Attachment, Attachments, Pieces, RetrievalError};
use super::disposition::{content_disposition, content_type};
use super::range::{Selection, Validators, http_date, select};

/// The answer for `attachment`. The first piece is read before anything is sent, so that what cannot be read is told
/// with a status; what breaks later breaks the connection, and the client sees that something is missing.
pub(super) async fn answer<A: Attachments>(
    attachments: &A,
    attachment: &Attachment<A::Blob>,
    accepted: UnixTime,
    asked: &Parts,
    permit: OwnedSemaphorePermit,
) -> Result<Response, RetrievalError> {
    let etag = format!("\"{}\"", attachment.id);
    let is_get = asked.method == Method::GET;
    let there = Validators { size: attachment.size, etag: &etag, modified: accepted };
    let selection = select(&asked.headers, is_get, &there);
    let (status, range) = match selection {
        Selection::Whole => (StatusCode::OK, 0..attachment.size),
        Selection::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Selection::Unsatisfiable => return Ok(unsatisfiable(attachment.size)),
        Selection::NotModified => return Ok(bare(StatusCode::NOT_MODIFIED, &there)),
        Selection::PreconditionFailed => return Ok(bare(StatusCode::PRECONDITION_FAILED, &there)),
    };
    let len = range.end - range.start;
    let body = if is_get {
        body(attachments.open(&attachment.blob, range.clone()), permit).await?
    } else {
        Body::empty()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    validate(fields, &there);
    fields.insert(header::CONTENT_TYPE, ascii(&content_type(&attachment.media_type)));
    fields.insert(header::CONTENT_DISPOSITION, ascii(&content_disposition(&attachment.name)));
    if status == StatusCode::PARTIAL_CONTENT {
        fields.insert(header::CONTENT_RANGE, ascii(&content_range(&range, attachment.size)));
    }
    Ok(response)
}

/// What `pieces` give, the first of them read already. The permit is given back when the body is done or dropped.
async fn body(mut pieces: impl Pieces, permit: OwnedSemaphorePermit) -> Result<Body, RetrievalError> {
    let first = pieces.next().await?;
    let state = (first, pieces, permit);
    Ok(Body::from_stream(futures_util::stream::try_unfold(state, |(ready, mut pieces, permit)| async move {
        let piece = match ready {
            Some(piece) => Some(piece),
            None => pieces.next().await.map_err(|error| {
                tracing::warn!(%error, "a download broke off");
                io::Error::other(error)
            })?,
        };
        Ok::<_, io::Error>(piece.map(|piece| (piece, (None, pieces, permit))))
    })))
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

/// RFC 9110 §15.5.17.
fn unsatisfiable(size: u64) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    response.headers_mut().insert(header::CONTENT_RANGE, ascii(&format!("bytes */{size}")));
    response
}

/// RFC 9110 §15.4.5: the validators that a 200 would have had.
fn bare(status: StatusCode, there: &Validators<'_>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    validate(response.headers_mut(), there);
    response
}

/// By what a client knows it again (RFC 9110 §8.8).
fn validate(fields: &mut HeaderMap, there: &Validators<'_>) {
    fields.insert(header::ETAG, ascii(there.etag));
    fields.insert(header::LAST_MODIFIED, ascii(&http_date(there.modified)));
}

/// What was made of ASCII only; anything else would be left out rather than sent.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
