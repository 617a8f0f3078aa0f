//! DescribeInstances: filters, pages of instances, and what is not visible yet.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;

use super::error::ApiError;
use super::instance::Instance;
use super::launch::write_reservation;
use super::params::Params;
use super::world::{Done, World};
use super::xml::Xml;

/// Instances on a page when the caller does not say.
const PAGE: usize = 1000;

impl World {
    pub(crate) fn describe_instances(&self, params: &Params, now: Instant) -> Result<Done, ApiError> {
        let ids = params.list("InstanceId");
        let visible = |instance: &Instance| instance.visible_at <= now;
        self.check_ids(&ids, visible)?;
        let filters = read_filters(params)?;
        let (start, size) = read_page(params, !ids.is_empty())?;
        let wanted = |instance: &Instance| {
            visible(instance)
                && (ids.is_empty() || ids.contains(&instance.id.as_str()))
                && filters.iter().all(|filter| filter.matches(instance))
        };
        let mut page: Vec<(u64, &Instance)> =
            self.after(start).filter(|(_, instance)| wanted(instance)).take(size + 1).collect();
        let more = page.len() > size;
        page.truncate(size);
        let mut xml = Xml::default();
        let reservations = page.chunk_by(|(_, one), (_, next)| one.reservation == next.reservation);
        xml.list("reservationSet", reservations, |xml, chunk| {
            let instances: Vec<&Instance> = chunk.iter().map(|(_, instance)| *instance).collect();
            write_reservation(xml, &instances, |instance| instance.state);
        });
        if more && let Some((last, _)) = page.last() {
            xml.leaf("nextToken", STANDARD.encode(format!("after {last}")));
        }
        Ok(Done { xml, instances: Vec::new() })
    }
}

/// The place to go on after, and the page's size.
fn read_page(params: &Params, by_id: bool) -> Result<(u64, usize), ApiError> {
    let size = params.parsed::<usize>("MaxResults")?;
    if by_id && size.is_some() {
        return Err(ApiError::bad(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        ));
    }
    if size.is_some_and(|size| !(5..=1000).contains(&size)) {
        return Err(ApiError::value("Value for parameter maxResults is invalid. Expecting 5 to 1000."));
    }
    let start = match params.get("NextToken").filter(|token| !token.is_empty()) {
        None => 0,
        Some(token) => place_of(token)
            .ok_or_else(|| ApiError::bad("InvalidNextToken", format!("The token '{token}' is invalid.")))?,
    };
    Ok((start, size.unwrap_or(PAGE)))
}

fn place_of(token: &str) -> Option<u64> {
    let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
    text.strip_prefix("after ")?.parse().ok()
}

/// One `Filter.N`: any of its values.
struct Filter {
    by: By,
    values: Vec<String>,
}

enum By {
    Tag(String),
    TagKey,
    State,
    Id,
    Type,
    Zone,
    Image,
    Lifecycle,
}

fn read_filters(params: &Params) -> Result<Vec<Filter>, ApiError> {
    let filter = |index: u32| {
        let name = params.need(&format!("Filter.{index}.Name"))?;
        let by = match name {
            "tag-key" => By::TagKey,
            "instance-state-name" => By::State,
            "instance-id" => By::Id,
            "instance-type" => By::Type,
            "availability-zone" => By::Zone,
            "image-id" => By::Image,
            "instance-lifecycle" => By::Lifecycle,
            other => match other.strip_prefix("tag:") {
                Some(key) => By::Tag(key.to_owned()),
                None => return Err(ApiError::value(format!("The filter '{other}' is invalid"))),
            },
        };
        let values = params.list(&format!("Filter.{index}.Value")).into_iter().map(str::to_owned).collect();
        Ok(Filter { by, values })
    };
    params.indices("Filter").into_iter().map(filter).collect()
}

impl Filter {
    fn matches(&self, instance: &Instance) -> bool {
        match &self.by {
            By::Tag(key) => instance.tags.get(key).is_some_and(|value| self.takes(value)),
            By::TagKey => instance.tags.keys().any(|key| self.takes(key)),
            By::State => self.takes(&instance.state.to_string()),
            By::Id => self.takes(&instance.id),
            By::Type => self.takes(&instance.instance_type),
            By::Zone => self.takes(&instance.zone),
            By::Image => self.takes(&instance.image_id),
            By::Lifecycle => instance.market == super::Market::Spot && self.takes("spot"),
        }
    }

    fn takes(&self, text: &str) -> bool {
        self.values.iter().any(|pattern| like(pattern.as_bytes(), text.as_bytes()))
    }
}

/// AWS's wildcards: `*` any text, `?` any character.
pub(super) fn like(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            (0..=text.len()).any(|skip| text.get(skip..).is_some_and(|tail| like(rest, tail)))
        }
        Some((first, rest)) => text
            .split_first()
            .is_some_and(|(head, tail)| (*first == b'?' || first == head) && like(rest, tail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_know_wildcards() {
        for (pattern, text, fits) in [
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("", "", true),
        ] {
            assert_eq!(like(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }
}
