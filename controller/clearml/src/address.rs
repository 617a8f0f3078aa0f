//! The API server's address: `http` or `https`, any port, any path prefix, no secrets inside.

use std::fmt;

use reqwest::Url;

/// A checked address, without a trailing slash.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

/// Why a text is not an address of a server. The message does not repeat the text: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL.
    #[error("is not a URL ({0}); expected http://HOST:PORT or https://HOST, a path may follow")]
    NotUrl(String),
    /// `ftp://`, or `localhost:8008` whose scheme is `localhost`.
    #[error("does not begin with http:// or https://")]
    Scheme,
    /// `https://user:password@host`.
    #[error("holds a user name or password; keys have settings of their own")]
    Secret,
    /// `?` or `#`.
    #[error("holds a query or fragment; expected http://HOST:PORT or https://HOST, a path may follow")]
    Tail,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// If requests could not be sent to it as it stands.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text.trim()).map_err(|error| AddressError::NotUrl(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(AddressError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Secret);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(AddressError::Tail);
        }
        Ok(Self(url))
    }

    /// Where a call goes.
    pub(crate) fn endpoint(&self, endpoint: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}/{endpoint}", self.0.path().trim_end_matches('/')));
        url
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_prefix_and_trailing_slashes_are_kept_and_dropped() {
        for (text, url) in [
            ("http://localhost:8008", "http://localhost:8008/auth.login"),
            (" http://localhost:8008/ ", "http://localhost:8008/auth.login"),
            ("https://host/api", "https://host/api/auth.login"),
            ("https://host/api//", "https://host/api/auth.login"),
            ("http://[::1]:8008", "http://[::1]:8008/auth.login"),
        ] {
            assert_eq!(Address::parse(text).unwrap().endpoint("auth.login").as_str(), url);
        }
    }

    #[test]
    fn what_could_not_work_is_refused_without_being_repeated() {
        for text in
            ["localhost:8008", "ftp://host", "https://me:hush@host", "https://host/?key=hush", "", "//hush"]
        {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
