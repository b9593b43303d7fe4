//! The one request that `object_store` does not make: which uploads were begun and never completed (ListMultipartUploads).
//!
//! A store keeps the parts of such an upload, and charges for them, until it is given up.

use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use serde::Deserialize;

use super::{ObjectError, SAID_MAX};

/// Asks for uploads.
#[derive(Debug)]
pub(super) struct Uploads {
    client: HttpClient,
    bucket_url: String,
    region: String,
}

/// The answer, as far as it matters.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default, rename = "Upload")]
    uploads: Vec<Upload>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

impl Uploads {
    pub(super) fn new(client: HttpClient, bucket_url: String, region: String) -> Self {
        Self { client, bucket_url, region }
    }

    /// Paths and names of uploads below `prefix`, of which the characters need no encoding but for slashes: a page of up to
    /// a thousand.
    pub(super) async fn list(
        &self,
        prefix: &str,
        credential: &AwsCredential,
    ) -> Result<Vec<(String, String)>, ObjectError> {
        let prefix = prefix.replace('/', "%2F");
        let url = format!("{}?max-uploads=1000&prefix={prefix}%2F&uploads=", self.bucket_url);
        let away = |error: &dyn std::error::Error| ObjectError::Away(error.to_string());
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.parse().map_err(|error| away(&error))?;
        let authorizer = AwsAuthorizer::new(credential, "s3", &self.region);
        authorizer.try_authorize(&mut request, None).map_err(|error| away(&error))?;
        let response = self.client.execute(request).await.map_err(|error| away(&error))?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(|error| away(&error))?;
        let text = String::from_utf8_lossy(&body);
        if !status.is_success() {
            let said: String = text.chars().filter(|char| !char.is_control()).take(SAID_MAX).collect();
            return Err(ObjectError::Refused(format!("listing uploads: {status}: {said}")));
        }
        read_answer(&text)
    }
}

fn read_answer(text: &str) -> Result<Vec<(String, String)>, ObjectError> {
    let answer: Answer = quick_xml::de::from_str(text)
        .map_err(|error| ObjectError::Away(format!("listing uploads: not understood: {error}")))?;
    Ok(answer.uploads.into_iter().map(|upload| (upload.key, upload.upload_id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_understood_with_uploads_and_without() {
        let some = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>mail</Bucket>
            <MaxUploads>1000</MaxUploads><IsTruncated>false</IsTruncated>
            <Upload><Key>lighter/05/1f-a0</Key><UploadId>abc&amp;d</UploadId><Initiated>2026-11-21T00:00:00Z</Initiated></Upload>
            <Upload><Key>lighter/05/2f-a0</Key><UploadId>e</UploadId></Upload></ListMultipartUploadsResult>"#;
        let found = read_answer(some).unwrap();
        let named = |key: &str, upload: &str| (key.to_owned(), upload.to_owned());
        assert_eq!(found, [named("lighter/05/1f-a0", "abc&d"), named("lighter/05/2f-a0", "e")]);
        let none = "<ListMultipartUploadsResult><Bucket>mail</Bucket></ListMultipartUploadsResult>";
        assert_eq!(read_answer(none).unwrap(), []);
        assert!(read_answer("<html>404").is_err());
    }
}
