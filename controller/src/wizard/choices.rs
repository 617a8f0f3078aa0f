//! What AWS could offer at a prompt: regions, zones, types, images, keys, groups, subnets.
//!
//! The wizard asks through this trait alone, so that it works without AWS. Every call blocks, for ten seconds at
//! the most, and "unknown" is an answer: the wizard then goes on with blanks and says why, once.

/// One of the answers that a prompt offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What is typed.
    pub value: String,
    /// What it is, for the reader: `1 x T4, 16 vCPU, 64 GiB, 1.20 USD/h`.
    pub note: String,
}

impl Choice {
    /// An answer that explains itself.
    pub fn plain(value: impl Into<String>) -> Self {
        Self { value: value.into(), note: String::new() }
    }
}

/// An instance type, as far as the wizard's defaults depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeFacts {
    /// Whether it has a GPU that CUDA can use.
    pub gpu: bool,
    /// Whether its processors are ARM's.
    pub arm: bool,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `ami-0123456789abcdef0`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its own root volume is: `/dev/sda1`.
    pub root_device: Option<String>,
}

/// What AWS says of the keys that were typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are good.
    Accepted,
    /// They are not; in AWS's words.
    Refused(String),
    /// AWS could not be asked.
    Unknown,
}

/// What AWS knows, for one set of credentials and one region. `None` is "not known": nothing may be concluded.
pub trait Choices {
    /// Whether the credentials are any good.
    fn credentials(&mut self) -> Verdict;
    /// The regions that the account may use, all of them.
    fn regions(&mut self) -> Option<Vec<Choice>>;
    /// The region's zones that the account may use, all of them; of those that have a type, if it is given.
    fn zones(&mut self, instance_type: Option<&str>) -> Option<Vec<Choice>>;
    /// The region's instance types, all of them, those with GPUs first.
    fn instance_types(&mut self) -> Option<Vec<Choice>>;
    /// What the defaults need to know of a type.
    fn type_facts(&mut self, instance_type: &str) -> Option<TypeFacts>;
    /// Images to begin with; there are others.
    fn images(&mut self) -> Option<Vec<Choice>>;
    /// The image of an id, a name or a parameter; `Some(None)` if the region has none.
    fn image(&mut self, image: &str) -> Option<Option<Image>>;
    /// The key pairs, all of them.
    fn key_pairs(&mut self) -> Option<Vec<Choice>>;
    /// The security groups, all of them.
    fn security_groups(&mut self) -> Option<Vec<Choice>>;
    /// The subnets, all of them; of one zone if it is given.
    fn subnets(&mut self, zone: Option<&str>) -> Option<Vec<Choice>>;
    /// Why something was unknown, once.
    fn trouble(&mut self) -> Option<String>;
}

/// Without AWS.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoChoices;

impl Choices for NoChoices {
    fn credentials(&mut self) -> Verdict {
        Verdict::Unknown
    }

    fn regions(&mut self) -> Option<Vec<Choice>> {
        None
    }

    fn zones(&mut self, _instance_type: Option<&str>) -> Option<Vec<Choice>> {
        None
    }

    fn instance_types(&mut self) -> Option<Vec<Choice>> {
        None
    }

    fn type_facts(&mut self, _instance_type: &str) -> Option<TypeFacts> {
        None
    }

    fn images(&mut self) -> Option<Vec<Choice>> {
        None
    }

    fn image(&mut self, _image: &str) -> Option<Option<Image>> {
        None
    }

    fn key_pairs(&mut self) -> Option<Vec<Choice>> {
        None
    }

    fn security_groups(&mut self) -> Option<Vec<Choice>> {
        None
    }

    fn subnets(&mut self, _zone: Option<&str>) -> Option<Vec<Choice>> {
        None
    }

    fn trouble(&mut self) -> Option<String> {
        None
    }
}
