//! Errors as HTTP: one place, one shape.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lighter_transport::location::api::{ErrorAnswer, ErrorCode};

use crate::error::CallError;

impl IntoResponse for CallError {
    fn into_response(self) -> Response {
        let (status, code) = match self {
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, ErrorCode::Malformed),
            Self::Unauthorised => (StatusCode::UNAUTHORIZED, ErrorCode::Unauthorised),
            Self::Refused => (StatusCode::FORBIDDEN, ErrorCode::Refused),
            Self::Stale { .. } => (StatusCode::CONFLICT, ErrorCode::Stale),
            Self::Address => (StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::Address),
            Self::Full => (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Full),
            Self::NotFound => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            Self::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooMany),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable),
        };
        let sequence = match self {
            Self::Stale { sequence } => Some(sequence),
            _ => None,
        };
        let body = ErrorAnswer { error: code, message: self.to_string(), sequence };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        match self {
            Self::TooMany { retry_after } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs() + 1));
            }
            // RFC 6750 §3
            Self::Unauthorised => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

/// The path is one of ours, the method is not.
pub(super) fn method_not_allowed() -> Response {
    refuse(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::NotFound, "not with this method")
}

/// RFC 9110 §15.5.12.
pub(super) fn length_required() -> Response {
    refuse(StatusCode::LENGTH_REQUIRED, ErrorCode::Malformed, "say the body's length in Content-Length")
}

/// The body is over its limit.
pub(super) fn too_large() -> Response {
    refuse(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, "the body is over its limit")
}

/// The body is of another type.
pub(super) fn not_json() -> Response {
    refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::Malformed, "the body must be application/json")
}

fn refuse(status: StatusCode, error: ErrorCode, message: &str) -> Response {
    (status, Json(ErrorAnswer { error, message: message.to_owned(), sequence: None })).into_response()
}
