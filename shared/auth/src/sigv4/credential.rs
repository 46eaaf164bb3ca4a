use std::borrow::Cow;

use super::{Rules, SignatureError};

const MAX_ACCESS_KEY_ID: usize = 128;
const MAX_SCOPE_PART: usize = 64;
const TERMINATOR: &str = "/aws4_request";

/// `ACCESS_KEY_ID/YYYYMMDD/REGION/SERVICE/aws4_request`
pub(super) struct Credential<'r> {
    text: Cow<'r, str>,
    access_key_id_len: usize,
    is_s3: bool,
}

impl<'r> Credential<'r> {
    /// Parses from the right, because an access key id may contain slashes and the scope's parts may not.
    pub(super) fn parse(text: Cow<'r, str>, rules: &Rules) -> Result<Self, SignatureError> {
        const MALFORMED: SignatureError = SignatureError::Malformed {
            what: "Credential",
            expected: "ACCESS_KEY_ID/YYYYMMDD/REGION/SERVICE/aws4_request",
        };
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(MALFORMED);
        }
        let mut parts = text
            .strip_suffix(TERMINATOR)
            .ok_or(MALFORMED)?
            .rsplitn(4, '/');
        let (Some(service), Some(region), Some(day), Some(access_key_id)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MALFORMED);
        };
        if access_key_id.is_empty()
            || day.len() != 8
            || !day.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(MALFORMED);
        }
        if access_key_id.len() > MAX_ACCESS_KEY_ID {
            return Err(SignatureError::TooLong {
                what: "the access key id",
                limit: MAX_ACCESS_KEY_ID,
                unit: "characters",
            });
        }
        // MinIO's clients sign with an empty region, so "any region" has to include it.
        if region.len() > MAX_SCOPE_PART {
            return Err(SignatureError::TooLong {
                what: "the region",
                limit: MAX_SCOPE_PART,
                unit: "characters",
            });
        }
        if !rules.services.contains(&service) {
            return Err(SignatureError::Service {
                accepted: rules.services,
            });
        }
        if let Some(expected) = rules
            .region
            .as_deref()
            .filter(|expected| *expected != region)
        {
            return Err(SignatureError::Region {
                expected: expected.to_owned(),
            });
        }
        let access_key_id_len = access_key_id.len();
        let is_s3 = service == "s3";
        Ok(Self {
            text,
            access_key_id_len,
            is_s3,
        })
    }

    pub(super) fn access_key_id(&self) -> &str {
        self.text.get(..self.access_key_id_len).unwrap_or_default()
    }

    /// `YYYYMMDD/REGION/SERVICE/aws4_request`, as it is signed.
    pub(super) fn scope(&self) -> &str {
        self.text
            .get(self.access_key_id_len + 1..)
            .unwrap_or_default()
    }

    pub(super) fn day(&self) -> &str {
        self.scope().get(..8).unwrap_or_default()
    }

    /// The service that the scope names.
    pub(super) fn service(&self) -> &str {
        self.text.rsplit('/').nth(1).unwrap_or_default()
    }

    /// S3 signs paths and presigned bodies in its own way.
    pub(super) fn is_s3(&self) -> bool {
        self.is_s3
    }

    /// The whole credential, which a signing key belongs to, with the access key id.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}
