//! The server's times: ISO 8601 ending in `+00:00`, with a fraction of 0 or 3 to 6 digits.

use serde::{Deserialize, Deserializer};

/// A time by the server's clock.
pub type Timestamp = jiff::Timestamp;

/// Absent, null and unreadable times are all `None`: a strange time must not cost a whole listing.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.and_then(|text| parse(&text)))
}

fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| format!("{text}Z").parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fraction_of_a_second_is_read() {
        for text in [
            "2026-11-23T18:51:25+00:00",
            "2026-11-23T18:51:25.649+00:00",
            "2026-11-23T18:51:25.649000+00:00",
            "2026-11-23T18:51:25.649",
        ] {
            assert_eq!(parse(text).unwrap().as_second(), 1_795_459_885, "{text}");
        }
        assert_eq!(parse("yesterday"), None);
    }
}
