//! What a call needs to be allowed: the questions that AWS puts to IAM, by its service authorization reference.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog;
use super::error::ApiError;
use super::iam::{self, Question};
use super::params::Params;
use super::world::World;

/// The user that the sandbox's key belongs to.
pub(crate) const CALLER: &str = "arn:aws:iam::123456789012:user/sandbox";

impl World {
    /// The IAM actions that a call needs, if the policy allows them all.
    pub(crate) fn authorize(&self, action: &str, params: &Params) -> Result<BTreeSet<String>, ApiError> {
        let questions = self.questions(action, params);
        if let Some(policy) = &self.options.policy
            && let Some(question) = questions.iter().find(|question| !iam::allows(policy, question))
        {
            return Err(ApiError::unauthorized(CALLER, &question.action, &question.resource));
        }
        Ok(questions.into_iter().map(|question| question.action).collect())
    }

    fn questions(&self, action: &str, params: &Params) -> Vec<Question> {
        let named = |name: &str| -> Vec<Question> {
            let ids = params.list(name).into_iter();
            ids.map(|id| self.with_tags(Question::new(format!("ec2:{action}"), self.arn("instance", id)), id))
                .collect()
        };
        match action {
            "RunInstances" => self.of_launch(params),
            "TerminateInstances" | "StopInstances" => named("InstanceId"),
            "GetConsoleOutput" => {
                let id = params.get("InstanceId").unwrap_or_default();
                vec![self.with_tags(Question::new("ec2:GetConsoleOutput", self.arn("instance", id)), id)]
            }
            "CreateTags" => named("ResourceId"),
            _ => vec![Question::new(format!("ec2:{action}"), "*")],
        }
    }

    /// A launch touches everything that it is made of and everything that it makes, and does more than run.
    fn of_launch(&self, params: &Params) -> Vec<Question> {
        const RUN: &str = "ec2:RunInstances";
        let tags = tags_by_kind(params);
        let spot = params.get("InstanceMarketOptions.MarketType") == Some("spot");
        let mut made = vec!["instance", "volume", "network-interface"];
        if spot {
            made.push("spot-instances-request");
        }
        let mut questions = Vec::new();
        for kind in made {
            questions.push(requested(Question::new(RUN, self.arn(kind, "*")), tags.get(kind)));
        }
        for (kind, pairs) in &tags {
            let question = Question::new("ec2:CreateTags", self.arn(kind, "*"));
            questions.push(requested(question, Some(pairs)).with("ec2:CreateAction", "RunInstances"));
        }
        let image = params.get("ImageId").unwrap_or_default();
        if let Some(parameter) = image.strip_prefix("resolve:ssm:") {
            let account = if parameter.starts_with("/aws/service/") { "" } else { catalog::OWNER };
            let name = parameter.split(':').next().unwrap_or_default().trim_start_matches('/');
            let region = &self.options.region;
            let arn = format!("arn:aws:ssm:{region}:{account}:parameter/{name}");
            questions.push(Question::new("ssm:GetParameters", arn));
        }
        let region = &self.options.region;
        questions.push(Question::new(RUN, format!("arn:aws:ec2:{region}::image/{image}")));
        questions
            .push(Question::new(RUN, self.arn("subnet", params.get("SubnetId").unwrap_or("subnet-default"))));
        let groups = params.list("SecurityGroupId");
        let groups = if groups.is_empty() { vec!["sg-default"] } else { groups };
        questions.extend(groups.into_iter().map(|id| Question::new(RUN, self.arn("security-group", id))));
        if let Some(key) = params.get("KeyName") {
            questions.push(Question::new(RUN, self.arn("key-pair", key)));
        }
        if let Some(snapshot) = params.get("BlockDeviceMapping.1.Ebs.SnapshotId") {
            questions.push(Question::new(RUN, format!("arn:aws:ec2:{region}::snapshot/{snapshot}")));
        }
        let profile = params.get("IamInstanceProfile.Name").or(params.get("IamInstanceProfile.Arn"));
        if let Some(name) = profile.and_then(|profile| profile.rsplit('/').next()) {
            let role = format!("arn:aws:iam::{}:role/{name}", catalog::OWNER);
            questions
                .push(Question::new("iam:PassRole", role).with("iam:PassedToService", "ec2.amazonaws.com"));
        }
        if spot && !self.options.has_spot_role {
            let role = "role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot";
            let arn = format!("arn:aws:iam::{}:{role}", catalog::OWNER);
            let question = Question::new("iam:CreateServiceLinkedRole", arn);
            questions.push(question.with("iam:AWSServiceName", "spot.amazonaws.com"));
        }
        questions
    }

    fn arn(&self, kind: &str, id: &str) -> String {
        format!("arn:aws:ec2:{}:{}:{kind}/{id}", self.options.region, catalog::OWNER)
    }

    /// An instance that is not there has no tags.
    fn with_tags(&self, mut question: Question, id: &str) -> Question {
        for (key, value) in self.get(id).map(|instance| &instance.tags).into_iter().flatten() {
            question = question.with(format!("aws:ResourceTag/{key}"), value);
        }
        question
    }
}

fn tags_by_kind(params: &Params) -> BTreeMap<String, Vec<(String, String)>> {
    let mut tags: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for index in params.indices("TagSpecification") {
        let kind = params.get(&format!("TagSpecification.{index}.ResourceType")).unwrap_or_default();
        tags.entry(kind.to_owned())
            .or_default()
            .extend(params.pairs(&format!("TagSpecification.{index}.Tag")));
    }
    tags
}

fn requested(mut question: Question, tags: Option<&Vec<(String, String)>>) -> Question {
    for (key, value) in tags.into_iter().flatten() {
        question = question.with(format!("aws:RequestTag/{key}"), value);
    }
    question
}
