//! Tags as the script writes them, `k=v, k2=v2`, held to AWS's limits.

use super::Tag;
use super::section::Section;
use super::yaml::quoted;

/// An instance may have 50 tags; these are left once ours are on it.
pub(super) const TAG_LIMIT: usize = 40;
const KEY_LIMIT: usize = 128;
const VALUE_LIMIT: usize = 256;
/// Prefixes that are not the operator's to use.
const RESERVED: [&str; 2] = ["aws:", ec2::RESERVED_TAG_PREFIX];

/// The `tags` of a section, in its order; malformed ones are reported and left out.
pub(super) fn tags(section: &Section<'_>) -> Vec<Tag> {
    let Some(text) = section.text("tags") else { return Vec::new() };
    let mut tags: Vec<Tag> = Vec::new();
    for part in text.split(',').map(str::trim) {
        match tag(part) {
            Ok(tag) if tags.iter().any(|other| other.key == tag.key) => {
                section.fault("tags", format!("the tag {} stands twice", quoted(&tag.key)));
            }
            Ok(tag) => tags.push(tag),
            Err(message) => section.fault("tags", message),
        }
    }
    if tags.len() > TAG_LIMIT {
        section.fault("tags", format!("must be at most {TAG_LIMIT} tags, not {}", tags.len()));
    }
    tags
}

/// The tags of a resource: its own, and those for all resources whose keys it does not set.
pub(super) fn merged(own: Vec<Tag>, general: &[Tag]) -> Vec<Tag> {
    let mut tags = own;
    for tag in general {
        if !tags.iter().any(|own| own.key == tag.key) {
            tags.push(tag.clone());
        }
    }
    tags
}

fn tag(part: &str) -> Result<Tag, String> {
    let malformed = || format!("{} is no tag; write k=v, k2=v2", quoted(part));
    let (key, value) = part.split_once('=').ok_or_else(malformed)?;
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() || value.is_empty() {
        return Err(malformed());
    }
    if key.chars().count() > KEY_LIMIT {
        return Err(format!("the tag {} has a key of more than {KEY_LIMIT} characters", quoted(key)));
    }
    if value.chars().count() > VALUE_LIMIT {
        return Err(format!("the tag {} has a value of more than {VALUE_LIMIT} characters", quoted(key)));
    }
    let lower = key.to_ascii_lowercase();
    if let Some(prefix) = RESERVED.iter().find(|prefix| lower.starts_with(*prefix)) {
        return Err(format!(
            "the tag {} uses a reserved prefix; {prefix} is not for tags of yours",
            quoted(key)
        ));
    }
    Ok(Tag { key: key.to_owned(), value: value.to_owned() })
}
