//! The Query protocol's flat parameters: `Filter.1.Value.2=x`.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::error::ApiError;

/// One call's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads a form body.
    pub(crate) fn parse(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn need(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::missing(name))
    }

    /// A number or any other value with a text form.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let value = text.parse();
        value.map(Some).map_err(|_| ApiError::value(format!("Invalid value '{text}' for {name}")))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.parsed(name)?.unwrap_or(false))
    }

    /// The values of `NAME.1`, `NAME.2`, ...
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        self.indices(name).iter().filter_map(|index| self.get(&format!("{name}.{index}"))).collect()
    }

    /// The numbers in use below `NAME.`, in order.
    pub(crate) fn indices(&self, name: &str) -> BTreeSet<u32> {
        let prefix = format!("{name}.");
        self.0
            .range(prefix.clone()..)
            .map_while(|(key, _)| key.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('.').next()?.parse().ok())
            .collect()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The same without one parameter.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    pub(crate) fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }

    /// Pairs of `NAME.N.Key` and `NAME.N.Value`.
    pub(crate) fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let pair = |index: &u32| {
            let key = self.get(&format!("{name}.{index}.Key"))?;
            let value = self.get(&format!("{name}.{index}.Value")).unwrap_or_default();
            Some((key.to_owned(), value.to_owned()))
        };
        self.indices(name).iter().filter_map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_in_the_order_of_their_numbers() {
        let params = Params::parse(b"Id.10=c&Id.2=b&Id.1=a&IdX.1=no&Tag.1.Key=k%20y&Tag.1.Value=a%2Bb");
        assert_eq!(params.list("Id"), ["a", "b", "c"]);
        assert_eq!(params.pairs("Tag"), [("k y".to_owned(), "a+b".to_owned())]);
        assert_eq!(params.parsed::<u32>("Missing").unwrap(), None);
        assert!(params.parsed::<u32>("Id.1").is_err());
    }
}
