//! `ami_id`: an image by its id, by its name, or by an SSM parameter.

use std::fmt;

use super::yaml::quoted;

/// AWS's limits on an image's name.
const NAME: std::ops::RangeInclusive<usize> = 3..=128;
const RESOLVE: &str = "resolve:ssm:";

/// Which image instances are launched from. Names and parameters stand for an image of the region in use, whichever it
/// is at the time of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRef {
    /// `ami-0123456789abcdef0`.
    Id(String),
    /// The newest available image with exactly this name, Amazon's, the account's or the marketplace's.
    Name(String),
    /// The path of an SSM parameter that holds an image's id, without `resolve:ssm:`. EC2 reads it.
    Parameter(String),
}

impl ImageRef {
    /// Reads what stands in a configuration or is typed at a prompt.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let parameter = text.strip_prefix(RESOLVE).or_else(|| text.starts_with('/').then_some(text));
        if let Some(path) = parameter {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "/_.-:".contains(c);
            return if !path.is_empty() && path.len() <= 1024 && path.chars().all(allowed) {
                Ok(Self::Parameter(path.to_owned()))
            } else {
                Err(format!("must be the path of an SSM parameter, /aws/service/..., not {}", quoted(text)))
            };
        }
        if let Some(rest) = text.strip_prefix("ami-")
            && !rest.is_empty()
            && rest.chars().all(|c| c.is_ascii_alphanumeric())
        {
            return Ok(Self::Id(text.to_owned()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || " ()[]./-'@_".contains(c);
        if NAME.contains(&text.len()) && text.chars().all(allowed) && !text.starts_with("ami-") {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(format!(
            "must be an image's id, ami-..., its name, or an SSM parameter, /aws/service/..., not {}",
            quoted(text)
        ))
    }
}

/// As it is written in a configuration.
impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => f.write_str(id),
            Self::Name(name) => f.write_str(name),
            Self::Parameter(path) => write!(f, "{RESOLVE}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_names_and_parameters_are_told_apart() {
        let id = |text: &str| Ok(ImageRef::Id(text.to_owned()));
        let name = |text: &str| Ok(ImageRef::Name(text.to_owned()));
        let parameter = |text: &str| Ok(ImageRef::Parameter(text.to_owned()));
        assert_eq!(ImageRef::parse("ami-07c95cafbb788face"), id("ami-07c95cafbb788face"));
        let nvidia = "NVIDIA Deep Learning AMI v20.11.0-46a68101-e56b-41cd-8e32-631ac6e5d02b";
        assert_eq!(ImageRef::parse(nvidia), name(nvidia));
        let path =
            "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id";
        assert_eq!(ImageRef::parse(path), parameter(path));
        assert_eq!(ImageRef::parse(&format!("resolve:ssm:{path}")), parameter(path));
        assert_eq!(ImageRef::parse("resolve:ssm:golden:7"), parameter("golden:7"));
        for bad in ["ami-", "ami-12 34", "deep*", "ab", "resolve:ssm:", "/a b", "", &"x".repeat(129)] {
            assert!(ImageRef::parse(bad).is_err(), "{bad}");
        }
    }
}
