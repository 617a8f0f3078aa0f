//! Which image a machine type begins with: the document's Deep Learning AMI where it still exists, else the current
//! one by its parameter.

use super::choices::{Choices, TypeFacts};

/// The script's default image, by name.
const DOCUMENTED: &str = "NVIDIA Deep Learning AMI v20.11.0-46a68101-e56b-41cd-8e32-631ac6e5d02b";
/// The same by id, in the one region where the id means it.
const DOCUMENTED_ID: (&str, &str) = ("us-east-1", "ami-07c95cafbb788face");

/// An image to begin with, and what there is to say about it.
pub(super) struct Suggestion {
    pub(super) image: String,
    pub(super) words: String,
}

/// The default image for a region and a type.
pub(super) fn suggestion(choices: &mut dyn Choices, region: &str, facts: &TypeFacts) -> Suggestion {
    let current = current(facts);
    if facts.arm {
        let words =
            "The default image is the current Deep Learning base image for ARM, found by its parameter.";
        return Suggestion { image: current, words: words.to_owned() };
    }
    match choices.image(DOCUMENTED) {
        Some(Some(found)) => Suggestion {
            image: DOCUMENTED.to_owned(),
            words: format!("The default image is {DOCUMENTED}, {} here.", found.id),
        },
        Some(None) => Suggestion {
            image: current,
            words: format!(
                "{region} no longer has {DOCUMENTED}; the default is the current Deep Learning base image, found by \
                 its parameter."
            ),
        },
        None if region == DOCUMENTED_ID.0 => Suggestion {
            image: DOCUMENTED_ID.1.to_owned(),
            words: format!(
                "The default image is {DOCUMENTED}; whether {region} still has it is not known without AWS."
            ),
        },
        None => Suggestion {
            image: current,
            words: "The default image is the current Deep Learning base image, found by its parameter."
                .to_owned(),
        },
    }
}

/// The public parameter of AWS's current Deep Learning base image.
fn current(facts: &TypeFacts) -> String {
    let architecture = if facts.arm { "arm64" } else { "x86_64" };
    format!(
        "resolve:ssm:/aws/service/deeplearning/ami/{architecture}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
    )
}

/// What a type's name tells without AWS: `g4dn`, `p5` have GPUs, `c7g`, `g5g` have ARM's processors.
pub(super) fn facts_by_name(instance_type: &str) -> TypeFacts {
    let family = instance_type.split('.').next().unwrap_or_default();
    let letters = family.chars().take_while(char::is_ascii_alphabetic).count();
    let (series, rest) = family.split_at(letters);
    let options = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    TypeFacts {
        gpu: matches!(series, "g" | "gr" | "p"),
        arm: options.starts_with('g') || series == "a" || (series == "p" && options.contains("gb")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::choices::NoChoices;
    use super::*;

    #[test]
    fn a_name_tells_gpus_and_architecture() {
        for (name, gpu, arm) in [
            ("g4dn.4xlarge", true, false),
            ("p5.48xlarge", true, false),
            ("gr6.4xlarge", true, false),
            ("g5g.xlarge", true, true),
            ("c7gn.large", false, true),
            ("m5.large", false, false),
            ("a1.large", false, true),
            ("inf2.xlarge", false, false),
            ("", false, false),
        ] {
            assert_eq!(facts_by_name(name), TypeFacts { gpu, arm }, "{name}");
        }
    }

    #[test]
    fn without_aws_the_documented_id_holds_in_its_own_region_only() {
        let x86 = TypeFacts { gpu: true, arm: false };
        assert_eq!(suggestion(&mut NoChoices, "us-east-1", &x86).image, "ami-07c95cafbb788face");
        let other = suggestion(&mut NoChoices, "eu-west-1", &x86).image;
        assert!(other.starts_with("resolve:ssm:/aws/service/deeplearning/ami/x86_64/"), "{other}");
        let arm = suggestion(&mut NoChoices, "us-east-1", &TypeFacts { gpu: true, arm: true }).image;
        assert!(arm.contains("/arm64/"), "{arm}");
    }
}
