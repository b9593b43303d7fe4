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

/// Signed statements, each as one text.
pub(super) mod signed_list {
    use lighter_protocol::{Signed, Statement};
    use serde::ser::SerializeSeq;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::signed;

    #[derive(Serialize, Deserialize)]
    #[serde(transparent, bound = "")]
    struct Text<T: Statement>(#[serde(with = "signed")] Signed<T>);

    pub(in super::super) fn serialize<T: Statement + Clone, S: Serializer>(
        statements: &[Signed<T>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(statements.len()))?;
        for statement in statements {
            list.serialize_element(&Text(statement.clone()))?;
        }
        list.end()
    }

    pub(in super::super) fn deserialize<'de, T: Statement, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Signed<T>>, D::Error> {
        Ok(Vec::<Text<T>>::deserialize(deserializer)?.into_iter().map(|text| text.0).collect())
    }
}
