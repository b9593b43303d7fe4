//! Binary values in JSON: base64url without padding (RFC 4648 §5).

use data_encoding::BASE64URL_NOPAD;

/// A signed statement as one text.
pub(super) mod signed {
    use lighter_protocol::{Signed, Statement};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::BASE64URL_NOPAD;

    pub(in super::super) fn serialize<T: Statement, S: Serializer>(
        statement: &Signed<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64URL_NOPAD.encode(&statement.to_bytes()))
    }

    pub(in super::super) fn deserialize<'de, T: Statement, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Signed<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(D::Error::custom)?;
        Signed::from_bytes(&bytes).map_err(D::Error::custom)
    }
}

/// A signed statement as one text, or `null`.
pub(super) mod signed_option {
    use lighter_protocol::{Signed, Statement};
    use serde::{Deserialize, Deserializer, Serializer};

    use super::signed;

    pub(in super::super) fn serialize<T: Statement, S: Serializer>(
        statement: &Option<Signed<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match statement {
            Some(statement) => signed::serialize(statement, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, T: Statement, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Signed<T>>, D::Error> {
        #[derive(Deserialize)]
        #[serde(transparent, bound = "")]
        struct Text<T: Statement>(#[serde(with = "signed")] Signed<T>);

        Ok(Option::<Text<T>>::deserialize(deserializer)?.map(|text| text.0))
    }
}
