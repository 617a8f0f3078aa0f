//! Every AWS action that this program needs: the one table, and the IAM policy that is made of it.
//!
//! Where IAM lets a permission be bound to a resource or a tag, it is: instances are launched with the prefix's tag or
//! not at all, and only what carries it is ended. `sts:GetCallerIdentity` is missing, as nobody needs a permission for it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::launch::Profile;

/// The tag that tells a fleet's instances by their worker prefix.
pub const PREFIX_TAG: &str = "clearml-autoscaler:prefix";

/// An action as IAM spells it, the statement that it stands in, and when it is needed.
const ACTIONS: &[(&str, Statement, Needed)] = &[
    ("ec2:DescribeInstances", Statement::Watch, Needed::Always),
    ("ec2:DescribeImages", Statement::Watch, Needed::ImageByName),
    ("ec2:DescribeSpotPriceHistory", Statement::Watch, Needed::Spot),
    ("ec2:RunInstances", Statement::LaunchFrom, Needed::Always),
    ("ec2:RunInstances", Statement::LaunchOwn, Needed::Always),
    ("ec2:CreateTags", Statement::TagAtLaunch, Needed::Always),
    ("ec2:GetConsoleOutput", Statement::EndOwn, Needed::Always),
    ("ec2:TerminateInstances", Statement::EndOwn, Needed::Always),
    ("ssm:GetParameters", Statement::ImageParameters, Needed::ImageByParameter),
    ("iam:PassRole", Statement::PassRole, Needed::Profile),
    ("iam:CreateServiceLinkedRole", Statement::FirstSpot, Needed::Spot),
    ("ec2:DescribeAccountAttributes", Statement::Setup, Needed::Always),
    ("ec2:DescribeAvailabilityZones", Statement::Setup, Needed::Always),
    ("ec2:DescribeImages", Statement::Setup, Needed::Always),
    ("ec2:DescribeInstanceTypeOfferings", Statement::Setup, Needed::Always),
    ("ec2:DescribeInstanceTypes", Statement::Setup, Needed::Always),
    ("ec2:DescribeKeyPairs", Statement::Setup, Needed::Always),
    ("ec2:DescribeRegions", Statement::Setup, Needed::Always),
    ("ec2:DescribeSecurityGroups", Statement::Setup, Needed::Always),
    ("ec2:DescribeSpotPriceHistory", Statement::Setup, Needed::Always),
    ("ec2:DescribeSubnets", Statement::Setup, Needed::Always),
    ("servicequotas:GetServiceQuota", Statement::Setup, Needed::Always),
];

/// A statement of the policy; its name is the `Sid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statement {
    /// What the loop reads.
    Watch,
    /// What instances are made from.
    LaunchFrom,
    /// What is made by a launch, and carries the prefix's tag.
    LaunchOwn,
    /// Tags within a launch, never later.
    TagAtLaunch,
    /// Instances with the prefix's tag.
    EndOwn,
    /// `ami_id` as an SSM parameter.
    ImageParameters,
    /// The role of the instances' profile.
    PassRole,
    /// An account's first spot request makes EC2's role for it.
    FirstSpot,
    /// Read by the wizard and by `doctor`; may be left out.
    Setup,
}

const STATEMENTS: [Statement; 9] = [
    Statement::Watch,
    Statement::LaunchFrom,
    Statement::LaunchOwn,
    Statement::TagAtLaunch,
    Statement::EndOwn,
    Statement::ImageParameters,
    Statement::PassRole,
    Statement::FirstSpot,
    Statement::Setup,
];

/// When an action is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needed {
    Always,
    ImageByName,
    ImageByParameter,
    Profile,
    Spot,
}

/// What a policy is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purpose {
    /// `us-east-1`; `None` allows every region.
    pub region: Option<String>,
    /// The fleet's worker prefix.
    pub prefix: String,
    /// Images are looked up by name.
    pub image_by_name: bool,
    /// SSM parameters that name images, as paths.
    pub image_parameters: BTreeSet<String>,
    /// The instances' profile.
    pub profile: Option<Profile>,
    /// Instances are bought as spot.
    pub spot: bool,
    /// Further kinds of resources that launches name: `launch-template`, `placement-group`.
    pub ingredients: BTreeSet<&'static str>,
}

/// The least IAM policy for a purpose, as a document.
pub fn policy(purpose: &Purpose) -> Value {
    let statements: Vec<Value> =
        STATEMENTS.iter().filter_map(|statement| purpose.statement(*statement)).collect();
    json!({"Version": "2012-10-17", "Statement": statements})
}

impl Purpose {
    fn statement(&self, statement: Statement) -> Option<Value> {
        let listed = ACTIONS.iter().filter(|(_, of, needed)| *of == statement && self.needs(*needed));
        let actions: Vec<&str> = listed.map(|(action, _, _)| *action).collect();
        if actions.is_empty() {
            return None;
        }
        let mut text = Map::new();
        text.insert("Sid".to_owned(), json!(format!("{statement:?}")));
        text.insert("Effect".to_owned(), json!("Allow"));
        text.insert("Action".to_owned(), json!(actions));
        text.insert("Resource".to_owned(), json!(self.resources(statement)));
        if let Some(condition) = self.condition(statement) {
            text.insert("Condition".to_owned(), condition);
        }
        Some(Value::Object(text))
    }

    fn needs(&self, needed: Needed) -> bool {
        match needed {
            Needed::Always => true,
            Needed::ImageByName => self.image_by_name,
            Needed::ImageByParameter => !self.image_parameters.is_empty(),
            Needed::Profile => self.profile.is_some(),
            Needed::Spot => self.spot,
        }
    }

    fn resources(&self, statement: Statement) -> Vec<String> {
        let of_account = |kind: &str| self.ec2("*", kind);
        match statement {
            Statement::Watch | Statement::Setup => vec!["*".to_owned()],
            Statement::LaunchFrom => {
                let shared = ["image", "snapshot"].map(|kind| self.ec2("", kind));
                let own = ["key-pair", "network-interface", "security-group", "subnet"].map(of_account);
                let further = self.ingredients.iter().map(|kind| self.ec2("*", kind));
                shared.into_iter().chain(own).chain(further).collect()
            }
            Statement::LaunchOwn => {
                let mut made = vec!["instance", "volume"];
                if self.spot {
                    made.push("spot-instances-request");
                }
                made.into_iter().map(of_account).collect()
            }
            Statement::TagAtLaunch => {
                ["instance", "network-interface", "spot-instances-request", "volume"].map(of_account).to_vec()
            }
            Statement::EndOwn => vec![of_account("instance")],
            Statement::ImageParameters => {
                self.image_parameters.iter().map(|path| self.parameter(path)).collect()
            }
            Statement::PassRole => self.profile.iter().map(|profile| self.role(profile)).collect(),
            Statement::FirstSpot => {
                let role = "role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot";
                vec![format!("arn:{}:iam::*:{role}", self.partition())]
            }
        }
    }

    fn condition(&self, statement: Statement) -> Option<Value> {
        let equals = |key: &str, value: &str| json!({"StringEquals": {key: value}});
        match statement {
            Statement::Watch | Statement::LaunchFrom | Statement::ImageParameters | Statement::Setup => None,
            Statement::LaunchOwn => Some(equals(&format!("aws:RequestTag/{PREFIX_TAG}"), &self.prefix)),
            Statement::TagAtLaunch => Some(equals("ec2:CreateAction", "RunInstances")),
            Statement::EndOwn => Some(equals(&format!("aws:ResourceTag/{PREFIX_TAG}"), &self.prefix)),
            Statement::PassRole => {
                let suffix = if self.partition() == "aws-cn" { ".cn" } else { "" };
                Some(equals("iam:PassedToService", &format!("ec2.amazonaws.com{suffix}")))
            }
            Statement::FirstSpot => Some(equals("iam:AWSServiceName", "spot.amazonaws.com")),
        }
    }

    fn ec2(&self, account: &str, kind: &str) -> String {
        let region = self.region.as_deref().unwrap_or("*");
        format!("arn:{}:ec2:{region}:{account}:{kind}/*", self.partition())
    }

    /// Amazon's public parameters belong to no account.
    fn parameter(&self, path: &str) -> String {
        let region = self.region.as_deref().unwrap_or("*");
        let account = if path.starts_with("/aws/service/") { "" } else { "*" };
        // `PATH:VERSION` and `PATH:LABEL` are the same parameter.
        let name = path.split(':').next().unwrap_or_default().trim_start_matches('/');
        format!("arn:{}:ssm:{region}:{account}:parameter/{name}", self.partition())
    }

    /// A profile's role, which is called like the profile unless somebody wanted otherwise.
    fn role(&self, profile: &Profile) -> String {
        match profile {
            Profile::Name(name) => format!("arn:{}:iam::*:role/{name}", self.partition()),
            Profile::Arn(arn) => {
                let (stem, name) = arn.split_once(":instance-profile/").unwrap_or((arn, "*"));
                format!("{stem}:role/{}", name.rsplit('/').next().unwrap_or(name))
            }
        }
    }

    fn partition(&self) -> &'static str {
        match self.region.as_deref() {
            Some(region) if region.starts_with("cn-") => "aws-cn",
            Some(region) if region.starts_with("us-gov-") => "aws-us-gov",
            Some(_) | None => "aws",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement<'a>(policy: &'a Value, sid: &str) -> Option<&'a Value> {
        policy["Statement"].as_array()?.iter().find(|statement| statement["Sid"] == sid)
    }

    #[test]
    fn what_is_not_used_is_not_allowed() {
        let plain = policy(&Purpose { prefix: "p".to_owned(), ..Purpose::default() });
        for sid in ["ImageParameters", "PassRole", "FirstSpot"] {
            assert!(statement(&plain, sid).is_none(), "{sid}");
        }
        assert_eq!(statement(&plain, "Watch").unwrap()["Action"], json!(["ec2:DescribeInstances"]));
        assert!(!plain.to_string().contains("spot-instances-request\"],\"Sid\":\"LaunchOwn"));
    }

    #[test]
    fn launches_and_ends_are_bound_to_the_prefix() {
        let purpose =
            Purpose { region: Some("eu-west-1".to_owned()), prefix: "p".to_owned(), ..Purpose::default() };
        let policy = policy(&purpose);
        let own = statement(&policy, "LaunchOwn").unwrap();
        assert_eq!(own["Condition"]["StringEquals"]["aws:RequestTag/clearml-autoscaler:prefix"], "p");
        assert_eq!(
            own["Resource"],
            json!(["arn:aws:ec2:eu-west-1:*:instance/*", "arn:aws:ec2:eu-west-1:*:volume/*"])
        );
        let end = statement(&policy, "EndOwn").unwrap();
        assert_eq!(end["Condition"]["StringEquals"]["aws:ResourceTag/clearml-autoscaler:prefix"], "p");
        assert_eq!(end["Action"], json!(["ec2:GetConsoleOutput", "ec2:TerminateInstances"]));
    }

    #[test]
    fn roles_and_parameters_are_named() {
        let arn = "arn:aws-cn:iam::123456789012:instance-profile/teams/vision".to_owned();
        let purpose = Purpose {
            region: Some("cn-north-1".to_owned()),
            profile: Some(Profile::Arn(arn)),
            image_parameters: BTreeSet::from(["/aws/service/x/ami-id".to_owned(), "/golden:7".to_owned()]),
            ..Purpose::default()
        };
        let policy = policy(&purpose);
        let pass = statement(&policy, "PassRole").unwrap();
        assert_eq!(pass["Resource"], json!(["arn:aws-cn:iam::123456789012:role/vision"]));
        assert_eq!(pass["Condition"]["StringEquals"]["iam:PassedToService"], "ec2.amazonaws.com.cn");
        assert_eq!(
            statement(&policy, "ImageParameters").unwrap()["Resource"],
            json!([
                "arn:aws-cn:ssm:cn-north-1::parameter/aws/service/x/ami-id",
                "arn:aws-cn:ssm:cn-north-1:*:parameter/golden"
            ])
        );
        let named = Purpose { profile: Some(Profile::Name("worker".to_owned())), ..Purpose::default() };
        assert_eq!(named.role(&Profile::Name("worker".to_owned())), "arn:aws:iam::*:role/worker");
    }

    #[test]
    fn it_fits_a_managed_policy() {
        let everything = Purpose {
            region: Some("us-east-1".to_owned()),
            prefix: "p".repeat(64),
            image_by_name: true,
            image_parameters: (0..8)
                .map(|number| format!("/aws/service/deeplearning/ami/{number}/ami-id"))
                .collect(),
            profile: Some(Profile::Name("n".repeat(128))),
            spot: true,
            ingredients: BTreeSet::from(["launch-template", "placement-group"]),
        };
        assert!(policy(&everything).to_string().len() <= 6144);
    }
}
