//! What the command line answers already: one value for each prompt, resources and budget line by line.

use serde_json::Value;

use super::draft::{Fields, field_value, set};

/// The answers that came as flags. Debug is left out: it would show secrets.
#[derive(Default)]
pub struct Given {
    /// Whether to start from the file that is there.
    pub load: Option<bool>,
    /// Whether to save without showing the last page.
    pub yes: bool,
    /// `cloud_credentials_key`.
    pub access_key: Option<String>,
    /// `cloud_credentials_secret`.
    pub secret_key: Option<String>,
    /// `cloud_credentials_token`.
    pub session_token: Option<String>,
    /// `use_credentials_chain`.
    pub chain: Option<bool>,
    /// `cloud_credentials_region`.
    pub region: Option<String>,
    /// `iam_name` or `iam_arn`.
    pub instance_profile: Option<String>,
    /// `git_user`.
    pub git_user: Option<String>,
    /// `git_pass`.
    pub git_pass: Option<String>,
    /// `default_docker_image`.
    pub docker_image: Option<String>,
    /// `resource_configurations`.
    pub resources: Vec<GivenResource>,
    /// `extra_vm_bash_script`.
    pub bash_script: Option<String>,
    /// `extra_clearml_conf`.
    pub clearml_conf: Option<String>,
    /// `queues`.
    pub budget: Vec<GivenPool>,
    /// `max_idle_time_min`.
    pub max_idle_time_min: Option<String>,
    /// `polling_interval_time_min`.
    pub polling_interval_time_min: Option<String>,
    /// `advertise_address`.
    pub advertise_address: Option<String>,
}

/// A resource of the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenResource {
    pub(super) name: String,
    pub(super) fields: Fields,
}

/// A line of the budget.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenPool {
    pub(super) queue: String,
    pub(super) resource: String,
    pub(super) maximum: String,
}

impl GivenResource {
    /// Reads `NAME:key=value,key=value`; a part without `=` goes on with the value before it, and tags are written
    /// `tags=team=vision;owner=me`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in rest.split(',') {
            match (part.split_once('='), pairs.last_mut()) {
                (Some((key, value)), _) => pairs.push((key.trim().to_owned(), value.trim().to_owned())),
                (None, _) if part.trim().is_empty() => {}
                (None, Some((_, value))) => *value = format!("{value},{part}"),
                (None, None) => {
                    return Err(format!("'{}' has no '='; write NAME:key=value,key=value", part.trim()));
                }
            }
        }
        let mut fields = Fields::new();
        for (key, value) in pairs {
            if fields.contains_key(&key) {
                return Err(format!("{key} stands twice"));
            }
            match key.as_str() {
                "extra_configurations" => {
                    return Err("extra_configurations is a mapping: write it into the file".to_owned());
                }
                "tags" => set(&mut fields, "tags", Value::String(value.replace(';', ", "))),
                // An empty value takes a default away, so it is kept here.
                _ => {
                    fields.insert(key.clone(), field_value(&key, &value));
                }
            }
        }
        Ok(Self { name: name.trim().to_owned(), fields })
    }
}

impl GivenPool {
    /// Reads `QUEUE=RESOURCE:MAX`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(queue, rest)| {
            let (resource, maximum) = rest.rsplit_once(':')?;
            Some((queue.trim(), resource.trim(), maximum.trim()))
        });
        match parts {
            Some((queue, resource, maximum)) if !queue.is_empty() && !resource.is_empty() => Ok(Self {
                queue: queue.to_owned(),
                resource: resource.to_owned(),
                maximum: maximum.to_owned(),
            }),
            Some(_) | None => Err("must be QUEUE=RESOURCE:MAX, such as gpu=aws4gpu:3".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resource_is_read_with_lists_and_tags() {
        let read = GivenResource::parse(
            "aws4gpu:instance_type=g4dn.xlarge, is_spot=yes,security_group_ids=sg-1,sg-2,tags=a=1;b=2,ebs_volume_size=100,availability_zone=",
        )
        .unwrap();
        assert_eq!(read.name, "aws4gpu");
        assert_eq!(
            Value::Object(read.fields),
            json!({
                "instance_type": "g4dn.xlarge",
                "is_spot": true,
                "security_group_ids": ["sg-1", "sg-2"],
                "tags": "a=1, b=2",
                "ebs_volume_size": 100,
                "availability_zone": "",
            })
        );
        assert!(GivenResource::parse("aws4gpu").unwrap().fields.is_empty(), "defaults alone");
    }

    #[test]
    fn a_malformed_resource_or_budget_is_told() {
        assert!(GivenResource::parse("a:g4dn.xlarge").unwrap_err().contains("has no '='"));
        assert!(GivenResource::parse("a:x=1,x=2").unwrap_err().contains("twice"));
        assert!(GivenResource::parse("a:extra_configurations={}").unwrap_err().contains("file"));
        for text in ["gpu", "gpu=t4", "=t4:1", "gpu=:1"] {
            assert!(GivenPool::parse(text).unwrap_err().contains("QUEUE=RESOURCE:MAX"), "{text}");
        }
        let pool = GivenPool::parse("gpu=t4:3").unwrap();
        assert_eq!((pool.queue.as_str(), pool.resource.as_str(), pool.maximum.as_str()), ("gpu", "t4", "3"));
    }
}
