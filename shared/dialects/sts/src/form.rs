//! The form parameters of a request, each at most once.

use std::collections::BTreeMap;

use crate::ErrorResponse;
use crate::error_response::invalid;

/// The parameters of one request, by name.
pub(crate) struct Form(BTreeMap<String, String>);

impl Form {
    /// Parses a body. Refuses a repeated parameter.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ErrorResponse> {
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(body) {
            if parameters.contains_key(name.as_ref()) {
                return Err(invalid(&name, "is given twice"));
            }
            parameters.insert(name.into_owned(), value.into_owned());
        }
        Ok(Self(parameters))
    }

    /// Takes a parameter. An empty value counts as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// Checks that every parameter was taken: a parameter without effect must be refused, not ignored.
    pub(crate) fn finish(self) -> Result<(), ErrorResponse> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(invalid(name, "is not supported here; leave it out")),
        }
    }
}
