//! IAM's judgement, as far as a policy of allowed actions, resources and equal strings goes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::describe::like;

/// What EC2 asks IAM before it does something: one question for each resource that is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// `ec2:RunInstances`.
    pub(crate) action: String,
    /// An ARN, or `*` where the action knows no resources.
    pub(crate) resource: String,
    /// Condition keys with their values: `aws:RequestTag/Name`.
    pub(crate) context: BTreeMap<String, String>,
}

impl Question {
    pub(crate) fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { action: action.into(), resource: resource.into(), context: BTreeMap::new() }
    }

    pub(crate) fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.insert(key.into(), value.into());
        self
    }
}

/// Whether a statement allows it and none denies it.
pub(crate) fn allows(policy: &Value, question: &Question) -> bool {
    let statements: Vec<&Value> = items(&policy["Statement"]).filter(|it| covers(it, question)).collect();
    let denied = statements.iter().any(|statement| statement["Effect"] == "Deny");
    !denied && statements.iter().any(|statement| statement["Effect"] == "Allow")
}

fn covers(statement: &Value, question: &Question) -> bool {
    let action = texts(&statement["Action"])
        .any(|pattern| fits(&pattern.to_ascii_lowercase(), &question.action.to_ascii_lowercase()));
    let resource = texts(&statement["Resource"]).any(|pattern| fits(pattern, &question.resource));
    action && resource && holds(&statement["Condition"], &question.context)
}

/// Every operator and every key must hold; one that is not known here holds never.
fn holds(condition: &Value, context: &BTreeMap<String, String>) -> bool {
    let Some(operators) = condition.as_object() else { return condition.is_null() };
    operators.iter().all(|(operator, keys)| {
        let equal = |wanted: &str, found: &str| match operator.as_str() {
            "StringEquals" => wanted == found,
            "StringLike" => fits(wanted, found),
            _ => false,
        };
        keys.as_object().is_some_and(|keys| {
            keys.iter().all(|(key, wanted)| {
                context.get(key).is_some_and(|found| texts(wanted).any(|wanted| equal(wanted, found)))
            })
        })
    })
}

fn fits(pattern: &str, text: &str) -> bool {
    like(pattern.as_bytes(), text.as_bytes())
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).filter_map(Value::as_str)
}

/// IAM takes one in place of a list of one.
fn items(value: &Value) -> impl Iterator<Item = &Value> {
    let list = value.as_array().map(Vec::as_slice);
    list.unwrap_or_else(|| std::slice::from_ref(value)).iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_statement_covers_by_action_resource_and_condition() {
        let policy = json!({"Statement": [
            {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"},
            {"Effect": "Allow", "Action": ["ec2:TerminateInstances"], "Resource": "arn:aws:ec2:*:*:instance/*",
             "Condition": {"StringEquals": {"aws:ResourceTag/fleet": ["a", "b"]}}},
            {"Effect": "Deny", "Action": "ec2:DescribeRegions", "Resource": "*"},
        ]});
        let instance = "arn:aws:ec2:us-east-1:1:instance/i-1";
        let end = || Question::new("ec2:TerminateInstances", instance);
        assert!(allows(&policy, &Question::new("ec2:DescribeInstances", "*")));
        assert!(!allows(&policy, &Question::new("ec2:DescribeRegions", "*")), "denied");
        assert!(allows(&policy, &end().with("aws:ResourceTag/fleet", "b")));
        assert!(!allows(&policy, &end().with("aws:ResourceTag/fleet", "c")));
        assert!(!allows(&policy, &end()), "without the tag");
        let subnet = Question::new("ec2:TerminateInstances", "arn:aws:ec2:us-east-1:1:subnet/s-1");
        assert!(!allows(&policy, &subnet.with("aws:ResourceTag/fleet", "a")));
    }

    #[test]
    fn an_operator_that_is_not_known_allows_nothing() {
        let condition = json!({"NumericLessThan": {"x": "1"}});
        let policy =
            json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}});
        assert!(!allows(&policy, &Question::new("ec2:RunInstances", "*").with("x", "0")));
    }
}
